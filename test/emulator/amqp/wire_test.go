package amqp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A wirePeer speaks frames, also wrong ones. It runs inside a bubble.
type wirePeer struct {
	*testing.T
	nc     net.Conn
	frames chan frame // closed at the end of the connection
	hub    *wireHub
	err    error // of ServeConn, once frames is closed
	torn   error // what the server sent last was no frame
}

// A wireHub takes every link.
type wireHub struct {
	deliver   func(*Delivery)
	credit    func(*Sender)
	receivers []*Receiver
	senders   []*Sender
	login     Login
	conn      *Conn
	got       []string // bodies
	detached  []error
	closed    []error
}

func (h *wireHub) Login(l Login) error        { h.login = l; return nil }
func (h *wireHub) Open(c *Conn, _ Peer) error { h.conn = c; return nil }
func (h *wireHub) Receive(r *Receiver) (Inlet, error) {
	h.receivers = append(h.receivers, r)
	return h, nil
}
func (h *wireHub) Send(s *Sender) (Outlet, error) {
	h.senders = append(h.senders, s)
	return wireOutlet{h, s}, nil
}
func (h *wireHub) Detached(err error) { h.detached = append(h.detached, err) }
func (h *wireHub) Closed(err error)   { h.closed = append(h.closed, err) }
func (h *wireHub) Deliver(d *Delivery) {
	h.got = append(h.got, string(d.Message.Body()))
	if h.deliver != nil {
		h.deliver(d)
		return
	}
	d.Settle(Accepted{})
}

type wireOutlet struct {
	*wireHub
	s *Sender
}

func (o wireOutlet) Credit() {
	if o.credit != nil {
		o.credit(o.s)
	}
}

// wire runs a test with a peer that has sent nothing yet.
func wire(t *testing.T, cfg Config, test func(*wirePeer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		p := &wirePeer{T: t, nc: near, frames: make(chan frame, 10_000), hub: new(wireHub)}
		var wg sync.WaitGroup
		defer wg.Wait()
		defer near.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			p.err = NewServer(cfg).ServeConn(ctx, far, p.hub)
		})
		wg.Go(func() {
			defer close(p.frames)
			for {
				var head [8]byte
				if _, err := io.ReadFull(near, head[:]); err != nil {
					break
				}
				if string(head[:4]) == "AMQP" {
					p.frames <- frame{kind: 0xff, channel: uint16(head[4])}
					continue
				}
				f, err := readFrame(io.MultiReader(bytes.NewReader(head[:]), near), 1<<20)
				if errors.Is(err, io.ErrClosedPipe) {
					break // the test is over
				}
				if err != nil {
					p.torn = err
					break
				}
				p.frames <- f
			}
			near.Close()
			<-done
		})
		test(p)
		synctest.Wait()
		if tears := p.hub.conn != nil && p.hub.conn.tear; (p.torn != nil) != tears {
			t.Errorf("what the server sent ends in %v", p.torn)
		}
	})
}

// opened runs a test with a peer that is past both OPENs, with a session on channel 0.
func opened(t *testing.T, cfg Config, test func(*wirePeer)) {
	t.Helper()
	wire(t, cfg, func(p *wirePeer) {
		p.write(protocolHeader(protocolAMQP))
		p.send(0, &open{containerID: "peer"})
		p.send(0, &begin{incomingWindow: 100, outgoingWindow: 100})
		p.header(protocolAMQP)
		next[*open](p)
		next[*begin](p)
		test(p)
	})
}

// attached has also a link that the peer sends on, handle 0, and one that it receives
// on, handle 1.
func withLinks(t *testing.T, cfg Config, test func(*wirePeer)) {
	t.Helper()
	opened(t, cfg, func(p *wirePeer) {
		zero := uint32(0)
		p.send(0, &attach{name: "in", handle: 0, role: roleSender, source: terminus(codeSource, ""), target: terminus(codeTarget, "/in"), initialDeliveryCount: &zero})
		p.send(0, &attach{name: "out", handle: 1, role: roleReceiver, source: terminus(codeSource, "/out"), target: terminus(codeTarget, "")})
		next[*attach](p)
		next[*flow](p)
		next[*attach](p)
		test(p)
	})
}

