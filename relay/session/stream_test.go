package session_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

// Sixteen streams at once, opened by both sides, random chunks, some through
// ReadFrom and WriteTo: every byte arrives, in order, both ways.
func TestParallelStreams(t *testing.T) {
	a, b := tcpPipe(t)
	// Small windows, so that credit and growth are part of it.
	req, dev, stop := pair(t, a, b, session.Config{InitialWindow: session.EarlyWindow, MaxWindow: 64 << 10})
	var wg sync.WaitGroup
	for i := range 16 {
		from, to := req, dev
		if i%2 == 1 {
			from, to = dev, req
		}
		x, y := open(t, from, to)
		for j, ends := range [][2]*session.Stream{{x, y}, {y, x}} {
			rnd := rand.New(rand.NewPCG(uint64(i), uint64(j)))
			want := make([]byte, 200<<10+rnd.IntN(200<<10))
			for k := range want {
				want[k] = byte(rnd.Uint32())
			}
			seed := rnd.Uint64()
			wg.Go(func() { sendChunks(t, ends[0], want, rand.New(rand.NewPCG(seed, 1))) })
			wg.Go(func() {
				got := receiveChunks(t, ends[1], rand.New(rand.NewPCG(seed, 2)))
				if sha256.Sum256(got) != sha256.Sum256(want) {
					t.Errorf("stream %d direction %d: got %d bytes, want %d, or they differ", i, j, len(got), len(want))
				}
			})
		}
	}
	wg.Wait()
	stop()
	if n := req.NumStreams() + dev.NumStreams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func sendChunks(t *testing.T, st *session.Stream, p []byte, rnd *rand.Rand) {
	for len(p) > 0 {
		n := min(len(p), 1+rnd.IntN(1<<rnd.IntN(18)))
		var m int64
		var err error
		if rnd.IntN(3) == 0 {
			m, err = st.ReadFrom(iotest.HalfReader(bytes.NewReader(p[:n])))
		} else {
			var k int
			k, err = st.Write(p[:n])
			m = int64(k)
		}
		if err != nil || m != int64(n) {
			t.Errorf("sent %d of %d bytes: %v", m, n, err)
			return
		}
		p = p[n:]
	}
	if err := st.CloseWrite(); err != nil {
		t.Error(err)
	}
}

func receiveChunks(t *testing.T, st *session.Stream, rnd *rand.Rand) []byte {
	var got bytes.Buffer
	for {
		if rnd.IntN(50) == 0 {
			if _, err := st.WriteTo(&got); err != nil {
				t.Error(err)
			}
			return got.Bytes()
		}
		_, err := io.CopyN(&got, struct{ io.Reader }{st}, int64(1+rnd.IntN(1<<rnd.IntN(17))))
		if err == io.EOF {
			return got.Bytes()
		}
		if err != nil {
			t.Error(err)
			return nil
		}
	}
}

func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		a, b := open(t, req, dev)
		a.Write([]byte("request"))
		a.CloseWrite()
		got, err := io.ReadAll(b)
		if string(got) != "request" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		for _, p := range [][]byte{[]byte("x"), nil} {
			_, err := a.Write(p)
			wantErr(t, "write after CloseWrite", err, net.ErrClosed)
		}
		// The other direction lives on after the FIN.
		b.Write([]byte("answer"))
		b.CloseWrite()
		got, err = io.ReadAll(a)
		if string(got) != "answer" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		synctest.Wait()
		if req.NumStreams() != 0 || dev.NumStreams() != 0 || dev.Held() != 0 {
			t.Errorf("streams left: %d and %d, held %d", req.NumStreams(), dev.NumStreams(), dev.Held())
		}
		if err := errors.Join(a.Close(), b.Close(), a.CloseWrite(), a.CloseRead(), a.Reset("x", "")); err != nil {
			t.Error(err)
		}
	})
}

// Close never loses what was written before, even if the session is closed at once.
func TestCloseDelivers(t *testing.T) {
	for _, what := range []string{"stream", "session"} {
		t.Run(what, func(t *testing.T) {
			a, b := tcpPipe(t)
			req, dev, stop := pair(t, a, b, session.Config{})
			defer stop()
			x, y := open(t, req, dev)
			want := bytes.Repeat([]byte("payload."), 20<<10) // less than the window: nobody reads yet
			y.Write(want)                                    // never read: must not make TCP reset the connection
			if _, err := x.Write(want); err != nil {
				t.Fatal(err)
			}
			x.Close()
			if what == "session" {
				req.Close()
				<-dev.Done()
			}
			got, err := io.ReadAll(y)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
			}
		})
	}
}

func TestCloseRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		a, b := open(t, req, dev)
		blocked := make(chan error)
		go func() {
			_, err := b.Write(make([]byte, 1<<20)) // more than the window
			blocked <- err
		}()
		synctest.Wait()
		a.CloseRead()
		wantErr(t, "blocked write", <-blocked, session.ErrStopped)
		_, err := b.Write([]byte("x"))
		wantErr(t, "later write", err, session.ErrStopped)
		_, err = a.Read(make([]byte, 1))
		wantErr(t, "read", err, net.ErrClosed)
		// The other direction is untouched.
		a.Write([]byte("still here"))
		a.CloseWrite()
		got, err := io.ReadAll(b)
		if string(got) != "still here" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		synctest.Wait()
		if req.NumStreams() != 0 || dev.NumStreams() != 0 {
			t.Errorf("streams left: %d and %d", req.NumStreams(), dev.NumStreams())
		}
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		a, b := open(t, req, dev)
		b.Write([]byte("lost"))
		reads, writes := make(chan error), make(chan error)
		go func() { _, err := b.Read(make([]byte, 1)); reads <- err }()
		go func() { _, err := b.Write(make([]byte, 1<<20)); writes <- err }()
		synctest.Wait()
		a.Reset("target_failed", "no\x1b[31m more!"+strings.Repeat("é", 2000))
		for what, c := range map[string]chan error{"read": reads, "write": writes} {
			var reset *session.ResetError
			if err := <-c; !errors.As(err, &reset) || reset.Code != "target_failed" || len(reset.Message) != session.MaxMessage-1 {
				t.Errorf("%s: %v", what, err)
			} else if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%s: error lets control characters through: %q", what, err.Error())
			}
		}
		_, err := a.Read(make([]byte, 1))
		wantErr(t, "read", err, net.ErrClosed)
		_, err = a.Write(make([]byte, 1))
		wantErr(t, "write", err, net.ErrClosed)
		synctest.Wait()
		if req.NumStreams() != 0 || dev.NumStreams() != 0 || dev.Held() != 0 {
			t.Errorf("streams left: %d and %d", req.NumStreams(), dev.NumStreams())
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		a, b := open(t, req, dev)
		a.SetDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 1<<20))
		wantErr(t, "write", err, os.ErrDeadlineExceeded)
		if n != session.DefaultInitialWindow {
			t.Errorf("wrote %d bytes, want the window of %d", n, session.DefaultInitialWindow)
		}
		_, err = a.Read(make([]byte, 1))
		wantErr(t, "read", err, os.ErrDeadlineExceeded)
		// A deadline that is moved while a read waits counts for that read.
		a.SetDeadline(time.Time{})
		waits := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); waits <- err }()
		synctest.Wait()
		a.SetReadDeadline(time.Now().Add(time.Minute))
		began := time.Now()
		wantErr(t, "moved", <-waits, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != time.Minute {
			t.Errorf("waited %v, want a minute", d)
		}
		// And the stream still works afterwards.
		a.SetDeadline(time.Time{})
		got := make([]byte, n)
		if _, err := io.ReadFull(b, got); err != nil {
			t.Error(err)
		}
		if _, err := a.Write(got); err != nil {
			t.Error(err)
		}
		// A timer of a closed stream does not live on.
		a.SetDeadline(time.Now().Add(time.Hour))
		a.Close()
	})
}

// A destination that fails takes nothing from the stream but what it took.
func TestWriteToFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		a, b := open(t, req, dev)
		a.Write([]byte("0123456789"))
		synctest.Wait()
		var got bytes.Buffer
		n, err := b.WriteTo(&shortWriter{&got, 4})
		if n != 4 || !errors.Is(err, errShort) {
			t.Errorf("got %d, %v", n, err)
		}
		a.CloseWrite()
		if n, err := b.WriteTo(&got); n != 6 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		if got.String() != "0123456789" {
			t.Errorf("got %q", got.String())
		}
		errSource := errors.New("source")
		if n, err := b.ReadFrom(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errSource))); n != 3 || err != errSource {
			t.Errorf("got %d, %v", n, err)
		}
		if _, err := b.ReadFrom(readerFunc(func([]byte) (int, error) { return 0, nil })); err != io.ErrNoProgress {
			t.Errorf("got %v", err)
		}
	})
}

var errShort = errors.New("short")

type shortWriter struct {
	w    io.Writer
	left int
}

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return w.w.Write(p)
	}
	n, _ := w.w.Write(p[:w.left])
	w.left = 0
	return n, errShort
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// ReadFrom must cope with frames cut by the window at any place, and with a
// transport that makes use of its right to overwrite what it was given.
func TestHeadroom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		cfg := session.Config{InitialWindow: session.EarlyWindow, MaxBuffered: -1}
		req := start(t, &scribbler{session.NetTransport(a)}, session.Requester, cfg)
		dev := start(t, &scribbler{session.NetTransport(b)}, session.Device, cfg)
		x, y := open(t, req, dev)
		want := make([]byte, 150<<10)
		for i := range want {
			want[i] = byte(i * i >> 7)
		}
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = io.ReadAll(iotest.OneByteReader(y)) })
		x.ReadFrom(bytes.NewReader(want[:50<<10]))
		x.Write(want[50<<10 : 100<<10])
		x.ReadFrom(bytes.NewReader(want[100<<10:]))
		x.Close()
		wg.Wait()
		if !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, want %d, or they differ", len(got), len(want))
		}
		req.Close()
		dev.Close()
	})
}

type scribbler struct{ session.Transport }

func (*scribbler) Headroom() int { return 14 }

func (s *scribbler) WriteFrame(b []byte) error {
	err := s.Transport.WriteFrame(b[14:])
	for i := range b {
		b[i] = 0xaa
	}
	return err
}

func TestAddr(t *testing.T) {
	req, dev, stop := pipePair(t, session.Config{})
	defer stop()
	a, b := open(t, req, dev)
	if a.LocalAddr().String() != "requester/stream-1" || a.RemoteAddr() != b.LocalAddr() || b.RemoteAddr() != a.LocalAddr() {
		t.Error(a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	if a.LocalAddr().Network() != session.Protocol || b.Target() != "target" {
		t.Error(a.LocalAddr().Network(), b.Target())
	}
	if _, err := req.Open(context.Background(), strings.Repeat("x", 256)); err == nil {
		t.Error("a target of 256 bytes was accepted")
	}
}
