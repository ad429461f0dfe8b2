package wire

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ProblemType is the media type of a refusal's body (RFC 9457).
const ProblemType = "application/problem+json"

// A Problem is the body of every refusal before the upgrade.
type Problem struct {
	Type     string `json:"type,omitempty"` // about:blank when absent (RFC 9457 section 3.1.1)
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Code     Code   `json:"code"`
	Detail   string `json:"detail,omitempty"`
	Hint     string `json:"hint,omitempty"`
	BridgeID string `json:"bridgeId,omitempty"`
	// DeviceCode is the device's own code when Code is DeviceRefused.
	DeviceCode string `json:"deviceCode,omitempty"`
	// RetryAfter is in seconds; the Retry-After header says the same.
	RetryAfter int `json:"retryAfter,omitempty"`
}

// NewProblem fills a problem from the table.
func NewProblem(c Code, detail, bridgeID string) Problem {
	o := c.Row()
	return Problem{Title: o.Title, Status: o.Status, Code: c, Detail: detail, Hint: o.Hint, BridgeID: bridgeID}
}

// ParseProblem reads a problem body. A body that is none, from a proxy in
// between say, is an error.
func ParseProblem(body []byte) (Problem, error) {
	var p Problem
	if len(body) > MaxProblem {
		return p, fmt.Errorf("problem body has more than %d bytes", MaxProblem)
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return Problem{}, fmt.Errorf("problem body: %w", err)
	}
	if p.Code == "" {
		return Problem{}, fmt.Errorf("problem body has no code")
	}
	return p, nil
}

// A Reason is the text of a close frame: the code first, so that a program can
// read it, then words for a person.
type Reason struct {
	Code Code
	Text string
}

// String is the wire form, cut to MaxReason bytes at a rune boundary.
func (r Reason) String() string {
	s := string(r.Code)
	if r.Text != "" {
		s += ": " + r.Text
	}
	return CutReason(s)
}

// ParseReason splits the text of a close frame. Text that does not start with
// a code of this package is all text: a peer's own words.
func ParseReason(s string) Reason {
	head, text, _ := strings.Cut(s, ": ")
	if _, ok := Lookup(Code(head)); ok {
		return Reason{Code(head), text}
	}
	return Reason{"", s}
}

// CutReason makes s fit a close frame and be valid UTF-8 (RFC 6455 section 5.5.1).
func CutReason(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxReason {
		return s
	}
	n := MaxReason
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
