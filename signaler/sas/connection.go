package sas

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// A ConnectionString says where a hub is and who one is there.
type ConnectionString struct {
	HostName        string // the hub's name; a port may follow
	GatewayHostName string // where to dial instead; empty: HostName
	DeviceID        string // empty: a service
	ModuleID        string
	PolicyName      string // of a service's key; empty: the device's own key
	Key             string // base64, a secret; empty: X509
	X509            bool   // the device has a certificate instead of a key
}

// maxConnectionString is in bytes; real ones have less than 400.
const maxConnectionString = 4 << 10

// ParseConnectionString reads a connection string. Its errors quote names, never
// values.
func ParseConnectionString(s string) (ConnectionString, error) {
	c, err := parseConnectionString(strings.TrimSpace(s))
	if err != nil {
		return ConnectionString{}, fmt.Errorf("connection string: %w", err)
	}
	return c, nil
}

func parseConnectionString(s string) (c ConnectionString, err error) {
	if len(s) > maxConnectionString {
		return c, fmt.Errorf("has %d bytes; %d are allowed", len(s), maxConnectionString)
	}
	fields := map[string]*string{
		"hostname": &c.HostName, "gatewayhostname": &c.GatewayHostName, "deviceid": &c.DeviceID, "moduleid": &c.ModuleID,
		"sharedaccesskeyname": &c.PolicyName, "sharedaccesskey": &c.Key, "x509": new(string),
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(pair) == "" {
			continue // a ; at the end
		}
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		field := fields[name]
		switch {
		case !ok:
			return c, errors.New("has a part without =; is it quoted and whole?") // it may be half a key
		case name == "sharedaccesssignature":
			return c, errors.New("holds a SharedAccessSignature, which cannot be renewed; use one with SharedAccessKey")
		case field == nil:
			continue // DeviceStreamEndpoint, EntityPath and the like are for others
		case seen[name]:
			return c, fmt.Errorf("has %s twice", name)
		case value == "":
			return c, fmt.Errorf("has an empty %s", name)
		}
		seen[name] = true
		*field = value
	}
	switch x := *fields["x509"]; strings.ToLower(x) {
	case "true":
		c.X509 = true
	case "", "false":
	default:
		return c, errors.New("has an x509 that is neither true nor false")
	}
	return c, c.check()
}

func (c ConnectionString) check() error {
	switch {
	case c.HostName == "":
		return errors.New("has no HostName")
	case strings.ContainsAny(c.HostName+c.GatewayHostName, "/?#@ \t\r\n"):
		return errors.New("has a HostName that is a URL or holds a space; only the name is wanted, as hub.azure-devices.net")
	case c.ModuleID != "" && c.DeviceID == "":
		return errors.New("has a ModuleId without a DeviceId")
	case c.X509 && c.Key != "":
		return errors.New("has x509=true and a SharedAccessKey; keep one")
	case c.X509 && c.DeviceID == "":
		return errors.New("has x509=true without a DeviceId; services sign in by key or by Entra ID")
	case c.DeviceID == "" && c.PolicyName == "":
		return errors.New("has neither a DeviceId nor a SharedAccessKeyName; take it from the hub's access policies, or from the device's page")
	case !c.X509 && c.Key == "":
		return errors.New("has no SharedAccessKey")
	}
	if c.Key != "" {
		if _, err := decodeKey(c.Key); err != nil {
			return err
		}
	}
	return nil
}

// decodeKey is strict base64; the error does not quote it.
func decodeKey(key string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(b) == 0 {
		return nil, errors.New("has a SharedAccessKey that is not base64; was it cut when it was copied?")
	}
	return b, nil
}

// Resource is what a token for c is about: the hub, the device or the module. It
// is as Sign wants it, not encoded.
func (c ConnectionString) Resource() string {
	return Resource(c.HostName, c.DeviceID, c.ModuleID)
}

// Resource names a hub, one of its devices (module empty), or a module.
func Resource(host, device, module string) string {
	if device != "" {
		host += "/devices/" + device
	}
	if device != "" && module != "" {
		host += "/modules/" + module
	}
	return host
}

// String names what c is for, without the key.
func (c ConnectionString) String() string {
	s := "connection string{" + c.Resource()
	if c.PolicyName != "" {
		s += " policy " + c.PolicyName
	}
	return s + "}"
}

// Format keeps every verb of package fmt from printing the key.
func (c ConnectionString) Format(f fmt.State, verb rune) { redacted(f, verb, c.String()) }

// MarshalText keeps JSON logs from printing the key.
func (c ConnectionString) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue keeps slog from printing the key.
func (c ConnectionString) LogValue() slog.Value { return slog.StringValue(c.String()) }

func redacted(f fmt.State, verb rune, text string) {
	switch verb {
	case 'v', 's':
		fmt.Fprint(f, text)
	default:
		fmt.Fprintf(f, fmt.FormatString(f, verb), text)
	}
}
