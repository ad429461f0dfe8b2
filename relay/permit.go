package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/wire"
)

// A renewer is an Authenticator that can say later what became of a principal: as it
// would be now, or an error if its credentials would not be taken any more. One that it
// does not know comes back as it is.
type renewer interface {
	Renew(p *auth.Principal) (*auth.Principal, error)
}

// permit decides whether p may reach all of a. The error is auth.ErrForbidden.
func (s *Server) permit(p *auth.Principal, a aim, now time.Time) (policy.Decision, error) {
	if s.cfg.Policy == nil || p.Grants != nil {
		if err := a.allowed(p); err != nil {
			return policy.Decision{}, err
		}
	}
	if s.cfg.Policy == nil {
		return policy.Decision{Allowed: true, Why: "the credentials allow it"}, nil
	}
	d := s.cfg.Policy.Decide(p, a.deviceID, a.targets(), now)
	return d, d.Err()
}

// stillPermitted decides about a bridge again.
func (s *Server) stillPermitted(b *bridge, now time.Time) (policy.Decision, error) {
	p := b.principal
	if s.revokes(p) {
		if r, ok := s.cfg.Auth.(renewer); ok {
			var err error
			if p, err = r.Renew(p); err != nil {
				return policy.Decision{}, fmt.Errorf("%w: the credentials have ended", errRevoked)
			}
		}
		if !p.Expires.IsZero() && !now.Before(p.Expires) {
			return policy.Decision{}, fmt.Errorf("%w: the credentials have expired", errRevoked)
		}
	}
	d, err := s.permit(p, b.aim, now)
	if err != nil {
		return d, fmt.Errorf("%w: %s", errRevoked, strings.TrimPrefix(err.Error(), auth.ErrForbidden.Error()+": "))
	}
	d.Until = s.permittedUntil(p, d)
	return d, nil
}

// revokes says whether p's bridges end with its credentials. A signed URL says until
// when one may connect with it, not how long the bridge may be.
func (s *Server) revokes(p *auth.Principal) bool {
	return s.cfg.Revoke && p.Method != auth.MethodSigned
}

// permittedUntil is when a decision about p has to be made again; zero: never.
func (s *Server) permittedUntil(p *auth.Principal, d policy.Decision) time.Time {
	if s.revokes(p) && !p.Expires.IsZero() && (d.Until.IsZero() || p.Expires.Before(d.Until)) {
		return p.Expires
	}
	return d.Until
}

// hold has b looked at again when its permission may end. Called before b is in the
// table, where Recheck finds it.
func (s *Server) hold(b *bridge) {
	if s.cfg.Policy == nil && !s.cfg.Revoke {
		return
	}
	b.lapse = time.AfterFunc(time.Hour, func() {
		s.work.add()
		defer s.work.done()
		s.recheck(b)
	})
	b.lapse.Stop()
	context.AfterFunc(b.live, func() { b.lapse.Stop() })
	b.holdUntil(s.permittedUntil(b.principal, b.permit))
}

func (b *bridge) holdUntil(until time.Time) {
	if until.IsZero() {
		b.lapse.Stop()
		return
	}
	b.lapse.Reset(max(time.Until(until), time.Millisecond)) // clocks may differ by a little
}

// Recheck decides about all bridges again, because the policy or the credentials have
// changed, and ends those that are not allowed any more. It does nothing without
// Config.Revoke.
func (s *Server) Recheck() {
	if !s.cfg.Revoke {
		return
	}
	for _, b := range s.table.all() {
		s.recheck(b)
	}
}

func (s *Server) recheck(b *bridge) {
	if b.live.Err() != nil {
		return
	}
	d, err := s.stillPermitted(b, time.Now())
	if err == nil {
		b.holdUntil(d.Until)
		if b.live.Err() != nil { // since it was asked
			b.lapse.Stop()
		}
		return
	}
	b.lapse.Stop()
	text := strings.TrimPrefix(err.Error(), errRevoked.Error()+": ")
	if !s.end(b.id, &pump.Stop{Code: wire.PermissionRevoked, Text: clean(text, wire.MaxReason)}) {
		b.lapse.Reset(time.Second) // it is not in the table yet; if it is not any more, live has ended
	} else {
		s.cfg.Logger.Info("permission revoked", "bridge", b.id.String(), "device", b.deviceID, "principal", b.principal.Name, "reason", clean(text, maxLogged))
	}
}

// all returns every bridge.
func (t *table) all() []*bridge {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*bridge, 0, len(t.bridges))
	for _, b := range t.bridges {
		all = append(all, b)
	}
	return all
}

// A holder is whose bridges a rule's cap counts. A signed URL counts for who made it.
type holder struct{ owner, rule string }