func terminus(code uint64, address string) Described { return Described{code, List{address}} }

func (p *wirePeer) write(b []byte) {
	p.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.Logf("write: %v", err)
	}
}

func (p *wirePeer) send(channel uint16, body performative, payload ...byte) {
	p.Helper()
	b, err := appendFrame(nil, frame{channel: channel, body: body, payload: payload})
	if err != nil {
		p.Fatal(err)
	}
	p.write(b)
}

// message sends a delivery of one frame on handle 0.
func (p *wirePeer) message(id uint32, body string) {
	p.Helper()
	b, err := (&Message{Data: [][]byte{[]byte(body)}}).MarshalBinary()
	if err != nil {
		p.Fatal(err)
	}
	p.send(0, &transfer{handle: 0, deliveryID: &id, deliveryTag: []byte{1}}, b...)
}

func (p *wirePeer) header(id byte) {
	p.Helper()
	if f := <-p.frames; f.kind != 0xff || f.channel != uint16(id) {
		p.Fatalf("got %+v, want the header of protocol %d", f, id)
	}
}

// next takes a frame, which must be of a kind.
func next[T performative](p *wirePeer) T {
	p.Helper()
	f, ok := <-p.frames
	if !ok {
		p.Fatalf("the connection ended: %v", p.err)
	}
	body, ok := f.body.(T)
	if !ok {
		p.Fatalf("got %#v, want a %T", f.body, body)
	}
	return body
}

// none says that there is no frame now.
func (p *wirePeer) none() {
	p.Helper()
	synctest.Wait()
	select {
	case f, ok := <-p.frames:
		if ok {
			p.Fatalf("got %#v", f.body)
		}
	default:
	}
}

// end takes the end of the connection.
func (p *wirePeer) end() {
	p.Helper()
	if f, ok := <-p.frames; ok {
		p.Fatalf("got %#v, want the end", f.body)
	}
}

func (p *wirePeer) wantError(e *Error, want Symbol) {
	p.Helper()
	if e == nil || e.Condition != want {
		p.Errorf("got %v, want %s", e, want)
	}
}

func u32(v uint32) *uint32 { return &v }

