package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	maxWindows = 16 // of one rule's hours
	maxCap     = 1_000_000
)

func (r *reader) rule(n *yaml.Node, number int, names map[string]int) (out rule) {
	what := fmt.Sprintf("rule %d", number)
	if name := nameIn(n); name != nil {
		what = fmt.Sprintf("rule %.40q", name.Value)
		if line, twice := names[name.Value]; twice {
			r.fault(name, "%s is in line %d already", what, line)
		}
		names[name.Value] = name.Line
	}
	entries, ok := r.mapping(n, what, "name", "deny", "who", "devices", "targets", "hours", "caps")
	if !ok {
		return out
	}
	missing := map[string]bool{"name": true, "who": true, "devices": true, "targets": true}
	var caps *yaml.Node
	for _, e := range entries {
		delete(missing, e.name)
		switch e.name {
		case "name":
			if name, ok := r.text(e.value, "the name of "+what); ok {
				r.checkName(e.value, "the name of "+what, name)
				out.name = name
			}
		case "deny":
			switch e.value.Value {
			case "true":
				out.deny = true
			case "false":
			default:
				r.fault(e.value, "%s: deny is neither true nor false", what)
			}
		case "who":
			for _, item := range r.list(e.value, what+": who") {
				out.who = append(out.who, r.who(item, what+": who"))
			}
		case "devices":
			r.devices(e.value, what+": devices", &out)
		case "targets":
			out.targets = r.globs(e.value, what+": targets", true)
		case "hours":
			out.hours = r.hours(e.value, what+": hours")
		case "caps":
			caps = e.value
			out.caps = r.caps(e.value, what+": caps")
		}
	}
	if out.deny && caps != nil {
		r.fault(caps, "%s: a rule that denies has no caps", what)
	}
	for _, name := range []string{"name", "who", "devices", "targets"} {
		if missing[name] {
			r.fault(n, "%s: %s is missing", what, name)
		}
	}
	return out
}

// nameIn returns a rule's name, which is in the faults of all the rest; nil: it has none.
func nameIn(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if value := n.Content[i+1]; n.Content[i].Value == "name" && value.Kind == yaml.ScalarNode && value.Value != "" {
			return value
		}
	}
	return nil
}

func (r *reader) who(n *yaml.Node, what string) (out who) {
	if n.Kind == yaml.ScalarNode {
		if g, ok := r.glob(n, what, false); ok {
			out.name = &g
		}
		return out
	}
	entries, ok := r.mapping(n, "an item of "+what, "name", "method", "claim", "is")
	if !ok {
		return out
	}
	if len(n.Content) == 0 {
		r.fault(n, `%s: an item is empty; "*" is everybody`, what)
	}
	var claim, is bool
	for _, e := range entries {
		switch e.name {
		case "name":
			if g, ok := r.glob(e.value, what+": name", false); ok {
				out.name = &g
			}
		case "method":
			if out.method, ok = r.text(e.value, what+": method"); ok && !slices.Contains(methods, out.method) {
				r.fault(e.value, "%s: method %.40q is none of %s", what, out.method, strings.Join(methods, ", "))
			}
		case "claim":
			claim = true
			out.claim = r.claim(e.value, what+": claim")
		case "is":
			is = true
			out.is = r.claim(e.value, what+": is")
		}
	}
	if claim != is {
		r.fault(n, "%s: claim and is need each other", what)
	}
	return out
}

func (r *reader) claim(n *yaml.Node, what string) string {
	text, ok := r.text(n, what)
	if ok && len(text) > maxClaim {
		r.fault(n, "%s has %d bytes; %d are allowed", what, len(text), maxClaim)
	}
	return text
}

func (r *reader) devices(n *yaml.Node, what string, out *rule) {
	for _, item := range r.list(n, what) {
		if item.Kind != yaml.MappingNode {
			if g, ok := r.glob(item, what, false); ok {
				out.devices = append(out.devices, g)
			}
			continue
		}
		entries, _ := r.mapping(item, "an item of "+what, "group")
		if len(item.Content) == 0 {
			r.fault(item, "%s: an item is empty", what)
		}
		for _, e := range entries {
			name, ok := r.text(e.value, what+": group")
			if i, known := r.groups[name]; known {
				out.groups = append(out.groups, i)
			} else if ok {
				r.fault(e.value, "%s: there is no group %.40q", what, name)
			}
		}
	}
}

func (r *reader) hours(n *yaml.Node, what string) (out hours) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = r.list(n, what)
	}
	if len(items) > maxWindows {
		r.fault(n, "%s has %d items; %d are allowed", what, len(items), maxWindows)
		return nil
	}
	for _, item := range items {
		if w, ok := r.window(item, what); ok {
			out = append(out, w)
		}
	}
	return out
}

