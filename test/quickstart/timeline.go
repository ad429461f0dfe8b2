package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// timeline collects what happened when.
type timeline struct {
	mu    sync.Mutex // guards all below
	start time.Time
	lines []moment
	over  bool

	// Who is the next to connect to the relay's address, and to a node behind the
	// front. Later ones are the user's.
	atEntrance, atNode visitor
}

type visitor int

const (
	theUser visitor = iota
	theRequester
	theDevice
)

type moment struct {
	at        time.Duration
	who, what string
}

func (t *timeline) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = time.Now()
	t.atEntrance, t.atNode = theRequester, theRequester
}

// end makes later marks void.
func (t *timeline) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// signaled: the device has the signal, so who dials the relay next is the device.
func (t *timeline) signaled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.atEntrance, t.atNode = theDevice, theDevice
}

// entered returns who has connected at a place.
func (t *timeline) entered(place *visitor) visitor {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := *place
	*place = theUser
	return v
}

func (t *timeline) mark(who, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.lines = append(t.lines, moment{time.Since(t.start), who, what})
	}
}

// String is a table, in milliseconds since the requester asked.
func (t *timeline) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, m := range t.lines {
		fmt.Fprintf(&b, "  %7.1f ms  %-10s %s\n", float64(m.at.Microseconds())/1000, m.who, m.what)
	}
	return b.String()
}

// The timed parts pass everything on and note when it happened.

type timedSignaler struct {
	signaler.Signaler
	tl        *timeline
	name      string // the node's
	does, via string
}

func (s *timedSignaler) Signal(ctx context.Context, sig *signaler.Signal) error {
	s.tl.mark(s.name, s.does+" the hub a signal for "+sig.DeviceID+", with the address to dial back"+s.via)
	return s.Signaler.Signal(ctx, sig)
}

type timedSource struct {
	deviceagent.SignalSource
	tl *timeline
}

func (s *timedSource) Run(ctx context.Context, h signaler.Handler) error {
	return s.SignalSource.Run(ctx, func(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
		s.tl.mark("device", "gets the signal from the hub, and checks it")
		s.tl.signaled()
		return h(ctx, d)
	})
}

// timedEntrance sees what the relay's one address sees: the requester's connection
// first, then the device's.
type timedEntrance struct {
	net.Listener
	tl *timeline
}

func (l *timedEntrance) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.tl.entered(&l.tl.atEntrance) == theDevice {
		l.tl.mark("device", "dials the relay back: GET "+wire.PathAccept)
	}
	return c, err
}

// timedTarget is the device's way to its web server.
type timedTarget struct {
	text string
	addr net.Addr
	tl   *timeline
}

func (t *timedTarget) String() string { return t.addr.Network() + ":" + t.addr.String() }

func (t *timedTarget) Dial(ctx context.Context) (net.Conn, error) {
	t.tl.mark("device", "connects "+t.text)
	var d net.Dialer
	return d.DialContext(ctx, t.addr.Network(), t.addr.String())
}
