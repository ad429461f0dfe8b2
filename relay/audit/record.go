package audit

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// Version is the v of each line.
const Version = 1

// An Event is what happened; doc.go has a line of each.
type Event string

// The events.
const (
	Started        Event = "started"
	Stopped        Event = "stopped"
	ConfigReloaded Event = "config_reloaded"
	Refused        Event = "refused"
	Opened         Event = "opened"
	Closed         Event = "closed"
	SignedURLMade  Event = "signed_url_made"
	Killed         Event = "killed"
)

// Values of Record.Decision.
const (
	Allow = "allow"
	Deny  = "deny"
)

// A Record is one event. Empty fields are left out; a Log fills in what all lines have.
type Record struct {
	Event     Event    `json:"event"`
	BridgeID  string   `json:"bridgeId,omitempty"`
	Principal string   `json:"principal,omitempty"`
	Method    string   `json:"method,omitempty"` // how we know the principal: of package auth
	From      string   `json:"from,omitempty"`
	DeviceID  string   `json:"deviceId,omitempty"`
	Targets   []string `json:"targets,omitempty"`
	Decision  string   `json:"decision,omitempty"`
	Rule      string   `json:"rule,omitempty"` // what decided
	Path      string   `json:"path,omitempty"` // what was asked for, without its query
	Via       string   `json:"via,omitempty"`  // the node that passed it on
	Code      string   `json:"code,omitempty"`
	By        string   `json:"by,omitempty"` // who ended the bridge: requester, device or relay
	Start     Time     `json:"start,omitzero"`
	End       Time     `json:"end,omitzero"`
	Expires   Time     `json:"expires,omitzero"`
	*Bytes
	Settings []string `json:"settings,omitempty"`
	URL      string   `json:"url,omitempty"` // the node's public one
	Version  string   `json:"version,omitempty"`
}

// Bytes are of payload. A closed bridge has them also if they are 0.
type Bytes struct {
	ToDevice    int64 `json:"toDeviceBytes"`
	ToRequester int64 `json:"toRequesterBytes"`
}

// A Time is written in UTC with milliseconds, all with the same length.
type Time struct{ time.Time }

// MarshalJSON writes RFC 3339.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format("2006-01-02T15:04:05.000Z") + `"`), nil
}

// must says whether what r tells of may not happen without its line.
func (r *Record) must() bool { return r.Event == Opened || r.Event == SignedURLMade }

// line is a Record with what a Log adds.
type line struct {
	V        int    `json:"v"`
	Seq      uint64 `json:"seq"`
	Time     Time   `json:"time"`
	Node     string `json:"node,omitempty"`
	Instance string `json:"instance"`
	Record
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// encode returns the line with its end.
func (l line) encode() []byte {
	r := &l.Record
	for _, s := range []*string{
		&r.BridgeID, &r.Principal, &r.Method, &r.From, &r.DeviceID, &r.Decision, &r.Rule, &r.Path, &r.Via, &r.Code, &r.By, &r.URL, &r.Version,
	} {
		*s = cut(*s)
	}
	r.Targets, r.Settings = cutAll(r.Targets), cutAll(r.Settings)
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return append(b, '\n')
}

const (
	maxText = 512 // bytes of a field
	maxList = 64  // fields of a list
)

func cut(s string) string {
	if len(s) > maxText {
		n := maxText
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func cutAll(all []string) (out []string) {
	for _, s := range all[:min(len(all), maxList)] {
		out = append(out, cut(s))
	}
	return out
}
