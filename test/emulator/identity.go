package emulator

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// A Device of the hub. It holds keys, which printing leaves out; its JSON form is
// that of the command's --devices-file and has them.
type Device struct {
	ID           string   `json:"id"`
	Disabled     bool     `json:"disabled,omitempty"`
	PrimaryKey   string   `json:"primaryKey,omitempty"`   // base64; "": made by the hub
	SecondaryKey string   `json:"secondaryKey,omitempty"` // the same
	Thumbprints  []string `json:"thumbprints,omitempty"`  // of its certificates, SHA-1 or SHA-256 in hex, at most two; it has no keys then
	// CertificateAuthority: it signs in with a certificate that one of
	// Config.DeviceCAs signed, with its ID as common name. It has no keys then.
	CertificateAuthority bool     `json:"certificateAuthority,omitempty"`
	Modules              []Module `json:"modules,omitempty"`
}

// A Module is an identity below a device, with a connection of its own.
type Module struct {
	ID           string   `json:"id"`
	PrimaryKey   string   `json:"primaryKey,omitempty"`
	SecondaryKey string   `json:"secondaryKey,omitempty"`
	Thumbprints  []string `json:"thumbprints,omitempty"`
}

func (d Device) String() string { return "device " + d.ID }
func (m Module) String() string { return "module " + m.ID }

// Format keeps every verb of package fmt from printing keys.
func (d Device) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// Format keeps every verb of package fmt from printing keys.
func (m Module) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.String()) }

// LogValue keeps slog from printing keys.
func (d Device) LogValue() slog.Value { return slog.StringValue(d.String()) }

// LogValue keeps slog from printing keys.
func (m Module) LogValue() slog.Value { return slog.StringValue(m.String()) }

// An identity is a device, or a module of it. IDs are case-sensitive.
type identity struct{ Device, Module string }

// String is "device" or "device/module"; the / is in no ID.
func (id identity) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// An authType is how an identity signs in.
type authType string

const (
	authSAS  authType = "sas"
	authSelf authType = "selfSigned"
	authCA   authType = "certificateAuthority"
)

// credentials are an identity's.
type credentials struct {
	auth               authType
	primary, secondary string    // of authSAS
	thumbprints        [2]string // of authSelf; upper case hex, or empty
}

// fill checks c and makes what is missing.
func (c *credentials) fill() error {
	switch c.auth {
	case authSAS:
		for _, k := range []*string{&c.primary, &c.secondary} {
			if *k == "" {
				*k = newKey()
			} else if !goodKey(*k) {
				return errors.New("a key is not base64 of at most 64 bytes")
			}
		}
		c.thumbprints = [2]string{}
	case authSelf:
		for i, t := range c.thumbprints {
			t = strings.ToUpper(strings.ReplaceAll(t, ":", ""))
			if b, err := hex.DecodeString(t); t != "" && (err != nil || len(b) != 20 && len(b) != 32) {
				return errors.New("a thumbprint is neither SHA-1 nor SHA-256 in hex")
			}
			c.thumbprints[i] = t
		}
		if c.thumbprints == [2]string{} {
			return errors.New("a self-signed certificate needs a thumbprint")
		}
		c.primary, c.secondary = "", ""
	case authCA:
		c.primary, c.secondary, c.thumbprints = "", "", [2]string{}
	default:
		return fmt.Errorf("the authentication type %q is not one of %s, %s and %s", c.auth, authSAS, authSelf, authCA)
	}
	return nil
}

// newCredentials are those of a Device or Module. Of what is left out, what the
// identity has stays; was may be nil.
func newCredentials(was *record, primary, secondary string, thumbprints []string, byCA bool) (c credentials, err error) {
	switch {
	case (byCA || len(thumbprints) > 0) && primary+secondary != "" || byCA && len(thumbprints) > 0:
		return c, errors.New("has more than one of keys, thumbprints and a certificate authority; IoT Hub takes one")
	case len(thumbprints) > 2:
		return c, errors.New("has more than two thumbprints")
	case byCA:
		c.auth = authCA
	case len(thumbprints) > 0:
		c.auth = authSelf
		copy(c.thumbprints[:], thumbprints)
	case was != nil && (primary+secondary == "" || was.auth == authSAS):
		c = was.credentials
		c.primary, c.secondary = cmp.Or(primary, c.primary), cmp.Or(secondary, c.secondary)
	default:
		c.auth, c.primary, c.secondary = authSAS, primary, secondary
	}
	return c, c.fill()
}

// newKey is 32 random bytes in base64, as the hub makes them.
func newKey() string { return base64.StdEncoding.EncodeToString(randomBytes(32)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// goodKey says whether k is a key the hub takes.
func goodKey(k string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(k)
	return err == nil && len(b) >= 1 && len(b) <= 64
}

// goodID says whether the hub takes an ID: at most 128 of the characters that the
// identity registry's page lists.
func goodID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-.+%_#*?!(),:=@$'", c) >= 0) {
			return false
		}
	}
	return true
}