func (b *bridge) holders() (all []holder) {
	if b.permit.Caps.Bridges == 0 && b.permit.Caps.ConnectsPerMinute == 0 {
		return nil
	}
	for _, rule := range b.permit.Rules {
		all = append(all, holder{b.principal.Owner(), rule})
	}
	return all
}

// capped says whether its rules' caps leave room for b, and if so counts its connect. The
// caller holds mu.
func (t *table) capped(b *bridge) error {
	caps, all, now := b.permit.Caps, b.holders(), time.Now()
	for _, h := range all {
		if n := t.held[h]; caps.Bridges > 0 && n >= caps.Bridges {
			return &limitError{limitRuleBridges, fmt.Sprintf("%q has %d of at most %d bridges by rule %q", h.owner, n, caps.Bridges, h.rule), 0}
		}
		if caps.ConnectsPerMinute > 0 && t.paced[h].Sub(now) > time.Minute-time.Minute/time.Duration(caps.ConnectsPerMinute) {
			return &limitError{limitRuleConnects, fmt.Sprintf("%q has made %d connects within a minute by rule %q", h.owner, caps.ConnectsPerMinute, h.rule), 0}
		}
	}
	if caps.ConnectsPerMinute == 0 {
		return nil
	}
	for _, h := range all {
		t.pace(h, now, time.Minute/time.Duration(caps.ConnectsPerMinute))
	}
	return nil
}

// pace counts one connect. Each takes an interval, one after the other from now on, and a
// minute of them may be ahead (the generic cell rate algorithm).
func (t *table) pace(h holder, now time.Time, interval time.Duration) {
	next := t.paced[h]
	if next.Before(now) {
		next = now
	}
	t.paced[h] = next.Add(interval)
	if len(t.paced) < t.sweep {
		return
	}
	for h, next := range t.paced {
		if next.Before(now) {
			delete(t.paced, h)
		}
	}
	t.sweep = max(2*len(t.paced), minSweep)
}

// count adds b to what its rules cap, or takes it away. The caller holds mu.
func (t *table) count(b *bridge, by int) {
	for _, h := range b.holders() {
		if t.held[h] += by; t.held[h] == 0 {
			delete(t.held, h)
		}
	}
}

// canI serves /bridge/canI: whether connect would be allowed, and why. Nobody is
// signalled, and whether the device exists is not asked.
func (s *Server) canI(w http.ResponseWriter, r *http.Request) {
	a, p, err := s.parseCanI(r)
	var answer wire.Permission
	if err == nil {
		answer = s.permission(p, a, time.Now())
	}
	about := []any{"device", clean(a.deviceID, wire.MaxDeviceID), "target", clean(a.target, maxLogged), "from", s.from(r)}
	if err != nil {
		pr := problem(nil, err)
		if pr.Code == wire.MethodNotAllowed {
			w.Header().Set("Allow", http.MethodGet)
		}
		s.metrics.Refused(wire.PathCanI, pr.Code)
		s.tell(slog.LevelInfo, "permission not told", pr.Code, err, append(about, "reason", pr.Code)...)
		writeProblem(w, pr)
		return
	}
	s.cfg.Logger.Debug("permission told", append(about, "principal", p.Name, "allowed", answer.Allowed)...)
	writeJSON(w, answer)
}

func (s *Server) parseCanI(r *http.Request) (a aim, p *auth.Principal, err error) {
	if r.Method != http.MethodGet {
		return a, nil, errMethod
	}
	q, err := parseQuery(r)
	if err != nil {
		return a, nil, err
	}
	if a, err = parseAim(q); err != nil {
		return a, nil, err
	}
	if p, err = s.authenticate(r, nil); err != nil {
		return a, nil, err
	}
	return a, p, s.origin(r, false)
}

// permission is a decision as requesters are told it.
func (s *Server) permission(p *auth.Principal, a aim, now time.Time) wire.Permission {
	d, err := s.permit(p, a, now)
	out := wire.Permission{Allowed: err == nil, Rule: d.Rule(), Why: d.Why}
	if err != nil {
		out.Why = strings.TrimPrefix(err.Error(), auth.ErrForbidden.Error()+": ")
		return out
	}
	c := s.cfg.caps().Stricter(d.Caps)
	out.Caps = &wire.Caps{
		Bridges: c.Bridges, MaxDuration: int64(c.MaxDuration / time.Second), Idle: int64(c.Idle / time.Second), MaxBytes: c.MaxBytes,
		ConnectsPerMinute: c.ConnectsPerMinute,
	}
	if until := s.permittedUntil(p, d); !until.IsZero() {
		until = until.UTC()
		out.Until = &until
	}
	return out
}

// caps are this node's own, for every bridge.
func (c Config) caps() policy.Caps {
	return policy.Caps{MaxDuration: c.MaxDuration, Idle: c.Idle, MaxBytes: c.MaxBytes}
}
