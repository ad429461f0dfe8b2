package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"websocketbridge/relay/auth"
)

// A Policy is what a file says. Its methods may be called concurrently. The zero
// Policy allows nothing.
type Policy struct {
	set atomic.Pointer[ruleSet]
}

// Load reads a file. See the package comment for its format.
func Load(path string) (*Policy, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// Parse is Load with the text of a file.
func Parse(text string) (*Policy, error) {
	p := new(Policy)
	if err := p.Replace(text); err != nil {
		return nil, err
	}
	return p, nil
}

// Replace puts the text of a file in force, also while others decide. After an error
// everything is as it was.
func (p *Policy) Replace(text string) error {
	set, err := parse(text)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	p.set.Store(set)
	return nil
}

// ReadFile returns the text of a policy file, for Replace. On unix the file must not be
// writable by its group or by others.
func ReadFile(path string) (string, error) {
	text, err := auth.ReadOwned(path, MaxFile)
	if err != nil {
		return "", fmt.Errorf("policy: %w", err)
	}
	return text, nil
}

// Len is the number of rules, for the log.
func (p *Policy) Len() int {
	if set := p.set.Load(); set != nil {
		return len(set.rules)
	}
	return 0
}

// Caps limit what a rule allows. Zero is no cap.
type Caps struct {
	Bridges           int           // at once, of one principal by this rule
	MaxDuration       time.Duration // of each bridge
	Idle              time.Duration // without payload
	MaxBytes          int64         // of payload of a bridge, both ways together
	ConnectsPerMinute int           // of one principal by this rule
}

// Stricter has of each cap the smaller one.
func (c Caps) Stricter(d Caps) Caps {
	return Caps{
		Bridges:           stricter(c.Bridges, d.Bridges),
		MaxDuration:       stricter(c.MaxDuration, d.MaxDuration),
		Idle:              stricter(c.Idle, d.Idle),
		MaxBytes:          stricter(c.MaxBytes, d.MaxBytes),
		ConnectsPerMinute: stricter(c.ConnectsPerMinute, d.ConnectsPerMinute),
	}
}

func stricter[T int | int64 | time.Duration](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// A Decision is what a policy says of one wish.
type Decision struct {
	Allowed bool
	// Rules are the names of those that allowed it, one or more if there are several
	// targets, or of the one that denied it; empty where none did.
	Rules []string
	Why   string // for whoever asked
	Caps  Caps
	// Until is when it has to be decided again, because hours end or begin; zero: never.
	Until time.Time
}

// Rule is Rules in one text, for logs.
func (d Decision) Rule() string { return strings.Join(d.Rules, ", ") }

// Err is nil if it is allowed, and auth.ErrForbidden with the reason if not.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return fmt.Errorf("%w: %s", auth.ErrForbidden, d.Why)
}

// A ruleSet is one file.
type ruleSet struct {
	groups []group
	rules  []rule
}

type group struct {
	name  string
	globs []auth.Glob
}

type rule struct {
	name    string
	deny    bool
	who     []who
	devices []auth.Glob
	groups  []int // of devices; indices into ruleSet.groups
	targets []auth.Glob
	hours   hours
	caps    Caps
}

// who is one item of the list; what is absent fits everybody.
type who struct {
	name      *auth.Glob
	method    string
	claim, is string
}

func (w *who) fits(p *auth.Principal) bool {
	if w.method != "" && w.method != p.Method {
		return false
	}
	if w.claim != "" && !slices.Contains(p.Claims[w.claim], w.is) {
		return false
	}
	return w.name == nil || w.name.Match(p.Name) || p.Method == auth.MethodSigned && w.name.Match(p.Owner())
}

// A question is one wish, with what has been found out about it: groups may be in many
// rules, and each is looked at once.
type question struct {
	set      *ruleSet
	p        *auth.Principal
	deviceID string
	groups   []int8 // by index: 0 not looked at, 1 has the device, -1 has it not
}

func (q *question) about(r *rule) bool {
	return slices.ContainsFunc(r.who, func(w who) bool { return w.fits(q.p) })
}

func (q *question) reaches(r *rule) bool {
	return matches(r.devices, q.deviceID) || slices.ContainsFunc(r.groups, q.inGroup)
}

func (q *question) inGroup(i int) bool {
	if q.groups == nil {
		q.groups = make([]int8, len(q.set.groups))
	}
	if q.groups[i] == 0 {
		q.groups[i] = -1
		if matches(q.set.groups[i].globs, q.deviceID) {
			q.groups[i] = 1
		}
	}
	return q.groups[i] > 0
}

func matches(globs []auth.Glob, name string) bool {
	return slices.ContainsFunc(globs, func(g auth.Glob) bool { return g.Match(name) })
}

// Decide says whether a principal may reach all of the targets on a device; the empty
// target is the device's default. It does not look at the principal's own Grants.
func (p *Policy) Decide(by *auth.Principal, deviceID string, targets []string, now time.Time) Decision {
	set := p.set.Load()
	if set == nil {
		set = new(ruleSet)
	}
	q := &question{set: set, p: by, deviceID: deviceID}
	known := false       // a rule that allows is about by
	var relevant []*rule // those about by and the device
	for i := range set.rules {
		r := &set.rules[i]
		if !q.about(r) {
			continue
		}
		known = known || !r.deny
		if q.reaches(r) {
			relevant = append(relevant, r)
		}
	}
	d := Decision{Allowed: true}
	for _, target := range targets {
		q.decide(&d, relevant, target, now)
		if !d.Allowed {
			return q.denied(d, known, relevant, target, now)
		}
	}
	if len(targets) == 0 { // a wish for nothing is no wish that a rule could allow
		return Decision{Why: "no target was asked about"}
	}
	d.Why = allowedBy(d, now)
	return d
}

// decide adds one target to what was decided of those before it.
func (q *question) decide(d *Decision, relevant []*rule, target string, now time.Time) {
	var by *rule
	until := d.Until
	for _, r := range relevant {
		if by != nil && !r.deny || !matches(r.targets, target) {
			continue
		}
		open, changes := r.hours.at(now)
		switch {
		case r.deny && open:
			*d = Decision{Rules: []string{r.name}}
			return
		case !r.deny && open:
			by = r
			until = earlier(until, changes)
		case r.deny:
			until = earlier(until, changes)
		}
	}
	if by == nil {
		*d = Decision{}
		return
	}
	if !slices.Contains(d.Rules, by.name) {
		d.Rules = append(d.Rules, by.name)
		d.Caps = d.Caps.Stricter(by.caps)
	}
	d.Until = until
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
