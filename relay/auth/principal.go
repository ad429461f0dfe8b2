package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Why a request is refused.
var (
	// ErrNoCredentials: the request carries none of the kind asked for.
	ErrNoCredentials = errors.New("no credentials")
	// ErrBadCredentials: the request carries some, and they are not good.
	ErrBadCredentials = errors.New("bad credentials")
	// ErrExpired and ErrNotYet: they would be good at another time. Both are
	// ErrBadCredentials too; the difference is for the log, not for the caller.
	ErrExpired = fmt.Errorf("%w: expired", ErrBadCredentials)
	ErrNotYet  = fmt.Errorf("%w: not valid yet", ErrBadCredentials)
	// ErrUnchecked: nobody can say now whether they are good. The caller should keep
	// them and try again; see "Why" in the package comment.
	ErrUnchecked = errors.New("credentials cannot be checked now")
	// ErrForbidden: good credentials that do not reach this far.
	ErrForbidden = errors.New("forbidden")
)

// Challenge is the WWW-Authenticate header that every 401 has to carry
// (RFC 9110 section 11.6.1).
const Challenge = `Bearer realm="bridge"`

// How a Principal was authenticated; a short fixed set, fit for a metric label.
const (
	MethodNone   = "none"
	MethodAPIKey = "api-key"
	MethodSigned = "signed-url"
	MethodOIDC   = "oidc"
	MethodCert   = "client-cert"
)

// A Principal is who auth says is asking. It is made for one request and never
// changes. The zero Principal may do nothing.
type Principal struct {
	// Name is what the log, the metrics of limits and the signal call it.
	Name string
	// Method is how we know: one of the Method constants.
	Method string
	// Claims are what else is known of it, for rules to ask for: groups, roles, scp, tid
	// and so on of a token; uri, dns, email, cn, o, ou and issuer of a certificate.
	Claims map[string][]string
	// Expires is when the credentials end; zero: never. A bridge that was open
	// by then is the relay's to close or to keep.
	Expires time.Time
	// Grants are what it may reach: whatever any one of them allows. Where there is a
	// policy they are a limit besides, and nil is none.
	Grants []Grant

	key keyHash // of the API key
}

// A Grant allows every listed target on every listed device. An empty list
// allows nothing.
type Grant struct {
	Devices []Glob
	Targets []Glob
}

// Allow returns nil if p may reach target on the device. An empty target is a
// raw bridge to whatever the device has as its default. The error is
// ErrForbidden and says, fit for the caller to read, which part failed.
func (p *Principal) Allow(deviceID, target string) error {
	if len(p.Grants) == 0 { // a token's or a certificate's, without a policy
		return fmt.Errorf("%w: %q may reach nothing: no rule of this relay is for this principal", ErrForbidden, p.Name)
	}
	deviceOK := false
	for _, g := range p.Grants {
		if !anyMatch(g.Devices, deviceID) {
			continue
		}
		if anyMatch(g.Targets, target) {
			return nil
		}
		deviceOK = true
	}
	if !deviceOK {
		return fmt.Errorf("%w: %s", ErrForbidden, DeniesDevice(p.Name, deviceID))
	}
	return fmt.Errorf("%w: %s", ErrForbidden, DeniesTarget(p.Name, deviceID, target))
}

// DeniesDevice is how everybody is told that a device is out of reach.
func DeniesDevice(name, deviceID string) string {
	return fmt.Sprintf("%q may not reach device %q", name, deviceID)
}

// DeniesTarget is how everybody is told that a device is within reach, and a target on it
// is not.
func DeniesTarget(name, deviceID, target string) string {
	if target == "" {
		return fmt.Sprintf("%q may reach device %q, but not its default target: name a target", name, deviceID)
	}
	return fmt.Sprintf("%q may reach device %q, but not target %q there", name, deviceID, target)
}

func anyMatch(globs []Glob, name string) bool {
	for _, g := range globs {
		if g.Match(name) {
			return true
		}
	}
	return false
}

// LogValue is the name: the rules do not belong on every line.
func (p *Principal) LogValue() slog.Value {
	if p == nil {
		return slog.StringValue("")
	}
	return slog.StringValue(p.Name)
}

// SignedPrefix is in front of the name of who asked for a signed URL, where the URL is
// used: by whoever was given it. No API key can have such a name.
const SignedPrefix = "signed:"

// Signed is the principal of a signed URL that name asked for: it may reach these
// targets on this device and nothing else.
func Signed(name, deviceID string, targets []string, expires time.Time) *Principal {
	g := Grant{Devices: []Glob{literalGlob(deviceID)}}
	for _, target := range targets {
		g.Targets = append(g.Targets, literalGlob(target))
	}
	return &Principal{Name: SignedPrefix + name, Method: MethodSigned, Expires: expires, Grants: []Grant{g}}
}

// Owner is the name of whoever p acts for: of a signed URL, who asked for it.
func (p *Principal) Owner() string {
	if p.Method != MethodSigned {
		return p.Name
	}
	return strings.TrimPrefix(p.Name, SignedPrefix)
}

// AnonymousName is the principal of AllowAll. No API key can have this name.
const AnonymousName = "anonymous"

// AllowAll authenticates everybody as anonymous, and anonymous may do
// everything. It is for a relay on a developer's own machine; a main uses it
// only when asked to in so many words.
type AllowAll struct{}

// Authenticate never fails.
func (AllowAll) Authenticate(*http.Request) (*Principal, error) {
	return &Principal{Name: AnonymousName, Method: MethodNone, Grants: []Grant{{everything, everything}}}, nil
}
