package deviceagent

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"websocketbridge/signaler"
)

// Status is what an agent does at one moment, and has done since New. Nothing in it is
// secret, but it names principals and targets.
type Status struct {
	DeviceID string    `json:"deviceId"`
	Running  bool      `json:"running"`
	Since    time.Time `json:"since,omitzero"` // of the last Run

	// Source is how the signals' way here fares; nil if the source cannot say.
	Source *signaler.SourceState `json:"source,omitempty"`

	RelayHosts []string `json:"relayHosts"`
	Targets    []string `json:"targets"`
	SignedOnly bool     `json:"signedOnly"` // there are SignalKeys

	RemoteAccess RemoteAccess   `json:"remoteAccess"`
	Signals      SignalCounts   `json:"signals"`
	Streams      StreamCounts   `json:"streams"`
	Bytes        ByteCounts     `json:"bytes"`
	Bridges      BridgeCounts   `json:"bridges"`
	Open         []BridgeStatus `json:"open"` // bridges, the oldest first
}

// RemoteAccess says whether the kill switch lets anybody in.
type RemoteAccess struct {
	On     bool      `json:"on"`
	Reason string    `json:"reason,omitempty"` // why not
	Since  time.Time `json:"since,omitzero"`   // since when not
}

// SignalCounts are of signals.
type SignalCounts struct {
	Received uint64            `json:"received"`
	Accepted uint64            `json:"accepted"`
	Refused  map[string]uint64 `json:"refused"` // by code
}

// BridgeCounts are of the bridges of accepted signals. Opened holds those that have ended.
type BridgeCounts struct {
	Open    int       `json:"open"`
	Dialing int       `json:"dialing"` // the relay, or a raw bridge's target
	Opened  uint64    `json:"opened"`
	Failed  uint64    `json:"failed"` // never opened
	Error   string    `json:"error,omitempty"`
	ErrorAt time.Time `json:"errorAt,omitzero"` // of Error, of the last that failed
}

// StreamCounts are of connections to targets: of a session's streams and of raw bridges.
type StreamCounts struct {
	Open    int64             `json:"open"`
	Opened  uint64            `json:"opened"`
	Refused map[string]uint64 `json:"refused"` // by code
}

// ByteCounts are of payload.
type ByteCounts struct {
	FromTargets uint64 `json:"fromTargets"`
	ToTargets   uint64 `json:"toTargets"`
}

// BridgeStatus is one bridge.
type BridgeStatus struct {
	ID        string     `json:"id"`
	Principal string     `json:"principal"`
	Target    string     `json:"target"`
	Session   bool       `json:"session"` // or raw
	Since     time.Time  `json:"since"`
	Streams   int64      `json:"streams"`
	Bytes     ByteCounts `json:"bytes"`
}

// A stateSource is a SignalSource that can say how it fares, as those of packages hub,
// handoff, lent and fake.
type stateSource interface{ State() signaler.SourceState }

// Status says how the agent fares. It may be called at any time, and waits for nothing
// that hangs.
func (a *Agent) Status() Status {
	s := Status{
		DeviceID: a.cfg.DeviceID, RelayHosts: slices.Clone(a.cfg.RelayHosts), Targets: a.cfg.Targets.Names(), SignedOnly: len(a.cfg.SignalKeys) > 0,
		Open: []BridgeStatus{},
	}
	if src, ok := a.cfg.Source.(stateSource); ok {
		state := src.State()
		s.Source = &state
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Running, s.Since = a.running, a.since
	s.RemoteAccess = RemoteAccess{On: !a.off, Reason: a.offWhy, Since: a.offSince}
	c := &a.counts
	s.Signals = SignalCounts{c.received, c.accepted, maps.Clone(c.refused)}
	s.Streams = StreamCounts{c.conns.open.Load(), c.conns.opened.Load(), maps.Clone(c.streamsRefused)}
	s.Bytes = c.conns.bytes()
	s.Bridges = BridgeCounts{Opened: c.opened, Failed: c.failed, Error: c.failure, ErrorAt: c.failedAt}
	for b := range a.following {
		if b.since.IsZero() {
			s.Bridges.Dialing++
			continue
		}
		s.Open = append(s.Open, BridgeStatus{b.id, b.principal, b.target, b.session, b.since, b.conns.open.Load(), b.conns.bytes()})
	}
	s.Bridges.Open = len(s.Open)
	slices.SortFunc(s.Open, func(x, y BridgeStatus) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.ID, y.ID)) })
	return s
}

// counts are since New; the agent's mu guards all but conns.
type counts struct {
	received, accepted uint64
	refused            map[string]uint64 // signals
	streamsRefused     map[string]uint64
	opened, failed     uint64 // bridges
	failure            string
	failedAt           time.Time
	conns              conns
}

// conns counts connections to targets and what went over them.
type conns struct {
	open        atomic.Int64
	opened      atomic.Uint64
	fromTargets atomic.Uint64
	toTargets   atomic.Uint64
}

func (c *conns) bytes() ByteCounts { return ByteCounts{c.fromTargets.Load(), c.toTargets.Load()} }

// following is a signal that was accepted, until its bridge has ended.
type following struct {
	id, principal, target string
	session               bool
	since                 time.Time // it is open; zero: not yet. The agent's mu guards it
	conns                 conns
}

// follow takes note of a bridge.
func (a *Agent) follow(s *signaler.Signal) *following {
	b := &following{id: s.BridgeID, principal: s.Principal, target: s.Target, session: wantsSession(s)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.following[b] = struct{}{}
	return b
}

// opened says that both ends of the bridge are there.
func (a *Agent) opened(b *following) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.since = time.Now()
	a.counts.opened++
}

// unfollow says that the bridge has ended, and why.
func (a *Agent) unfollow(b *following, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.following, b)
	if b.since.IsZero() {
		a.counts.failed++
		a.counts.failure, a.counts.failedAt = why, time.Now()
	}
}

// countStreamRefused counts a stream that got no target.
func (a *Agent) countStreamRefused(code string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.streamsRefused[code]++
}

// count makes c, a connection to a target, count for the agent and its bridge. Whoever
// gets it has to close it.
func (a *Agent) count(c net.Conn, b *following) net.Conn {
	for _, n := range []*conns{&a.counts.conns, &b.conns} {
		n.open.Add(1)
		n.opened.Add(1)
	}
	return &counted{Conn: c, agent: &a.counts.conns, bridge: &b.conns}
}

// counted counts what goes over a connection to a target.
type counted struct {
	net.Conn
	agent, bridge *conns
	closed        atomic.Bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.agent.fromTargets.Add(uint64(n))
	c.bridge.fromTargets.Add(uint64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.Wrote(n)
	return n, err
}

// NetConn and Wrote make it a session.Wrapper.
func (c *counted) NetConn() net.Conn { return c.Conn }

// Wrote counts bytes that went to the target past Write.
func (c *counted) Wrote(n int) {
	c.agent.toTargets.Add(uint64(n))
	c.bridge.toTargets.Add(uint64(n))
}

func (c *counted) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.agent.open.Add(-1)
		c.bridge.open.Add(-1)
	}
	return c.Conn.Close()
}

// CloseWrite carries a half-close, where the connection knows one.
func (c *counted) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// SetLinger lets session.Local reset the connection.
func (c *counted) SetLinger(sec int) error {
	if t, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		return t.SetLinger(sec)
	}
	return nil
}
