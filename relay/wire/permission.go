package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// A Permission is what PathCanI answers, with status 200 whether it is yes or no.
type Permission struct {
	Allowed bool   `json:"allowed"`
	Rule    string `json:"rule,omitempty"` // of the policy; several are separated by ", "
	Why     string `json:"why"`
	Caps    *Caps  `json:"caps,omitempty"` // of each bridge; nil if it is not allowed
	// Until is when it will be decided again: hours end, credentials expire.
	Until *time.Time `json:"until,omitempty"`
}

// Caps limit a bridge. What is 0 is not capped.
type Caps struct {
	Bridges           int   `json:"bridges,omitempty"`     // at once
	MaxDuration       int64 `json:"maxDuration,omitempty"` // seconds
	Idle              int64 `json:"idle,omitempty"`        // seconds
	MaxBytes          int64 `json:"maxBytes,omitempty"`
	ConnectsPerMinute int   `json:"connectsPerMinute,omitempty"`
}

// ParsePermission reads the answer. One that is none, from a proxy in between say, is an
// error.
func ParsePermission(body []byte) (Permission, error) {
	var p struct {
		Permission
		Allowed *bool `json:"allowed"`
	}
	if len(body) > MaxProblem {
		return Permission{}, fmt.Errorf("permission has more than %d bytes", MaxProblem)
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return Permission{}, fmt.Errorf("permission: %w", err)
	}
	if p.Allowed == nil {
		return Permission{}, fmt.Errorf("permission says neither yes nor no")
	}
	p.Permission.Allowed = *p.Allowed
	return p.Permission, nil
}
