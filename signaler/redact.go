package signaler

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
)

// The methods below have value receivers, so that a Signal passed by value keeps
// its secrets as well as a *Signal does. Out of reach: package fmt calls no
// method for %p, nor on a Signal held by value in an unexported field.

// String names the signal without its secrets and without its payload.
func (s Signal) String() string {
	host := "?"
	if u, err := url.Parse(s.AcceptURL); err == nil {
		host = u.Host
	}
	return fmt.Sprintf("signal{bridge %q device %q target %q relay %q}", s.BridgeID, s.DeviceID, s.Target, host)
}

// Format keeps every verb of package fmt from printing the secrets.
func (s Signal) Format(f fmt.State, verb rune) { redacted(f, verb, s.String()) }

// MarshalJSON keeps JSON logs from printing the secrets. The JSON form that
// reaches the device is Encode's.
func (s Signal) MarshalJSON() ([]byte, error) { return redactedJSON(s.String()) }

// LogValue keeps slog from printing the secrets.
func (s Signal) LogValue() slog.Value { return slog.StringValue(s.String()) }

func redacted(f fmt.State, verb rune, text string) {
	switch verb {
	case 'v', 's':
		fmt.Fprint(f, text)
	default:
		fmt.Fprintf(f, fmt.FormatString(f, verb), text)
	}
}

func redactedJSON(text string) ([]byte, error) { return json.Marshal(text) }
