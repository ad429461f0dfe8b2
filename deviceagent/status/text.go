package status

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Connected says whether signals reach the agent. Of a source that cannot say, it is
// believed while the agent runs.
func (r Report) Connected() bool {
	return r.Running && (r.Source == nil || r.Source.Listening)
}

// Line is the report in a few words.
func (r Report) Line() string {
	s := r.connection(func(t time.Time) string { return "since " + t.UTC().Format(time.RFC3339) }) // changes only when something does
	if !r.RemoteAccess.On {
		s += "; remote access is switched off"
	}
	if n := r.Bridges.Open; n > 0 {
		s += fmt.Sprintf("; %s, %s", plural(n, "bridge"), plural(int(r.Streams.Open), "stream"))
	}
	return s
}

func (r Report) connection(since func(time.Time) string) string {
	switch src := r.Source; {
	case r.Waiting != "":
		return "waiting: " + r.Waiting
	case !r.Running:
		return "not running"
	case src == nil:
		return "running; the source does not say how it fares"
	case src.Listening:
		return fmt.Sprintf("connected to %s %s", r.peer(), since(src.Since))
	case src.Error != "":
		return fmt.Sprintf("not connected to %s %s: %s", r.peer(), since(src.Since), clean(src.Error))
	default:
		return fmt.Sprintf("not connected to %s %s", r.peer(), since(src.Since))
	}
}

func (r Report) peer() string {
	return clean(strings.TrimSpace(r.Source.Kind + " " + r.Source.To))
}

// Text writes the report for a person.
func (r Report) Text(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s "+format+"\n", append([]any{name}, args...)...)
	}
	row("agent", "%s, process %d, for %s", clean(r.Version), r.PID, age(r.Now, r.Since))
	row("device", "%s", clean(r.DeviceID))
	row("signals from", "%s", r.connection(func(t time.Time) string { return "for " + age(r.Now, t) }))
	if src := r.Source; src != nil && src.Listening && src.Error != "" {
		row("", "connection %d; lost %s ago: %s", src.Times, age(r.Now, src.ErrorAt), clean(src.Error))
	}
	if r.RemoteAccess.On {
		row("remote access", "on")
	} else {
		row("remote access", "SWITCHED OFF for %s: %s", age(r.Now, r.RemoteAccess.Since), clean(r.RemoteAccess.Reason))
	}
	signed := "of anybody who may write to the hub"
	if r.SignedOnly {
		signed = "signed ones only"
	}
	row("signals", "%d, %d accepted%s; %s", r.Signals.Received, r.Signals.Accepted, refusals(r.Signals.Refused), signed)
	row("bridges", "%d open, %d dialing, %d opened, %d failed", r.Bridges.Open, r.Bridges.Dialing, r.Bridges.Opened, r.Bridges.Failed)
	if r.Bridges.Error != "" {
		row("", "last failure %s ago: %s", age(r.Now, r.Bridges.ErrorAt), clean(r.Bridges.Error))
	}
	row("streams", "%d open, %d opened%s", r.Streams.Open, r.Streams.Opened, refusals(r.Streams.Refused))
	row("bytes", "%s from targets, %s to targets", size(r.Bytes.FromTargets), size(r.Bytes.ToTargets))
	row("targets", "%s", cmp.Or(clean(strings.Join(r.Targets, ", ")), "none: nothing can be reached"))
	row("relays", "%s", clean(strings.Join(r.RelayHosts, ", ")))
	for _, o := range r.Open {
		kind := "raw"
		if o.Session {
			kind = plural(int(o.Streams), "stream")
		}
		row("bridge", "%s %s to %s for %s, %s, %s from and %s to targets", clean(o.ID), cmp.Or(clean(o.Principal), "-"), cmp.Or(clean(o.Target), "default"),
			age(r.Now, o.Since), kind, size(o.Bytes.FromTargets), size(o.Bytes.ToTargets))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func refusals(by map[string]uint64) string {
	if len(by) == 0 {
		return ", none refused"
	}
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d %s", by[code], clean(code)))
	}
	return ", refused: " + strings.Join(parts, ", ")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// age is how long ago something was, as exact as a person cares for.
func age(now, then time.Time) string {
	d := max(now.Sub(then), 0) // a clock that was set back
	switch {
	case then.IsZero():
		return "never"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}

// clean takes out what a terminal would obey: names come from the relay.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