// TestViolations of the protocol cost a link, a session or the connection; the rest
// lives.
func TestViolations(t *testing.T) {
	message, _ := (&Message{Data: [][]byte{[]byte("x")}}).MarshalBinary()
	tests := []struct {
		name string
		do   func(*wirePeer)
		end  string // detach, end or close
		want Symbol
	}{
		{"unknown channel", func(p *wirePeer) { p.send(7, &flow{}) }, "close", CondIllegalState},
		{"channel above the maximum", func(p *wirePeer) { p.send(9, &begin{}) }, "close", CondFraming},
		{"begin twice", func(p *wirePeer) { p.send(0, &begin{}) }, "close", CondIllegalState},
		{"begin with a remote channel", func(p *wirePeer) { p.send(1, &begin{remoteChannel: new(uint16)}) }, "close", CondInvalidField},
		{"open twice", func(p *wirePeer) { p.send(0, &open{containerID: "x"}) }, "close", CondIllegalState},
		{"handle above the maximum", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 9}) }, "close", CondFraming},
		{"settle mode", func(p *wirePeer) { m := uint8(3); p.send(0, &attach{name: "x", handle: 3, sndSettleMode: &m}) }, "close", CondInvalidField},
		{"source that is no list", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 3, source: "y"}) }, "close", CondDecode},
		{"outcome that is none", func(p *wirePeer) { p.send(0, &disposition{role: roleReceiver, state: "accepted"}) }, "close", CondDecode},
		{"frame too large", func(p *wirePeer) { p.write([]byte{0, 1, 0, 0, 2, 0, 0, 0}) }, "close", CondFraming},
		{"frame too small", func(p *wirePeer) { p.write([]byte{0, 0, 0, 7, 2, 0, 0, 0}) }, "close", CondFraming},
		{"body before the header's end", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 1, 0, 0, 0}) }, "close", CondFraming},
		{"body after the frame's end", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 3, 0, 0, 0}) }, "close", CondFraming},
		{"unknown type of frame", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 2, 7, 0, 0}) }, "close", CondFraming},
		{"SASL after OPEN", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 2, 1, 0, 0}) }, "close", CondFraming},
		{"no performative", func(p *wirePeer) { p.write([]byte{0, 0, 0, 9, 2, 0, 0, 0, 0x40}) }, "close", CondDecode},
		{"field of a wrong type", func(p *wirePeer) { p.write([]byte("\x00\x00\x00\x10\x02\x00\x00\x00\x00\x53\x17\xc0\x03\x01\xa1\x00")) }, "close", CondDecode},

		{"unknown handle", func(p *wirePeer) { p.send(0, &transfer{handle: 5}) }, "end", CondUnattachedHandle},
		{"flow of an unknown handle", func(p *wirePeer) { p.send(0, &flow{handle: u32(5)}) }, "end", CondUnattachedHandle},
		{"detach of an unknown handle", func(p *wirePeer) { p.send(0, &detach{handle: 5}) }, "end", CondUnattachedHandle},
		{"handle in use", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 1}) }, "end", CondHandleInUse},
		{"transfer on a receiver", func(p *wirePeer) { p.send(0, &transfer{handle: 1, deliveryID: u32(0)}) }, "end", CondNotAllowed},
		{"window", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			for range 11 { // never to its end; the window is not renewed while links are silent
				p.send(0, &transfer{handle: 0, deliveryID: u32(0), deliveryTag: []byte{0}, more: true})
			}
		}, "", ""},

		{"no credit", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			for i := range uint32(101) {
				p.message(i, "x")
			}
		}, "detach", CondTransferLimit},
		{"no delivery id", func(p *wirePeer) { p.send(0, &transfer{handle: 0}, message...) }, "detach", CondInvalidField},
		{"delivery id in use", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			p.message(3, "x")
			p.message(3, "y")
		}, "detach", CondInvalidField},
		{"delivery id changes", func(p *wirePeer) {
			p.send(0, &transfer{handle: 0, deliveryID: u32(0), more: true}, message...)
			p.send(0, &transfer{handle: 0, deliveryID: u32(1)})
		}, "detach", CondInvalidField},
		{"message too large", func(p *wirePeer) {
			for i := range 20 {
				p.send(0, &transfer{handle: 0, deliveryID: u32(0), more: i < 19}, make([]byte, 60_000)...)
			}
		}, "detach", CondMessageSizeExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withLinks(t, Config{ChannelMax: 8, HandleMax: 8, Window: 200}, func(p *wirePeer) {
				tt.do(p)
				synctest.Wait()
				last := func() performative {
					for {
						switch f := (<-p.frames).body.(type) {
						case *flow, *disposition:
						default:
							return f
						}
					}
				}
				switch tt.end {
				case "":
					p.none()
				case "close":
					c, ok := last().(*closing)
					if !ok {
						p.Fatal("no CLOSE")
					}
					p.wantError(c.err, tt.want)
					p.send(0, &closing{})
					p.end()
				case "end":
					e, ok := last().(*end)
					if !ok {
						p.Fatal("no END")
					}
					p.wantError(e.err, tt.want)
					p.send(0, &flow{}) // late: nobody minds
					p.send(0, &end{})
					p.send(0, &begin{}) // the channel is free again
					next[*begin](p)
				case "detach":
					d, ok := last().(*detach)
					if !ok {
						p.Fatal("no DETACH")
					}
					p.wantError(d.err, tt.want)
					p.message(1000, "late") // nobody minds
					p.send(0, &detach{handle: 0, closed: true})
					p.send(0, &attach{name: "in", handle: 0, role: roleSender, target: terminus(codeTarget, "/in")})
					next[*attach](p)
				}
			})
		})
	}
}

func TestIncomingWindow(t *testing.T) {
	withLinks(t, Config{Window: 10}, func(p *wirePeer) {
		p.hub.deliver = func(*Delivery) {}
		for i := range uint32(5) {
			p.message(i, "x")
		}
		if f := next[*flow](p); *f.nextIncomingID != 5 || f.incomingWindow != 10 || f.handle != nil {
			t.Errorf("got %+v", f)
		}
		p.none()
	})
	// A peer that overruns the window, since it does not wait for the flow.
	opened(t, Config{Window: 1}, func(p *wirePeer) {
		s := p.hub.conn.sessions[0]
		p.hub.conn.mu.Lock()
		s.incomingWindow = 0
		p.hub.conn.mu.Unlock()
		p.send(0, &transfer{handle: 0, deliveryID: u32(0)})
		p.wantError(next[*end](p).err, CondWindowViolation)
	})
}

