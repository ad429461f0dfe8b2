package deviceagent

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

const (
	// maxMessage is how many bytes of a refusal's words are kept: a relay takes a body
	// of wire.MaxReject, and JSON may need six bytes for one.
	maxMessage = 500
	// clockGrace is how far a device's clock may be ahead.
	clockGrace = time.Minute
	// rememberMost bounds how long a signal is remembered that never expires, or by
	// a clock that is years behind. Its token is dead long before.
	rememberMost = time.Hour
)

// check says why the signal is not followed.
func (a *Agent) check(s *signaler.Signal) *signaler.Refusal {
	now := time.Now()
	if s.DeviceID != "" && s.DeviceID != a.cfg.DeviceID {
		return refuse("wrong_device", "the signal is for device %q, this is %q", s.DeviceID, a.cfg.DeviceID)
	}
	if !s.ExpiresAt.IsZero() && now.After(s.ExpiresAt.Add(clockGrace)) {
		return refuse("expired", "the signal expired at %s and it is %s here; is this device's clock right?",
			s.ExpiresAt.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	for _, u := range []string{s.AcceptURL, s.RejectURL} {
		if u == "" {
			continue // without a RejectURL
		}
		if no := a.checkRelay(u); no != nil {
			return no
		}
	}
	if a.switchedOff() {
		return refuse("disabled", "%v", errSwitchedOff)
	}
	if !a.firstTime(s, now) {
		return refuse("replayed", "the signal has been here before")
	}
	targets, err := wire.SplitTargets(s.Target)
	if err != nil {
		return refuse("bad_signal", "target %v", err)
	}
	if no := a.checkPrincipal(s.Principal); no != nil {
		return no
	}
	if !wantsSession(s) {
		if _, no := a.rawTarget(targets); no != nil {
			return no
		}
	}
	for _, name := range named(targets) {
		if _, ok := a.cfg.Targets.Find(name); !ok {
			return a.missing(targets, name)
		}
	}
	return a.checkTargetPrincipals(s.Principal, named(targets))
}

// named is what a request without a target means.
func named(targets []string) []string {
	if len(targets) == 0 {
		return []string{wire.DefaultTarget}
	}
	return targets
}

// missing refuses a target that is not on the list.
func (a *Agent) missing(targets []string, name string) *signaler.Refusal {
	if len(targets) == 0 {
		return refuse("target_required", "the request names no target, and this device has none called %q", wire.DefaultTarget)
	}
	return notAllowed(name)
}

// checkRelay says why the device does not talk to a relay.
func (a *Agent) checkRelay(raw string) *signaler.Refusal {
	u, err := url.Parse(raw)
	if err != nil {
		return refuse("bad_signal", "the relay's address is not a URL")
	}
	secure := u.Scheme == "wss" || u.Scheme == "https"
	switch {
	case !slices.ContainsFunc(a.relays, func(h relayHost) bool { return h.match(u) }):
		return refuse("relay_not_allowed", "the relay %s is not on this device's list", u.Host)
	case !secure && !a.cfg.AllowPlain && !ws.IsLoopback(u.Hostname()):
		return refuse("relay_not_allowed", "the relay %s is not reached by TLS, and this device does not allow plain connections", u.Host)
	}
	return nil
}

// firstTime remembers a signal until it has expired.
func (a *Agent) firstTime(s *signaler.Signal, now time.Time) bool {
	key := cmp.Or(s.BridgeID, s.AcceptURL)
	until := now.Add(rememberMost)
	if e := s.ExpiresAt.Add(clockGrace); !s.ExpiresAt.IsZero() && e.Before(until) {
		until = e
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, t := range a.seen { // few: those of the last minute
		if now.After(t) {
			delete(a.seen, k)
		}
	}
	if _, ok := a.seen[key]; ok {
		return false
	}
	a.seen[key] = until
	return true
}

func wantsSession(s *signaler.Signal) bool { return slices.Contains(s.Subprotocols, wire.SessionV1) }

func refuse(code, format string, args ...any) *signaler.Refusal {
	message := strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") // half a rune may be left
	}
	return &signaler.Refusal{Code: code, Message: message}
}

func notAllowed(name string) *signaler.Refusal {
	return refuse("target_not_allowed", "target %q is not on this device's list", name)
}