func (r *reader) window(n *yaml.Node, what string) (w window, ok bool) {
	entries, ok := r.mapping(n, what, "days", "from", "to", "zone")
	if !ok {
		return w, false
	}
	faults := len(r.faults)
	w = window{days: [7]bool{true, true, true, true, true, true, true}, to: wholeDay}
	seen := make(map[string]bool)
	for _, e := range entries {
		seen[e.name] = true
		switch e.name {
		case "days":
			w.days = r.days(e.value, what+": days")
		case "from":
			w.from = r.clock(e.value, what+": from", false)
		case "to":
			w.to = r.clock(e.value, what+": to", true)
		case "zone":
			w.zone = r.zone(e.value, what+": zone")
		}
	}
	switch {
	case !seen["zone"]:
		r.fault(n, "%s: zone is missing, as Europe/Amsterdam, or UTC", what)
	case seen["from"] != seen["to"]:
		r.fault(n, "%s: from and to need each other", what)
	case !seen["days"] && !seen["from"]:
		r.fault(n, "%s: it says neither days nor from and to", what)
	case seen["from"] && w.from == w.to && w.from >= 0:
		r.fault(n, "%s: from is to; leave both out for whole days", what)
	case w.to < w.from:
		w.to += wholeDay
	}
	return w, len(r.faults) == faults
}

func (r *reader) days(n *yaml.Node, what string) (days [7]bool) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = r.list(n, what)
	}
	for _, item := range items {
		text, ok := r.text(item, "an item of "+what)
		if !ok {
			continue
		}
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(dayNames[:], first), slices.Index(dayNames[:], last)
		if a < 0 || b < 0 {
			r.fault(item, "%s: %.40q is no day or range of days, as mon or mon-fri", what, text)
			continue
		}
		for i := a; ; i = (i + 1) % 7 {
			if days[i] {
				r.fault(item, "%s: %s is there twice", what, dayNames[i])
			}
			days[i] = true
			if i == b {
				break
			}
		}
	}
	return days
}

// clock reads HH:MM as minutes since midnight.
func (r *reader) clock(n *yaml.Node, what string, end bool) int {
	if n.Kind == yaml.ScalarNode && end && n.Value == "24:00" {
		return wholeDay
	}
	t, err := time.Parse("15:04", n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || len(n.Value) != len("15:04") {
		r.fault(n, "%s: %.40q is no time, as 07:00", what, n.Value)
		return -1
	}
	return t.Hour()*60 + t.Minute()
}

func (r *reader) zone(n *yaml.Node, what string) *time.Location {
	text, ok := r.text(n, what)
	if !ok {
		return nil
	}
	zone, err := time.LoadLocation(text)
	if err != nil || text == "Local" { // which is another one on each machine
		r.fault(n, "%s: %.40q is no time zone, as Europe/Amsterdam, or UTC", what, text)
		return nil
	}
	return zone
}

func (r *reader) caps(n *yaml.Node, what string) (c Caps) {
	entries, ok := r.mapping(n, what, "bridges", "max_duration", "idle", "max_bytes", "connects_per_minute")
	if ok && len(n.Content) == 0 {
		r.fault(n, "%s: it has none", what)
	}
	for _, e := range entries {
		text, ok := r.text(e.value, what+": "+e.name)
		if !ok {
			continue
		}
		var err error
		switch e.name {
		case "bridges":
			c.Bridges, err = parseCount(text)
		case "connects_per_minute":
			c.ConnectsPerMinute, err = parseCount(text)
		case "max_duration":
			c.MaxDuration, err = parseDuration(text)
		case "idle":
			c.Idle, err = parseDuration(text)
		case "max_bytes":
			c.MaxBytes, err = parseBytes(text)
		}
		if err != nil {
			r.fault(e.value, "%s: %s: %.40q %v", what, e.name, text, err)
		}
	}
	return c
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 1 || n > maxCap {
		return 0, fmt.Errorf("is no number from 1 to %d", maxCap)
	}
	return int(n), nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		return 0, errors.New("is no duration of at least 1s, as 2h or 15m")
	}
	return d, nil
}

// units of bytes, the longer names first.
var units = []struct {
	name  string
	bytes uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"", 1}}

func parseBytes(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		const most = 1 << 60
		if n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64); err == nil && n > 0 && n <= most/u.bytes {
			return int64(n * u.bytes), nil
		}
		break
	}
	return 0, errors.New("is no number of bytes, as 1GiB or 500MB or 4096")
}