func TestOutgoingWindowAndCredit(t *testing.T) {
	withLinks(t, Config{FirstID: 1<<32 - 3}, func(p *wirePeer) {
		s := p.hub.senders[0]
		var outcomes []Outcome
		push := func(want error) {
			t.Helper()
			if err := s.Push(&Message{Value: "v"}, func(o Outcome) { outcomes = append(outcomes, o) }); err != want {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		push(ErrNoCredit)
		// Credit for six, and room for two: counted from our first id, as the peer has
		// seen nothing yet.
		p.send(0, &flow{incomingWindow: 2, handle: u32(1), deliveryCount: u32(1<<32 - 3), linkCredit: u32(6)})
		synctest.Wait()
		for range 6 {
			push(nil)
		}
		push(ErrNoCredit)
		for i := range uint32(2) {
			if f := next[*transfer](p); *f.deliveryID != 1<<32-3+i || f.more || *f.settled {
				t.Errorf("got %+v", f)
			}
		}
		p.none()
		// One of the two was not yet seen: there is room for two more.
		p.send(0, &flow{nextIncomingID: u32(1<<32 - 2), incomingWindow: 3})
		next[*transfer](p)
		next[*transfer](p)
		p.none()
		p.send(0, &flow{nextIncomingID: u32(1), incomingWindow: 1 << 31})
		next[*transfer](p)
		next[*transfer](p)
		// One range over the wrap, and far beyond.
		p.send(0, &disposition{role: roleReceiver, first: 1<<32 - 3, last: u32(0), settled: true, state: Accepted{}.state()})
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(1<<32 - 1), settled: true, state: Rejected{}.state()})
		synctest.Wait()
		want := []Outcome{Accepted{}, Accepted{}, Accepted{}, Accepted{}, Rejected{}, Rejected{}}
		if !reflect.DeepEqual(outcomes, want) {
			t.Errorf("got %v", outcomes)
		}
		p.none()
	})
}

// TestSettlesSecond: the peer's outcome waits for our word, ours for the peer's.
func TestSettlesSecond(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		second := uint8(modeRcvSecond)
		p.send(0, &attach{name: "in", handle: 0, role: roleSender, rcvSettleMode: &second, target: terminus(codeTarget, "/in")})
		if a := next[*attach](p); *a.rcvSettleMode != modeRcvSecond {
			t.Errorf("got %+v", a)
		}
		next[*flow](p)
		p.message(4, "x")
		if d := next[*disposition](p); d.settled || d.first != 4 || d.role != roleReceiver || !Equal(d.state, Accepted{}.state()) {
			t.Errorf("got %+v", d)
		}
		if n := len(p.hub.conn.sessions[0].received); n != 1 {
			t.Errorf("%d deliveries are kept", n)
		}
		p.send(0, &disposition{role: roleSender, first: 0, last: u32(1 << 31), settled: true})
		synctest.Wait()
		if n := len(p.hub.conn.sessions[0].received); n != 0 {
			t.Errorf("%d deliveries are kept", n)
		}

		p.send(0, &attach{name: "out", handle: 1, role: roleReceiver, rcvSettleMode: &second, source: terminus(codeSource, "/out")})
		next[*attach](p)
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		outcomes := 0
		for range 4 {
			if err := p.hub.senders[0].Push(&Message{Value: "v"}, func(Outcome) { outcomes++ }); err != nil {
				t.Fatal(err)
			}
			next[*transfer](p)
		}
		p.send(0, &disposition{role: roleReceiver, first: 1, state: Accepted{}.state()})
		if d := next[*disposition](p); d.role != roleSender || !d.settled || d.first != 1 || *d.last != 1 {
			t.Errorf("got %+v", d)
		}
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(9), state: Described{uint64(codeReceived), List{uint32(0), uint64(0)}}})
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(9), state: Rejected{&Error{Condition: "x"}}.state()})
		// 1 is settled, so there are two ranges.
		if d := next[*disposition](p); d.first != 0 || *d.last != 0 || !Equal(d.state, Rejected{}.state()) {
			t.Errorf("got %+v", d)
		}
		if d := next[*disposition](p); d.first != 2 || *d.last != 3 {
			t.Errorf("got %+v", d)
		}
		p.none()
		if outcomes != 4 {
			t.Errorf("got %d outcomes", outcomes)
		}
	})
}

