package pump

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"websocketbridge/relay/ws"
)

// A peer is a client, frame by frame, over a pipe that has no buffer: what is
// not read blocks.
type peer struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
}

type frame struct {
	finOp   byte
	payload string
}

func newPeer(t *testing.T) (*peer, *Leg) {
	a, b := net.Pipe()
	return &peer{t, a, bufio.NewReader(a)}, NewLeg(b)
}

// run starts a pump. It belongs into a synctest bubble, which fails when a
// goroutine is left.
func run(t *testing.T, ctx context.Context, cfg Config) (requester, device *peer, result <-chan Result) {
	requester, left := newPeer(t)
	device, right := newPeer(t)
	ch := make(chan Result, 1)
	go func() { ch <- Run(ctx, left, right, cfg) }()
	return requester, device, ch
}

var quiet = Config{Ping: -1, Dead: -1}

func (p *peer) next() (f frame, err error) {
	for n := 2; ; n++ {
		b, err := p.br.Peek(n)
		if err != nil {
			return f, err
		}
		h, size, err := ws.ParseHeader(b)
		if err != nil {
			return f, err
		}
		if size == 0 {
			continue
		}
		if h.Masked {
			return f, errors.New("a server's frame is masked")
		}
		p.br.Discard(size)
		payload := make([]byte, h.Len)
		_, err = io.ReadFull(p.br, payload)
		if f.finOp = h.Opcode; h.Fin {
			f.finOp |= 0x80
		}
		f.payload = string(payload)
		return f, err
	}
}

func (p *peer) want(finOp byte, payload string) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("got %v, want frame %#x %.60q", err, finOp, payload)
	}
	if f.finOp != finOp || f.payload != payload {
		p.t.Fatalf("got frame %#x %.60q, want %#x %.60q", f.finOp, f.payload, finOp, payload)
	}
}

func (p *peer) wantClose(code int, reason string) {
	p.t.Helper()
	p.want(0x88, closing(code, reason))
}

// wantEnd is that of the connection.
func (p *peer) wantEnd() {
	p.t.Helper()
	if f, err := p.next(); err != io.EOF {
		p.t.Fatalf("got %#x %.60q, %v, want the end", f.finOp, f.payload, err)
	}
}

func closing(code int, reason string) string { return string(ws.AppendClose(nil, code, reason)) }

func (p *peer) send(finOp byte, payload string) {
	p.t.Helper()
	p.raw(clientFrame(finOp, payload))
}

func (p *peer) sendClose(code int, reason string) {
	p.t.Helper()
	p.send(0x88, closing(code, reason))
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

// check compares all but the duration.
func (r Result) check(t *testing.T, want Result) {
	t.Helper()
	r.Duration = 0
	if r != want {
		t.Errorf("got result %+v, want %+v", r, want)
	}
}
