package auth

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// OIDCPrefix is in front of the name of who comes with a token of an identity provider.
// No API key can have such a name.
const OIDCPrefix = "oidc:"

const (
	// maxJWT is in bytes. Entra ID puts at most 200 groups into a token, which makes
	// 11 KB of it; the relay takes 16 KiB of headers.
	maxJWT = 12 << 10
	// Skew is how far an issuer's clock may be from ours.
	Skew = 60 * time.Second
)

// algorithms are what a token may be signed with: asymmetric ones only. With none or an
// HMAC, whoever knows the issuer's public key could make tokens.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// OIDCConfig says whose tokens are good.
type OIDCConfig struct {
	// Issuer is the provider's address, as its tokens have it in iss; https, or http on
	// a loopback address. Its keys are found from there.
	Issuer string
	// Audiences: a token is good if it is for one of these (aud). At least one.
	Audiences []string
	// NameClaim names the principal; empty: see the package comment.
	NameClaim string
	// Algorithms that tokens may be signed with; nil: RS256 and ES256.
	Algorithms []string
	// Client reaches the issuer; nil: http.DefaultTransport.
	Client *http.Client
}

// Validate reports every fault at once, by field.
func (c OIDCConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := parseIssuer(c.Issuer); err != nil {
		bad("Issuer: %w", err)
	}
	if len(c.Audiences) == 0 {
		bad("Audiences: are missing; without one, a token for any other application would be good here")
	}
	for _, a := range c.Audiences {
		if a == "" {
			bad("Audiences: one is empty")
		}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(algorithms, a) {
			bad("Algorithms: %.20q is not one of %s", a, strings.Join(algorithms, ", "))
		}
	}
	return errors.Join(errs...)
}

// An issuer is where tokens come from.
type issuer struct {
	names  []string // good values of iss
	tenant string   // of Entra ID; else empty
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// entraV1 is where Entra ID's tokens of version 1 say to be from, by the host of those of
// version 2. An app registration gets version 1 unless its manifest says otherwise; the
// keys are the same.
var entraV1 = map[string]string{
	"login.microsoftonline.com":        "sts.windows.net",
	"login.microsoftonline.us":         "sts.windows.net",
	"login.partner.microsoftonline.cn": "sts.chinacloudapi.cn",
}

func parseIssuer(s string) (issuer, error) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return issuer{}, errors.New("is missing")
	case err != nil || u.Host == "":
		return issuer{}, errors.New("is no URL, such as https://login.microsoftonline.com/TENANT-ID/v2.0")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return issuer{}, errors.New("has a user, a query or a fragment")
	case !secure(u):
		return issuer{}, fmt.Errorf("%q is not https; keys that come in clear could be anybody's", s)
	}
	is := issuer{names: []string{s}}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	v1, entra := entraV1[u.Hostname()]
	switch {
	case entra && (len(path) != 2 || path[1] != "v2.0"):
		return issuer{}, fmt.Errorf("%q is not https://%s/TENANT-ID/v2.0", s, u.Hostname())
	case entra && !guid.MatchString(path[0]):
		return issuer{}, fmt.Errorf("has tenant %q; name yours by its ID, a GUID: other names are not in tokens, and some stand for everybody's tenants", path[0])
	case entra:
		is.tenant = path[0]
		is.names = append(is.names, "https://"+v1+"/"+path[0]+"/")
	case slices.Contains([]string{"sts.windows.net", "sts.chinacloudapi.cn"}, u.Hostname()) && guid.MatchString(path[0]):
		is.tenant = path[0]
	}
	return is, nil
}

// secure says whether what comes from u cannot be changed on the way.
func secure(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())
}

// OIDC authenticates by signed tokens (JWT) of one OpenID Connect provider, such as Entra
// ID. Its methods may be called concurrently. It asks the provider for its keys when they
// are needed first, so that a relay starts while the provider is away.
type OIDC struct {
	issuer issuer
	cfg    OIDCConfig
	algs   []jose.SignatureAlgorithm
	keys   keySource
}

// NewOIDC starts nothing and asks nobody.
func NewOIDC(c OIDCConfig) (*OIDC, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("OIDC: %w", err)
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256", "ES256"}
	}
	o := &OIDC{cfg: c}
	o.issuer, _ = parseIssuer(c.Issuer) // Validate did
	for _, a := range c.Algorithms {
		o.algs = append(o.algs, jose.SignatureAlgorithm(a))
	}
	o.keys = keySource{issuer: c.Issuer, client: boundedClient(c.Client)}
	return o, nil
}

// Authenticate returns the principal whose token r carries as Authorization: Bearer. It
// has Claims and no Grants. The error is ErrNoCredentials, also for a bearer that is no
// JWT; ErrBadCredentials, ErrExpired or ErrNotYet; or ErrUnchecked if the provider's keys
// cannot be had. Its text is for the log, and may have the token's own words: where it is
// from and for whom, which is what most mistakes are about.
func (o *OIDC) Authenticate(r *http.Request) (*Principal, error) {
	raw, err := bearerJWT(r.Header)
	if err != nil {
		return nil, err
	}
	p, err := o.check(r.Context(), raw)
	if err != nil {
		return nil, fmt.Errorf("OIDC token: %w", err)
	}
	return p, nil
}

