package relay

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/metrics"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// What happens is counted and traced here, and in audit.go, which hears of every refusal
// and every end.

// A journey is how far a bridge has come, for metrics and traces.
type journey struct {
	began       time.Time    // the request was here
	asked       time.Time    // the device is being told
	told        atomic.Int64 // when the hub has taken the signal, in ns since began; 0: not yet
	traceparent string       // the requester's, if it is one
	connect     *trace.Span  // nil until the credentials have been found good, or for ever
	admit       *trace.Span
	wait        *trace.Span
}

// known begins b's trace, as soon as its credentials are good.
func (s *Server) known(b *bridge) {
	b.connect = s.cfg.Tracer.Connect(b.traceparent, b.began)
	b.connect.Set("id", b.id.String())
	b.connect.Set("device", b.deviceID)
	b.connect.Set("target", b.target)
	b.connect.Set("principal", clean(b.principal.Name, maxLogged))
	b.admit = b.connect.Child("admit", trace.Inside, b.began)
}

// traceID is that of b's trace, made here or brought by the requester; empty: there is none.
func (b *bridge) traceID() string {
	return cmp.Or(b.connect.TraceID(), wire.TraceID(b.traceparent))
}

// asking ends b's first stage.
func (b *bridge) asking() {
	b.asked = time.Now()
	b.admit.EndAt(b.asked)
	b.wait = b.connect.Child("dial back", trace.Inside, b.asked)
}

// handOver hands sig over, with the trace that it is part of.
func (s *Server) handOver(ctx context.Context, b *bridge, sig *signaler.Signal) (err error) {
	began := time.Now()
	span := b.connect.Child("signal", trace.Asking, began)
	if sig.TraceParent = span.TraceParent(); span == nil {
		sig.TraceParent = b.traceparent
	}
	err = errors.New("panic") // if it does
	defer func() {
		result := signalResult(err)
		if err == nil {
			b.told.Store(max(int64(time.Since(b.began)), 1))
			span.End()
		} else {
			span.Fail(result)
		}
		s.metrics.Signalled(result, time.Since(began))
	}()
	return s.cfg.Signaler.Signal(ctx, sig)
}

var signalResults = []struct {
	is   error
	name string
}{
	{signaler.ErrDeviceNotFound, metrics.SignalNotFound}, {signaler.ErrDeviceOffline, metrics.SignalOffline}, {signaler.ErrRefused, metrics.SignalRefused},
	{signaler.ErrThrottled, metrics.SignalThrottled}, {signaler.ErrUnauthorized, metrics.SignalUnauthorized}, {signaler.ErrNotSupported, metrics.SignalNotSupported},
	{signaler.ErrTooBig, metrics.SignalTooBig}, {signaler.ErrTimedOut, metrics.SignalTimedOut}, {signaler.ErrUnavailable, metrics.SignalUnavailable},
	{errDialBack, metrics.SignalTimedOut}, {context.Canceled, metrics.SignalAbandoned},
}

// signalResult is the class of what a Signaler returned.
func signalResult(err error) string {
	if err == nil {
		return metrics.SignalAccepted
	}
	for _, row := range signalResults {
		if errors.Is(err, row.is) {
			return row.name
		}
	}
	return metrics.SignalFailed
}

// came ends the wait for the device, or the hope for it.
func (b *bridge) came(err error) {
	if err != nil {
		b.wait.Fail(string(problem(b, err).Code))
		return
	}
	b.wait.End()
}

// isOpen counts b, whose device came at a moment, and returns the span of its life.
func (s *Server) isOpen(b *bridge, got arrival) *trace.Span {
	now := time.Now()
	dialBack := time.Duration(0)
	if told := time.Duration(b.told.Load()); told > 0 {
		dialBack = max(got.at.Sub(b.began)-told, 0)
	}
	s.metrics.Opened(metrics.Handshake{Total: now.Sub(b.began), Admit: b.asked.Sub(b.began), DialBack: dialBack, Join: now.Sub(got.at)})
	b.connect.Child("join", trace.Inside, got.at).EndAt(now)
	b.connect.Set("via", got.via)
	b.connect.EndAt(now)
	return b.connect.Child("bridge", trace.Inside, now)
}

// isClosed counts the end of an open bridge.
func (s *Server) isClosed(life *trace.Span, res pump.Result) {
	s.metrics.Closed(res.Reason, string(res.By))
	life.Set("by", string(res.By))
	life.SetBytes("to_device", res.ToDevice)
	life.SetBytes("to_requester", res.ToRequester)
	if res.Reason == wire.Done {
		life.Set("code", string(res.Reason))
		life.End()
		return
	}
	life.Fail(string(res.Reason))
}

// isRefused counts a bridge that does not open.
func (s *Server) isRefused(b *bridge, path string, code wire.Code) {
	s.metrics.Refused(path, code)
	b.admit.End() // of no effect if it has ended
	b.connect.Fail(string(code))
}

var tokenReasons = []struct {
	is   error
	name string
}{
	{token.ErrMalformed, metrics.TokenMalformed}, {token.ErrProof, metrics.TokenForged}, {token.ErrExpired, metrics.TokenExpired},
	{errGone, metrics.TokenGone}, {errForeign, metrics.TokenForeign},
}

// badToken counts err if it is about a token.
func (s *Server) badToken(err error) {
	for _, row := range tokenReasons {
		if errors.Is(err, row.is) {
			s.metrics.BadToken(row.name)
			return
		}
	}
}

// move asks the requester of a bridge to move to another node.
func (s *Server) move(requester *pump.Leg) {
	s.metrics.Moved()
	requester.Ping([]byte(wire.PingDraining))
}

// Metrics are the node's own, for whoever runs it to count more.
func (s *Server) Metrics() *metrics.Node { return s.metrics }

// sample is what the node can say of itself now.
func (s *Server) sample() metrics.Sample {
	m := metrics.Sample{MaxBridges: s.cfg.MaxBridges, MaxWaiting: s.cfg.MaxWaiting, Ready: s.ready() == nil, Limits: make(map[string]uint64)}
	s.table.sample(&m)
	m.Forwards, _ = s.forwards.left()
	m.Pending = s.pending.count()
	s.limits.sample(&m)
	if a, ok := s.cfg.Audit.(interface{ Stats() audit.Stats }); ok {
		st := a.Stats()
		m.Audit = metrics.Audit{Written: st.Written, Lost: st.Lost, Suppressed: st.Suppressed, Failures: st.Failures, Failing: st.Failing}
	}
	return m
}

// stalled is how long a side may leave data unread before it shows in the metrics: longer
// than a slow link needs for what fits its buffers.
const stalled = time.Second

func (t *table) sample(m *metrics.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.Draining, m.DrainDeadline = t.draining, t.deadline
	m.ToDevice, m.ToRequester = t.toDevice, t.toRequester
	for _, b := range t.bridges {
		switch state(b.state.Load()) {
		case waiting:
			m.Waiting++
		case joining:
			m.Joining++
		case open:
			m.Open++
		}
		if b.leg == nil {
			continue
		}
		m.ToDevice += b.device.Passed()
		m.ToRequester += b.leg.Passed()
		if b.device.Stalled() > stalled {
			m.DevicesStalled++
		}
		if b.leg.Stalled() > stalled {
			m.RequestersStalled++
		}
	}
}

func (l *limits) sample(m *metrics.Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Requests = l.requests
	for _, limit := range allLimits {
		m.Limits[limit] = l.refused[limit]
	}
}

func (p *pending) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}
