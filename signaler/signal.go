package signaler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// Version is the version of the signal this package writes and the newest it
// reads.
const Version = 1

// MaxSize is the most bytes of an encoded signal. IoT Hub meters direct methods
// and messages in steps of 4 KB.
const MaxSize = 4 << 10

// expiryForm is RFC 3339 in UTC with whole seconds: one text per time, since sig
// covers it.
const expiryForm = "2006-01-02T15:04:05Z"

// A Signaler hands signals to a hub. Implementations are safe for concurrent
// use. Signal returns when the hub, or the device where it answers, has taken
// the signal or not, and at the latest when ctx ends, with an error that wraps
// context.Cause(ctx). Other errors wrap one of this package's sentinels, or are
// Encode's. No error quotes the signal's URLs or request data.
type Signaler interface {
	Signal(ctx context.Context, s *Signal) error
}

// A Signal asks a device to dial the accept URL. The field comments of doc.go
// give the meanings.
type Signal struct {
	AcceptURL    string
	RequestData  string
	Version      int // 0: a websocketbridge signal, of AcceptURL and RequestData only
	BridgeID     string
	DeviceID     string
	Target       string
	Principal    string
	ExpiresAt    time.Time // zero: no expiry
	RejectURL    string    // empty: the device cannot refuse
	Subprotocols []string
	TraceParent  string // W3C; a hint for logs and traces, so Encode leaves it out where it does not fit
	Sig          string
}

// form is the JSON form; its order is the order on the wire.
type form struct {
	AcceptURL    string   `json:"acceptUrl"`
	RequestData  string   `json:"requestData,omitempty"`
	Version      int      `json:"v,omitempty"`
	BridgeID     string   `json:"bridgeId,omitempty"`
	DeviceID     string   `json:"deviceId,omitempty"`
	Target       string   `json:"target,omitempty"`
	Principal    string   `json:"principal,omitempty"`
	ExpiresAt    string   `json:"expiresAt,omitempty"`
	RejectURL    string   `json:"rejectUrl,omitempty"`
	Subprotocols []string `json:"subprotocols,omitempty"`
	TraceParent  string   `json:"traceparent,omitempty"`
	Sig          string   `json:"sig,omitempty"`
}

// Encode returns the JSON form, or why s cannot be sent.
func (s *Signal) Encode() ([]byte, error) {
	f := form{
		AcceptURL: s.AcceptURL, RequestData: s.RequestData, Version: s.Version, BridgeID: s.BridgeID,
		DeviceID: s.DeviceID, Target: s.Target, Principal: s.Principal, RejectURL: s.RejectURL,
		ExpiresAt: expiryText(s.ExpiresAt), Subprotocols: s.Subprotocols, TraceParent: s.TraceParent, Sig: s.Sig,
	}
	for _, v := range append([]string{f.AcceptURL, f.RequestData, f.BridgeID, f.DeviceID, f.Target, f.Principal,
		f.RejectURL, f.TraceParent, f.Sig}, f.Subprotocols...) {
		if !utf8.ValidString(v) { // encoding/json would send U+FFFD instead
			return nil, errors.New("encode signal: a value is not valid UTF-8")
		}
	}
	out, err := f.encode()
	if err == nil && len(out) > MaxSize && f.TraceParent != "" {
		f.TraceParent = ""
		out, err = f.encode()
	}
	if err != nil {
		return nil, fmt.Errorf("encode signal: %w", err)
	}
	if len(out) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes; %d are allowed", ErrTooBig, len(out), MaxSize)
	}
	if _, err := Parse(out); err != nil {
		return nil, fmt.Errorf("encode signal: %w", err)
	}
	return out, nil
}

func (f form) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // every byte counts against MaxSize
	err := enc.Encode(f)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Parse reads a signal. Errors never quote a value: any of them may be a secret.
func Parse(b []byte) (*Signal, error) {
	members, err := object(b)
	if err != nil {
		return nil, fmt.Errorf("signal: %w", err)
	}
	var (
		s         Signal
		exp       *string
		protocols []*string // pointers: encoding/json would take null for ""
	)
	for _, m := range []struct {
		name string
		to   any
	}{
		{"acceptUrl", &s.AcceptURL}, {"requestData", &s.RequestData}, {"v", &s.Version},
		{"bridgeId", &s.BridgeID}, {"deviceId", &s.DeviceID}, {"target", &s.Target},
		{"principal", &s.Principal}, {"expiresAt", &exp}, {"rejectUrl", &s.RejectURL},
		{"subprotocols", &protocols}, {"traceparent", &s.TraceParent}, {"sig", &s.Sig},
	} {
		raw, ok := members[m.name]
		delete(members, m.name)
		if !ok || string(raw) == "null" { // websocketbridge sends requestData: null
			continue
		}
		if err := json.Unmarshal(raw, m.to); err != nil {
			return nil, fmt.Errorf("signal: %s has the wrong type", m.name)
		}
	}
	for name := range members { // what is left is for newer agents, or a trap
		if known(name) {
			return nil, errors.New("signal: has a member in the wrong case")
		}
	}
	for _, p := range protocols {
		if p == nil || *p == "" {
			return nil, errors.New("signal: subprotocols has an empty one")
		}
		s.Subprotocols = append(s.Subprotocols, *p)
	}
	switch {
	case s.AcceptURL == "":
		return nil, errors.New("signal: acceptUrl is missing")
	case s.Version < 0:
		return nil, errors.New("signal: v is negative")
	case s.Version > Version:
		return nil, fmt.Errorf("signal: v is %d; this agent knows %d: upgrade it", s.Version, Version)
	}
	if err := checkURL(s.AcceptURL, "ws", "wss"); err != nil {
		return nil, fmt.Errorf("signal: acceptUrl %w", err)
	}
	if s.RejectURL != "" {
		if err := checkURL(s.RejectURL, "http", "https"); err != nil {
			return nil, fmt.Errorf("signal: rejectUrl %w", err)
		}
	}
	if exp != nil {
		s.ExpiresAt, err = time.Parse(expiryForm, *exp)
		// The zero time would mean no expiry; Parse takes fractions too.
		if err != nil || s.ExpiresAt.IsZero() || s.ExpiresAt.Format(expiryForm) != *exp {
			return nil, errors.New("signal: expiresAt is not like 2006-01-02T15:04:05Z")
		}
	}
	return &s, nil
}

// known reports whether name is a member of ours in whatever case. A reader that
// folds case, as encoding/json does, would read another signal than we do.
func known(name string) bool {
	t := reflect.TypeFor[form]()
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if strings.EqualFold(name, tag) {
			return true
		}
	}
	return false
}

// object splits one JSON object into its members. encoding/json alone would
// take the last of two equal names and match names in any case.
func object(b []byte) (map[string]json.RawMessage, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("has %d bytes; %d are allowed", len(b), MaxSize)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("is not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errors.New("is not a JSON object")
		}
		if _, ok := members[name]; ok {
			return nil, errors.New("has a member twice")
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, errors.New("is not JSON")
		}
		members[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("is not a JSON object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("has bytes after the object")
	}
	return members, nil
}

func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("is not a URL") // err quotes the URL
	}
	if u.Scheme != schemes[0] && u.Scheme != schemes[1] {
		return fmt.Errorf("is neither %s:// nor %s://", schemes[0], schemes[1])
	}
	if u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("needs a host, and neither user nor fragment")
	}
	return nil
}