// bearerJWT returns the one JWT in h.
func bearerJWT(h http.Header) (string, error) {
	key, err := credential(h) // also refuses two different ones
	if err != nil {
		return "", err
	}
	if len(h.Values("Authorization")) == 0 || !isJWT(key) {
		return "", fmt.Errorf("%w: no JWT as Bearer", ErrNoCredentials)
	}
	return key, nil
}

// isJWT tells a JWT from an API key: its first part of three is a JSON object. An API
// key of another maker may have dots, too.
func isJWT(s string) bool {
	head, rest, _ := strings.Cut(s, ".")
	if strings.HasPrefix(s, keyPrefix) || strings.Count(rest, ".") != 1 || len(head) < 4 {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(head[:4])
	return err == nil && len(b) > 0 && b[0] == '{' // none are left of four line breaks, which base64 skips
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadCredentials, fmt.Errorf(format, args...))
}

// check does the cheap part first: only a token that names us, our issuer and a good time
// may cost the issuer a request.
func (o *OIDC) check(ctx context.Context, raw string) (*Principal, error) {
	if len(raw) > maxJWT {
		return nil, bad("more than %d bytes", maxJWT)
	}
	jws, err := jose.ParseSignedCompact(raw, o.algs)
	if err != nil { // which may quote the token
		return nil, bad("it is no JWT signed with %s", strings.Join(o.cfg.Algorithms, " or "))
	}
	head := jws.Signatures[0].Protected
	if typ, ok := head.ExtraHeaders[jose.HeaderType].(string); ok && !isTokenType(typ) {
		return nil, bad("its typ is of another kind of JWT") // RFC 8725 section 3.11
	}
	c, err := parseClaims(jws.UnsafePayloadWithoutVerification())
	if err != nil {
		return nil, bad("%w", err)
	}
	expires, err := o.checkClaims(c, time.Now())
	if err != nil {
		return nil, err
	}
	keys, err := o.keys.find(ctx, head.KeyID)
	if err != nil {
		return nil, err
	}
	verifier := oidc.NewVerifier(c.first("iss"), keySet{keys, o.algs}, &oidc.Config{
		SupportedSigningAlgs: o.cfg.Algorithms,
		SkipClientIDCheck:    true, // checkClaims has done both, with several audiences and a smaller skew
		SkipExpiryCheck:      true,
	})
	if _, err := verifier.Verify(ctx, raw); err != nil {
		return nil, bad("its signature is not the issuer's, or its claims are malformed")
	}
	// From here on it is the issuer's word: jws has the bytes that were verified.
	name, err := o.name(c)
	if err != nil {
		return nil, bad("%w", err)
	}
	return &Principal{Name: OIDCPrefix + name, Method: MethodOIDC, Expires: expires, Claims: c.lists()}, nil
}

func isTokenType(typ string) bool {
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	return typ == "jwt" || typ == "at+jwt" // RFC 9068 section 2.1
}

// checkClaims says whether the token is for us, from our issuer, and good now.
func (o *OIDC) checkClaims(c claims, now time.Time) (expires time.Time, err error) {
	iss, _ := c["iss"].(string)
	tid, _ := c["tid"].(string)
	switch {
	case !slices.Contains(o.issuer.names, iss):
		return expires, bad("it is of issuer %.100q, not of %s", iss, strings.Join(o.issuer.names, " or "))
	case o.issuer.tenant != "" && c["tid"] != nil && !strings.EqualFold(tid, o.issuer.tenant):
		return expires, bad("it is of tenant %.40q, not of %s", tid, o.issuer.tenant)
	case !slices.ContainsFunc(c.list("aud"), func(a string) bool { return slices.Contains(o.cfg.Audiences, a) }):
		return expires, bad("it is for audience %.100q, not for %s", c.list("aud"), strings.Join(o.cfg.Audiences, " or "))
	}
	expires, err = c.time("exp")
	if err == nil && expires.IsZero() {
		err = errors.New("it never expires")
	}
	notBefore, nerr := c.time("nbf")
	switch {
	case cmp.Or(err, nerr) != nil:
		return expires, bad("%w", cmp.Or(err, nerr))
	case !now.Before(expires.Add(Skew)):
		return expires, ErrExpired
	case now.Before(notBefore.Add(-Skew)):
		return expires, ErrNotYet
	}
	return expires, nil
}

// name is who it is, behind OIDCPrefix.
func (o *OIDC) name(c claims) (string, error) {
	if claim := o.cfg.NameClaim; claim != "" {
		name := c.first(claim)
		if err := checkPersonName(name); err != nil {
			return "", fmt.Errorf("its claim %.40q, which names the principal, %w", claim, err)
		}
		return name, nil
	}
	for _, from := range []struct {
		prefix, claim string
		when          bool
	}{
		{"", "preferred_username", true},
		{"", "upn", true}, // Entra ID, version 1
		{"app:", "azp", c.isApp()},
		{"app:", "appid", c.isApp()}, // Entra ID, version 1
		{"sub:", "oid", true},        // Entra ID: the same for all applications, as sub is not
		{"sub:", "sub", true},
	} {
		name := c.first(from.claim)
		if name == "" || !from.when {
			continue
		}
		err := checkPersonName(name)
		if err == nil && from.prefix == "" && (strings.HasPrefix(name, "app:") || strings.HasPrefix(name, "sub:")) {
			err = errors.New("starts like the name of something else")
		}
		if err != nil {
			return "", fmt.Errorf("its claim %q %w", from.claim, err)
		}
		return from.prefix + name, nil
	}
	return "", errors.New("it names nobody: no preferred_username, upn, oid or sub")
}
