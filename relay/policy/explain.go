package policy

import (
	"fmt"
	"strings"
	"time"

	"websocketbridge/relay/auth"
)

// denied completes a decision against a target with the reason.
func (q *question) denied(d Decision, known bool, relevant []*rule, target string, now time.Time) Decision {
	name := q.p.Name
	if len(d.Rules) > 0 { // one denies it
		d.Why = fmt.Sprintf("rule %q keeps %q from %s", d.Rules[0], name, place(q.deviceID, target))
		return d
	}
	var closed *rule // would allow it at another time
	reached := false // by a rule that allows
	for _, r := range relevant {
		if r.deny {
			continue
		}
		reached = true
		if closed == nil && matches(r.targets, target) {
			closed = r
		}
	}
	switch {
	case !known:
		d.Why = fmt.Sprintf("no rule of the policy lets %q in", name)
	case closed != nil:
		d.Why = fmt.Sprintf("rule %q lets %q reach %s %s only; it is %s there",
			closed.name, name, place(q.deviceID, target), closed.hours, now.In(closed.hours[0].zone).Format("Monday 15:04"))
	case reached:
		d.Why = auth.DeniesTarget(name, q.deviceID, target)
	default:
		d.Why = auth.DeniesDevice(name, q.deviceID)
	}
	return d
}

func place(deviceID, target string) string {
	if target == "" {
		return fmt.Sprintf("device %q", deviceID)
	}
	return fmt.Sprintf("target %q on device %q", target, deviceID)
}

// allowedBy is the reason of a decision for.
func allowedBy(d Decision, now time.Time) string {
	text := "rule "
	if len(d.Rules) > 1 {
		text = "rules "
	}
	var names []string
	for _, name := range d.Rules {
		names = append(names, fmt.Sprintf("%q", name))
	}
	text += strings.Join(names, " and ")
	if len(d.Rules) > 1 {
		text += " allow it"
	} else {
		text += " allows it"
	}
	if !d.Until.IsZero() {
		text += " until " + d.Until.UTC().Format(time.RFC3339)
	}
	return text
}
