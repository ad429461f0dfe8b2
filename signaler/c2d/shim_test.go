package c2d

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/go-amqp"
)

// pipeShim returns a shim and the hub's end of its connection.
func pipeShim(t *testing.T) (*shim, net.Conn) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	return newShim(near, near, time.Second, func(byte, uint16, *amqp.Error) {}), far
}

// TestShimPieces: whatever the pieces are in which the hub's bytes come, and in
// which they are read, the same bytes come out.
func TestShimPieces(t *testing.T) {
	begin := short(t, codeBegin, "600001 43 52ff 52ff")
	mended := unhex("0000001d 02000005 005313 d00000000d 00000004 7000000002 52ff 43 43")
	big := frame(5, append(unhex("005314 c0030243 43"), make([]byte, 9000)...))
	in := bytes.Join([][]byte{unhex("414d5150 00010000"), begin, short(t, codeFlow, "40 52ff 43 43"), unhex("00000008 02000000"), big, short(t, codeDisposition, "41 43 43 42"), begin}, nil)
	want := bytes.Join([][]byte{unhex("414d5150 00010000"), begin, mended, unhex("00000008 02000000"), big, begin}, nil)
	for _, size := range []int{1, 3, 8, 13, 4096, 5000, len(in)} {
		s, far := pipeShim(t)
		go io.Copy(io.Discard, far)
		for range 2 { // two transfers on channel 1
			if _, err := s.Write(frame(1, unhex("005314 c0030243 43"))); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			for p := in; len(p) > 0; {
				n := min(size, len(p))
				if _, err := far.Write(p[:n]); err != nil {
					return
				}
				p = p[n:]
			}
			far.Close()
		}()
		var got []byte
		buf := make([]byte, max(1, 5000-size))
		for {
			n, err := s.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				if err != io.EOF {
					t.Errorf("got error %v", err)
				}
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: got %d bytes, want %d", size, len(got), len(want))
		}
	}
}

// TestShimEndsOnReadError: go-amqp waits for its writer before it closes the
// connection, and the writer waits for a peer that is gone.
func TestShimEndsOnReadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pipeShim(t)
		s.writeTimeout = time.Hour
		wrote := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 100))
			wrote <- err
		}()
		s.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v from Read", err)
		}
		if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v from Write, want the first reason", err)
		}
		if !errors.Is(s.reason(), os.ErrDeadlineExceeded) || s.ctx.Err() == nil {
			t.Errorf("got reason %v", s.reason())
		}
	})
}

// TestShimWriteDeadline: go-amqp sets none.
func TestShimWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pipeShim(t)
		start := time.Now()
		if _, err := s.Write(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still open")
		}
	})
}

// TestShimGivesWhatCameFirst: an error comes after the bytes before it, and stays.
func TestShimGivesWhatCameFirst(t *testing.T) {
	s, far := pipeShim(t)
	good := unhex("00000008 02000000")
	go far.Write(append(bytes.Clone(good), unhex("00000003 02000000")...))
	buf := make([]byte, 100)
	if n, err := s.Read(buf); err != nil || !bytes.Equal(buf[:n], good) {
		t.Errorf("got %x, %v", buf[:n], err)
	}
	for range 2 {
		if n, err := s.Read(buf); n != 0 || !errors.Is(err, errProtocol) {
			t.Errorf("got %x, %v", buf[:n], err)
		}
	}
}

// TestShimCounts: an ended session's channel starts at 0 again.
func TestShimCounts(t *testing.T) {
	s, far := pipeShim(t)
	go io.Copy(io.Discard, far)
	begin, transfer := unhex("005311 45"), unhex("005314 45")
	for _, step := range []struct {
		channel uint16
		body    []byte
		want    uint32
	}{{0, begin, 0}, {0, transfer, 1}, {1, begin, 0}, {1, transfer, 1}, {1, transfer, 2}, {0, transfer, 2}, {1, begin, 0}, {1, transfer, 1}} {
		if _, err := s.Write(frame(step.channel, step.body)); err != nil {
			t.Fatal(err)
		}
		if got := s.nextTransfer(step.channel); got != step.want {
			t.Errorf("channel %d has %d, want %d", step.channel, got, step.want)
		}
	}
	if got := s.lastBegun(); got != 1 {
		t.Errorf("the last session began on %d", got)
	}
}

