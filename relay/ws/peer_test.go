package ws

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
)

// A peer is the other end of a Conn, frame by frame. A pipe has no buffer, so
// that what is not read blocks.
type peer struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
}

func pipe(t *testing.T, cfg Config) (*Conn, *peer) {
	a, b := net.Pipe()
	return NewClient(a, nil, cfg), &peer{t, b, bufio.NewReader(b)}
}

type frame struct {
	Header
	payload string
}

// next reads one frame and unmasks it. Every frame of a client is masked.
func (p *peer) next() (f frame, err error) {
	for n := 2; ; n++ {
		b, err := p.br.Peek(n)
		if err != nil {
			return f, err
		}
		h, size, err := ParseHeader(b)
		if err != nil {
			return f, err
		}
		if size > 0 {
			f.Header = h
			p.br.Discard(size)
			break
		}
	}
	if !f.Masked {
		return f, errors.New("a client's frame is not masked")
	}
	b := make([]byte, f.Len)
	_, err = io.ReadFull(p.br, b)
	for i := range b {
		b[i] ^= f.Key[i%4]
	}
	f.payload = string(b)
	return f, err
}

// want reads one frame.
func (p *peer) want(op byte, payload string) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("got %v, want a frame with opcode %d", err, op)
	}
	if f.Opcode != op || f.payload != payload || !f.Fin {
		p.t.Fatalf("got opcode %d, fin %v, %.80q, want %d, true, %.80q", f.Opcode, f.Fin, f.payload, op, payload)
	}
}

// all reads to the end, which it says.
func (p *peer) all() (frames []frame, err error) {
	for {
		f, err := p.next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Error(err)
	}
}

// server makes a server's frame; op 0x8_ has FIN.
func server(finOp byte, payload string) []byte {
	h := Header{Fin: finOp&0x80 != 0, Opcode: finOp & 0xf, Len: int64(len(payload))}
	return append(AppendHeader(nil, h), payload...)
}

func closeFrame(code int, reason string) []byte {
	return server(0x88, string(AppendClose(nil, code, reason)))
}

// readAll reads with a buffer of size bytes.
func readAll(r io.Reader, size int) (got []byte, err error) {
	buf := make([]byte, size)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got, err
		}
	}
}

var never = Config{Ping: -1, Dead: -1}
