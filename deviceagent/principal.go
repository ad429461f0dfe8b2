package deviceagent

import (
	"errors"
	"slices"
	"strings"

	"websocketbridge/signaler"
)

// checkPattern says why p is no pattern of principals.
func checkPattern(p string) error {
	switch {
	case p == "":
		return errors.New("is empty; * is everybody")
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New("has a space or a control character, which no principal has")
	case strings.Contains(p, `\`):
		return errors.New(`has a \, which means nothing here; a star stands for any characters, and there are no escapes`)
	}
	return nil
}

// matchAny reports whether one of the patterns matches the whole name.
func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchStars(p, name) })
}

// matchStars takes each piece between stars where it first occurs: if that leaves no
// room for the rest, no later place does.
func matchStars(pattern, name string) bool {
	pieces := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(name, pieces[0])
	if len(pieces) == 1 {
		return ok && rest == ""
	}
	last := len(pieces) - 1
	for _, p := range pieces[1:last] {
		if ok {
			_, rest, ok = strings.Cut(rest, p)
		}
	}
	return ok && strings.HasSuffix(rest, pieces[last])
}

// checkPrincipal says why the device wants nothing from who asks.
func (a *Agent) checkPrincipal(name string) *signaler.Refusal {
	if len(a.cfg.Principals) > 0 && !matchAny(a.cfg.Principals, name) {
		return refuse("principal_not_allowed", "principal %q is not on this device's list", name)
	}
	return nil
}

// checkTargetPrincipals says which target is not for who asks.
func (a *Agent) checkTargetPrincipals(name string, targets []string) *signaler.Refusal {
	for _, target := range targets {
		if list, limited := a.cfg.TargetPrincipals[target]; limited && !matchAny(list, name) {
			return refuse("principal_not_allowed", "principal %q is not on this device's list for target %q", name, target)
		}
	}
	return nil
}
