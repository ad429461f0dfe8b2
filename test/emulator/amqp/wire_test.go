package amqp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
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
	attach    func(*Receiver) error
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
	if h.attach != nil {
		return h, h.attach(r)
	}
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