// A byteConn is the hub's bytes in pieces.
type byteConn struct {
	net.Conn
	in    []byte
	piece int
}

func (c *byteConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *byteConn) Close() error { return nil }

// FuzzShim: any bytes, in any pieces, come out as they are but for the flows and
// dispositions that are mended, and those are mended in one way only.
func FuzzShim(f *testing.F) {
	flow := unhex("00000013 02000005 005313 c00604 40 52ff 43 43")
	released := frame(5, unhex("005315 c00905 41 43 43 41"+stateReleased))
	begin := frame(5, unhex("005311 c00904 600001 43 52ff 52ff"))
	f.Add([]byte("AMQP\x00\x01\x00\x00"), uint16(1))
	f.Add(bytes.Join([][]byte{begin, flow, released, flow}, nil), uint16(3))
	f.Add(bytes.Join([][]byte{begin, frame(5, unhex("005313 d000000009 00000004 40 52ff 43 43"))}, nil), uint16(1000))
	f.Add(frame(5, unhex("005315 c00d05 41 43 43 42"+stateReceived)), uint16(5))
	f.Add(frame(5, unhex("005315 c01505 41 43 43 42 005325 c00b01 00531d c00501 a3026162")), uint16(5))
	f.Add(frame(5, unhex("005318 c0140100531dc00e02a3046162636440a10678797a787978")), uint16(7))
	f.Add(unhex("00000003 02000000"), uint16(2))
	f.Add(unhex("00010000 02000000 00"), uint16(2))
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		conn := &byteConn{in: in, piece: int(piece)%5000 + 1}
		s := newShim(conn, conn, time.Second, func(byte, uint16, *amqp.Error) {})
		got, err := io.ReadAll(s)

		// The reference: unit by unit, from the whole.
		r := newShim(conn, conn, time.Second, func(byte, uint16, *amqp.Error) {}).mend
		var want []byte
		var wantErr error
		for rest := in; wantErr == nil; {
			var n int
			if n, wantErr = unit(rest); n == 0 {
				break
			}
			u := rest[:n]
			rest = rest[n:]
			var out []byte
			if out, wantErr = r.rewrite(nil, u); wantErr != nil {
				break
			}
			want = append(want, out...)
			checkMended(t, u, out)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
		if wantErr == nil && err != nil || wantErr != nil && err == nil {
			t.Errorf("got error %v, want %v", err, wantErr)
		}
	})
}

// checkMended checks what rewrite made of a unit.
func checkMended(t *testing.T, in, out []byte) {
	if bytes.Equal(in, out) {
		code := performative(in)
		list, ok := fields(in[min(len(in), headerSize+3):])
		if code == codeDisposition && isTrue(list[0]) {
			if state, _, k := described(field(list, 4)); !ok || !k || state != codeAccepted && (state != codeRejected || !isTrue(field(list, 3))) {
				t.Errorf("%x passed", in)
			}
		}
		return
	}
	if performative(in) == codeDisposition && len(out) == 0 {
		return // the outcome is still to come
	}
	n, err := unit(out)
	if n != len(out) || err != nil || performative(out) != performative(in) || !bytes.Equal(in[4:11], out[4:11]) {
		t.Fatalf("%x became %x", in, out)
	}
	was, _ := fields(in[headerSize+3:])
	is, ok := fields(out[headerSize+3:])
	if !ok {
		t.Fatalf("%x became %x", in, out)
	}
	switch performative(in) {
	case codeFlow:
		if _, ok := number(is[0]); !ok || field(was, 0) != nil || !equal(was[1:], is[1:]) {
			t.Errorf("%x became %x", in, out)
		}
	case codeDisposition:
		state, list, _ := described(field(is, 4))
		if !equal(was[:3], is[:3]) || !isTrue(is[3]) || state != codeRejected || remoteError(field(list, 0)) == nil {
			t.Errorf("%x became %x", in, out)
		}
	default:
		t.Errorf("%x became %x", in, out)
	}
}

func equal(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, []byte{0}), bytes.Join(b, []byte{0}))
}