func TestSettledAtOnce(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		settled := uint8(modeSettled)
		p.send(0, &attach{name: "out", handle: 1, role: roleReceiver, sndSettleMode: &settled, source: terminus(codeSource, "/out")})
		next[*attach](p)
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		var got Outcome
		p.hub.senders[0].Push(&Message{Value: "v"}, func(o Outcome) { got = o })
		if f := next[*transfer](p); !*f.settled {
			t.Errorf("got %+v", f)
		}
		p.none()
		if got != (Accepted{}) || len(p.hub.conn.sessions[0].unsettled) != 0 {
			t.Errorf("got %v", got)
		}
		p.send(0, &attach{name: "in", handle: 0, role: roleSender, target: terminus(codeTarget, "/in")})
		next[*attach](p)
		next[*flow](p)
		yes := true
		b, _ := (&Message{Data: [][]byte{[]byte("x")}}).MarshalBinary()
		for i := range uint32(1000) { // which takes credit, and gives it back at once
			p.send(0, &transfer{handle: 0, deliveryID: u32(i), settled: &yes}, b...)
		}
		synctest.Wait()
		if len(p.hub.got) != 1000 {
			t.Errorf("got %d messages", len(p.hub.got))
		}
	})
}

func TestDefaultOutcome(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		source := List{"/out", nil, nil, nil, nil, nil, nil, nil, Modified{DeliveryFailed: true}.state()}
		p.send(0, &attach{name: "a", handle: 0, role: roleReceiver, source: Described{uint64(codeSource), source}})
		p.send(0, &attach{name: "b", handle: 1, role: roleReceiver, source: terminus(codeSource, "/out")})
		next[*attach](p)
		next[*attach](p)
		got := make([]Outcome, 2)
		for i := range uint32(2) {
			p.send(0, &flow{incomingWindow: 100, handle: u32(i), deliveryCount: u32(0), linkCredit: u32(1)})
			synctest.Wait()
			p.hub.senders[i].Push(&Message{Value: "v"}, func(o Outcome) { got[i] = o })
			next[*transfer](p)
		}
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(1), settled: true})
		synctest.Wait()
		if !reflect.DeepEqual(got, []Outcome{Modified{DeliveryFailed: true}, Released{}}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestManyFramesIn(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		b, _ := (&Message{Data: [][]byte{[]byte("hello")}}).MarshalBinary()
		for i, c := range b { // a byte a frame, with the id in the first only
			f := &transfer{handle: 0, more: i < len(b)-1}
			if i == 0 {
				f.deliveryID = u32(0)
			}
			p.send(0, f, c)
		}
		next[*disposition](p)
		p.send(0, &transfer{handle: 0, deliveryID: u32(1), more: true}, b[:3]...)
		p.send(0, &transfer{handle: 0, aborted: true})
		p.message(2, "next")
		next[*disposition](p)
		if !reflect.DeepEqual(p.hub.got, []string{"hello", "next"}) {
			t.Errorf("got %q", p.hub.got)
		}
		p.send(0, &transfer{handle: 0, deliveryID: u32(3)}, 1, 2, 3)
		d := next[*disposition](p)
		if o, err := readOutcome(d.state); err != nil || o.(Rejected).Err.Condition != CondDecode || !d.settled {
			t.Errorf("got %+v", d)
		}
		p.message(4, "alive")
		next[*disposition](p)
	})
}

