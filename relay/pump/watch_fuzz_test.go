package pump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"websocketbridge/relay/ws"
)

// bytesConn is a peer that has sent some bytes, in parts, and has gone.
type bytesConn struct {
	net.Conn
	in   *bytes.Reader
	part int
}

func (c *bytesConn) Read(p []byte) (int, error)       { return c.in.Read(p[:min(len(p), c.part)]) }
func (c *bytesConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzWatch: a leg that waits is held to the same rules as one that is joined, and the
// data that Watch has kept is what the pump would have passed on.
func FuzzWatch(f *testing.F) {
	for _, v := range violations {
		f.Add(append(clientFrame(0x81, "good"), v.wire...), byte(7))
	}
	f.Add(append(clientFrame(0x89, "ping"), clientFrame(0x02, "part")...), byte(1))
	f.Add(clientFrame(0x88, "\x03\xe8bye"), byte(255))
	f.Fuzz(func(t *testing.T, in []byte, part byte) {
		if len(in) > 4096 {
			return
		}
		leg := func() *Leg { return NewLeg(&bytesConn{in: bytes.NewReader(in), part: int(part) + 1}) }
		payload := func(l *Leg) (out []byte, err error) {
			err = l.frames(new(reader), takeFunc(func(b []byte, _ int64, c *control) error {
				out = append(out, b...)
				if c != nil && c.op == ws.OpClose {
					if _, _, err := ws.ParseClose(c.payload); err != nil {
						return err
					}
					return ErrLeft
				}
				return nil
			}))
			return out, err
		}
		joined, waited := leg(), leg()
		out, want := payload(joined)
		got := waited.Watch(context.Background())
		switch {
		case ws.IsProtocolError(want):
			if !errors.Is(got, want) {
				t.Fatalf("Watch says %v, the pump %v", got, want)
			}
		case ws.IsProtocolError(got) || !errors.Is(got, ErrLeft):
			t.Fatalf("Watch says %v, the pump %v", got, want)
		default:
			kept, err := payload(waited)
			if want == io.EOF && err == io.EOF && !bytes.HasPrefix(joinFrames(kept), joinFrames(out)) && !bytes.HasPrefix(joinFrames(out), joinFrames(kept)) {
				t.Fatalf("kept %q, the pump passes on %q", kept, out)
			}
		}
		joined.posts.Wait()
		waited.posts.Wait()
	})
}

// joinFrames is the payload of a server's frames: how they are cut depends on how they
// came.
func joinFrames(b []byte) (all []byte) {
	for len(b) > 0 {
		h, n, err := ws.ParseHeader(b)
		if err != nil || n == 0 || int64(len(b)-n) < h.Len {
			return append(all, b...)
		}
		all = append(all, b[n:n+int(h.Len)]...)
		b = b[n+int(h.Len):]
	}
	return all
}