func TestDrainAndEcho(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.credit = func(s *Sender) {
			if err := s.Push(&Message{Value: "v"}, nil); err != nil {
				t.Error(err)
			}
		}
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10), drain: true})
		next[*transfer](p)
		if f := next[*flow](p); *f.linkCredit != 0 || *f.deliveryCount != 10 || !f.drain || *f.handle != 1 {
			t.Errorf("got %+v", f)
		}
		p.hub.credit = nil
		p.send(0, &flow{incomingWindow: 100, echo: true})
		if f := next[*flow](p); f.handle != nil || f.nextOutgoingID != 1 {
			t.Errorf("got %+v", f)
		}
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(10), linkCredit: u32(3), echo: true})
		if f := next[*flow](p); *f.linkCredit != 3 || *f.deliveryCount != 10 || *f.available != 0 {
			t.Errorf("got %+v", f)
		}
		p.send(0, &flow{handle: u32(0), deliveryCount: u32(60), echo: true}) // the sender gives 60 credits back
		if f := next[*flow](p); *f.linkCredit != 100 || *f.deliveryCount != 60 {
			t.Errorf("got %+v", f)
		}
	})
}

func TestCreditIn(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		var kept []*Delivery
		p.hub.deliver = func(d *Delivery) { kept = append(kept, d) }
		for i := range uint32(100) {
			p.message(i, "x")
		}
		p.none() // nothing is settled: no credit
		for _, d := range kept {
			d.Settle(Released{})
		}
		granted := uint32(0)
		for range 100 {
			switch f := (<-p.frames).body.(type) {
			case *disposition:
			case *flow:
				granted = *f.linkCredit
			}
		}
		if granted < 50 {
			t.Errorf("credit %d", granted)
		}
		kept[0].Settle(Accepted{})
		p.hub.receivers[0].SetCredit(0)
		synctest.Wait()
	})
}

func TestDetachAndStealing(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		var got []Outcome
		p.hub.senders[0].Push(&Message{Value: "v"}, func(o Outcome) { got = append(got, o) })
		next[*transfer](p)
		p.send(0, &attach{name: "out", handle: 2, role: roleReceiver, source: terminus(codeSource, "/out")})
		p.wantError(next[*detach](p).err, CondStolen)
		next[*attach](p)
		p.send(0, &detach{handle: 1, closed: true})
		p.none()
		if len(got) != 1 || got[0] != nil {
			t.Errorf("got %v", got)
		}
		p.send(0, &detach{handle: 0, closed: true, err: &Error{Condition: "x"}})
		if d := next[*detach](p); d.handle != 0 || !d.closed || d.err != nil {
			t.Errorf("got %+v", d)
		}
		p.hub.senders[1].Detach(nil)
		if d := next[*detach](p); d.handle != 2 || d.err != nil {
			t.Errorf("got %+v", d)
		}
		p.send(0, &end{})
		next[*end](p)
		p.send(0, &closing{})
		next[*closing](p)
		p.end()
		if len(p.hub.detached) != 3 || len(p.hub.closed) != 1 || p.hub.closed[0] != nil || p.err != nil {
			t.Errorf("got %v, %v, %v", p.hub.detached, p.hub.closed, p.err)
		}
	})
}

func TestHeartbeats(t *testing.T) {
	idle := uint32(10_000)
	wire(t, Config{}, func(p *wirePeer) {
		p.write(protocolHeader(protocolAMQP))
		p.send(0, &open{containerID: "peer", idleTimeOut: &idle})
		p.header(protocolAMQP)
		if o := next[*open](p); *o.idleTimeOut != 240_000 || *o.maxFrameSize != 65535 || *o.channelMax != 1024 || o.hostname != "" {
			t.Errorf("got %+v", o)
		}
		start := time.Now()
		for range 20 {
			if f := <-p.frames; f.body != nil {
				t.Fatalf("got %+v", f)
			}
		}
		if d := time.Since(start); d != 100*time.Second {
			t.Errorf("20 empty frames took %v", d)
		}
		p.write([]byte{0, 0, 0, 8, 2, 0, 0, 0}) // we live
		beats := 0
		for f := range p.frames {
			if f.body != nil {
				p.wantError(f.body.(*closing).err, CondResourceLimit)
				break
			}
			beats++
		}
		if d := time.Since(start); d != 340*time.Second || beats < 47 {
			t.Errorf("closed after %v and %d empty frames", d, beats)
		}
		p.end() // without an answer, after a while
		if d := time.Since(start); d != 345*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

func TestSlowHandshake(t *testing.T) {
	wire(t, Config{}, func(p *wirePeer) {
		start := time.Now()
		p.write([]byte("AMQ"))
		p.end()
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("cut after %v", d)
		}
		if len(p.hub.closed) != 0 {
			t.Error("Closed was called, although nothing was asked")
		}
	})
}

func TestSASLOnTheWire(t *testing.T) {
	wire(t, Config{}, func(p *wirePeer) {
		p.write(protocolHeader(protocolSASL))
		p.header(protocolSASL)
		if m := next[*saslMechanisms](p); !reflect.DeepEqual(m.names, []Symbol{"PLAIN", "ANONYMOUS", "MSSBCBS", "EXTERNAL"}) {
			t.Errorf("got %v", m.names)
		}
		b, _ := appendFrame(nil, frame{kind: frameTypeSASL, body: &saslInit{mechanism: "PLAIN", response: []byte("\x00user\x00secret")}})
		p.write(b)
		if o := next[*saslOutcome](p); o.result != 0 || p.hub.login != (Login{"PLAIN", "user", "secret"}) {
			t.Errorf("got %+v, %+v", o, p.hub.login)
		}
		p.write(protocolHeader(protocolAMQP))
		p.header(protocolAMQP)
		p.send(0, &open{containerID: "x"})
		next[*open](p)
	})
	for name, init := range map[string]*saslInit{
		"not offered": {mechanism: "GSSAPI"}, "two parts": {mechanism: "PLAIN", response: []byte("\x00user")},
	} {
		t.Run(name, func(t *testing.T) {
			wire(t, Config{}, func(p *wirePeer) {
				p.write(protocolHeader(protocolSASL))
				p.header(protocolSASL)
				next[*saslMechanisms](p)
				b, _ := appendFrame(nil, frame{kind: frameTypeSASL, body: init})
				p.write(b)
				if o := next[*saslOutcome](p); o.result != 1 {
					t.Errorf("got %+v", o)
				}
				p.end()
			})
		})
	}
	for name, head := range map[string]string{"TLS": "AMQP\x02\x01\x00\x00", "0.9.1": "AMQP\x00\x00\x09\x01", "HTTP": "GET / HT"} {
		t.Run(name, func(t *testing.T) {
			wire(t, Config{}, func(p *wirePeer) {
				p.write([]byte(head))
				p.header(protocolAMQP)
				p.end()
			})
		})
	}
}

func TestFreezeAndTear(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		start := time.Now()
		p.hub.conn.Freeze()
		synctest.Wait()
		p.nc.SetWriteDeadline(time.Now().Add(time.Minute))
		for range 3 { // one may still be on its way in
			p.message(0, "x")
		}
		p.end()
		if d := time.Since(start); d != 240*time.Second || len(p.hub.got) != 0 {
			t.Errorf("ended after %v, got %q", d, p.hub.got)
		}
	})
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.conn.Tear()
		p.message(0, "x")
		p.end()
		if p.err == nil {
			t.Error("no error")
		}
	})
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.conn.Cut()
		p.end()
		p.hub.senders[0].Detach(nil) // after the end nothing does anything
		p.hub.receivers[0].SetCredit(5)
		p.hub.conn.CloseWith(nil)
		if err := p.hub.senders[0].Push(&Message{}, nil); err != ErrDetached {
			t.Errorf("got %v", err)
		}
	})
}

// TestPeerThatDoesNotRead is held up, and cut in the end.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- NewServer(Config{}).ServeConn(t.Context(), far, new(wireHub)) }()
		near.Write(protocolHeader(protocolAMQP))
		b, _ := appendFrame(nil, frame{body: &open{containerID: "x"}})
		near.Write(b)
		b, _ = appendFrame(nil, frame{body: &begin{incomingWindow: 1}})
		near.Write(b)
		echo, _ := appendFrame(nil, frame{body: &flow{echo: true}})
		start, n := time.Now(), 0
		for {
			if _, err := near.Write(echo); err != nil {
				break
			}
			n++
		}
		if n*len(echo) > 4*highWater {
			t.Errorf("%d frames were taken", n)
		}
		if err := <-done; err == nil || time.Since(start) > 10*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		near.Close()
	})
}
