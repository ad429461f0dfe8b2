package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

func TestGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		a, b := open(t, req, dev)
		dev.GoAway("draining", "restart at noon")
		synctest.Wait()
		_, err := req.Open(context.Background(), "x")
		var gone *session.GoAwayError
		if !errors.As(err, &gone) || gone.Code != "draining" || gone.Message != "restart at noon" {
			t.Errorf("open: %v", err)
		} else if want := `session: open "x": session: the other side goes away: draining: restart at noon`; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		_, err = dev.Open(context.Background(), "x")
		wantErr(t, "open", err, session.ErrGoingAway)
		// Old streams live on.
		go echo(b)
		a.Write([]byte("hello"))
		a.CloseWrite()
		if got, err := io.ReadAll(a); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if req.Err() != nil || dev.Err() != nil {
			t.Error(req.Err(), dev.Err())
		}
		// A code that would end the session is not for applications.
		req.GoAway(session.CodeClosed, "")
		synctest.Wait()
		if dev.Err() != nil {
			t.Error(dev.Err())
		}
		stop()
	})
}

// A session is empty when it goes away and its last stream has ended, also one
// that was being opened when it went; what has arrived is still read.
func TestEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		empty := func(s *side) bool {
			synctest.Wait()
			select {
			case <-s.Empty():
				return true
			default:
				return false
			}
		}
		a, b := open(t, req, dev)
		opening := make(chan error, 1)
		go func() {
			_, err := req.Open(context.Background(), "x")
			opening <- err
		}()
		in, err := dev.Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		req.GoAway("", "")
		if empty(req) {
			t.Error("empty, with two streams")
		}
		b.Write([]byte("hello"))
		b.Close()
		a.CloseWrite()
		if empty(req) || empty(dev) {
			t.Error("empty, with a stream that is being opened, or without going away")
		}
		in.Refuse("no", "")
		if err := <-opening; err == nil || !empty(req) {
			t.Errorf("not empty after the last stream, whose Open ended with %v", err)
		}
		dev.GoAway("", "") // which has none
		dev.GoAway("", "again")
		if !empty(dev) {
			t.Error("not empty without any stream")
		}
		req.Close()
		if got, err := io.ReadAll(a); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		stop()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, _ := pipePair(t, session.Config{})
		synctest.Wait() // else Close may come before Run and just hang up
		began := time.Now()
		req.Close()
		if err := <-req.ran; err != nil {
			t.Errorf("run of the closing side: %v", err)
		}
		if err := <-dev.ran; err != nil {
			t.Errorf("run of the other side: %v", err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
		wantErr(t, "this side", req.Err(), session.ErrClosed)
		wantErr(t, "this side", req.Err(), net.ErrClosed)
		var gone *session.GoAwayError
		if !errors.As(dev.Err(), &gone) || gone.Code != session.CodeClosed {
			t.Errorf("other side: %v", dev.Err())
		}
		req.Close()
		dev.Close()

		// Both at once.
		req, dev, _ = pipePair(t, session.Config{})
		synctest.Wait()
		var wg sync.WaitGroup
		wg.Go(func() { req.Close() })
		wg.Go(func() { dev.Close() })
		wg.Wait()
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// A side that does not take the farewell holds up Close for two seconds.
func TestCloseStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		s := start(t, session.NetTransport(a), session.Device, session.Config{})
		synctest.Wait()
		began := time.Now()
		s.Close()
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, b)
		s, err := session.New(session.NetTransport(a), session.Device, session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("stop it")
		ctx, cancel := context.WithCancelCause(context.Background())
		ran := make(chan error)
		go func() { ran <- s.Run(ctx) }()
		synctest.Wait()
		if err := s.Run(ctx); err == nil {
			t.Error("a second Run did not fail")
		}
		cancel(cause)
		wantErr(t, "run", <-ran, cause)
		wantErr(t, "cause", s.Err(), cause)
		<-s.Done()
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("the transport is still open")
		}

		// Close without Run closes the transport; a Run afterwards returns.
		a, b = net.Pipe()
		s, _ = session.New(session.NetTransport(a), session.Device, session.Config{})
		s.Close()
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("the transport is still open")
		}
		wantErr(t, "run", s.Run(context.Background()), nil)
	})
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Idle for a day: pings keep it alive, also with one side's pings off.
		req, dev, stop := pipePair(t, session.Config{})
		time.Sleep(24 * time.Hour)
		if req.Err() != nil || dev.Err() != nil {
			t.Error(req.Err(), dev.Err())
		}
		stop()

		// A side that is silent for 35 s is dead, even if it takes what it is sent.
		a, b := net.Pipe()
		defer b.Close()
		heard := make(chan int64, 1)
		go func() { n, _ := io.Copy(io.Discard, b); heard <- n }()
		s := start(t, session.NetTransport(a), session.Requester, session.Config{})
		began := time.Now()
		wantErr(t, "run", <-s.ran, session.ErrDead)
		if d := time.Since(began); d != 35*time.Second {
			t.Errorf("ended after %v", d)
		}
		if n := <-heard; n != 2*16 {
			t.Errorf("it was sent %d bytes, want two pings", n)
		}

		// So is one that takes nothing.
		a, b = net.Pipe()
		defer b.Close()
		s = start(t, session.NetTransport(a), session.Requester, session.Config{})
		wantErr(t, "run", <-s.ran, session.ErrDead)

		// Bytes prove life, also of a frame that takes minutes.
		a, b = net.Pipe()
		go io.Copy(io.Discard, b)
		s = start(t, session.NetTransport(a), session.Requester, session.Config{})
		for _, c := range "\x80\x00\x00\x10\x00\x00\x00\x000123456789abcde" {
			b.Write([]byte{byte(c)})
			time.Sleep(34 * time.Second)
		}
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		b.Close()
		wantErr(t, "run", <-s.ran, io.ErrUnexpectedEOF)

		// Switched off.
		a, b = net.Pipe()
		s = start(t, session.NetTransport(a), session.Requester, session.Config{KeepAlive: -1, DeadAfter: -1})
		time.Sleep(time.Hour)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		b.Close()
		wantErr(t, "run", <-s.ran, session.ErrLost)
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := longPath(time.Second)
		req := start(t, x, session.Requester, session.Config{})
		dev := start(t, y, session.Device, session.Config{})
		var wg sync.WaitGroup
		for _, s := range []*side{req, req, dev} {
			wg.Go(func() {
				if d, err := s.Ping(context.Background()); d != 2*time.Second || err != nil {
					t.Errorf("got %v, %v", d, err)
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := req.Ping(ctx)
		wantErr(t, "ping", err, context.DeadlineExceeded)
		req.Close()
		dev.Close()
		_, err = req.Ping(context.Background())
		wantErr(t, "ping", err, session.ErrClosed)
	})
}

// blocked starts one of every call that waits; full is not read. The returned function
// checks that all have ended with such an error.
func blocked(t *testing.T, s *side, a, full *session.Stream) (check func(want func(error) bool)) {
	t.Helper()
	calls := map[string]func() error{
		"read":      func() error { _, err := a.Read(make([]byte, 1)); return err },
		"write to":  func() error { _, err := a.WriteTo(io.Discard); return err },
		"write":     func() error { _, err := full.Write(make([]byte, 1<<20)); return err },
		"read from": func() error { _, err := full.ReadFrom(bytes.NewReader(make([]byte, 1<<20))); return err },
		"open":      func() error { _, err := s.Open(context.Background(), "never answered"); return err },
		"accept": func() error {
			for {
				if _, err := s.Accept(context.Background()); err != nil {
					return err
				}
			}
		},
		"done": func() error { <-s.Done(); return s.Err() },
	}
	results := map[string]chan error{}
	for name, call := range calls {
		c := make(chan error, 1)
		results[name] = c
		go func() { c <- call() }()
	}
	return func(want func(error) bool) {
		t.Helper()
		check := func(what string, err error) {
			t.Helper()
			if err == nil || !want(err) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		for name, c := range results {
			check(name, <-c)
		}
		// And so do all calls from now on.
		_, err := a.Write([]byte("x"))
		check("write after the end", err)
		_, err = a.Read(make([]byte, 1))
		check("read after the end", err)
		_, err = s.Open(context.Background(), "x")
		check("open after the end", err)
		_, err = s.Accept(context.Background())
		check("accept after the end", err)
		_, err = s.Ping(context.Background())
		check("ping after the end", err)
		check("close write after the end", a.CloseWrite())
		a.Close()
		_, err = a.Read(make([]byte, 1))
		wantErr(t, "read after close", err, net.ErrClosed)
		if n := s.NumStreams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
	}
}

// Whatever ends a session, every call that waits returns and says why.
func TestEndWhileBlocked(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(a *side, transport net.Conn)
		here, over func(error) bool
	}{
		"close": {
			func(a *side, _ net.Conn) { a.Close() },
			is(session.ErrClosed), isClosedByOther,
		},
		"transport": {
			func(_ *side, transport net.Conn) { transport.Close() },
			is(session.ErrLost), is(session.ErrLost),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, cb := net.Pipe()
				a, b, stop := pair(t, ca, cb, session.Config{})
				ax, bx := open(t, a, b)
				ay, by := open(t, a, b)
				checkA, checkB := blocked(t, a, ax, ay), blocked(t, b, bx, by)
				synctest.Wait()
				c.end(a, ca)
				checkA(c.here)
				checkB(c.over)
				stop()
			})
		})
	}
}

func is(want error) func(error) bool {
	return func(err error) bool { return errors.Is(err, want) }
}

func isClosedByOther(err error) bool {
	gone, ok := errors.AsType[*session.GoAwayError](err)
	return ok && gone.Code == session.CodeClosed
}

func TestConfig(t *testing.T) {
	err := session.Config{
		KeepAlive: time.Hour, AcceptBacklog: -1, InitialWindow: 1, MaxWindow: -1,
	}.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, field := range []string{"KeepAlive", "AcceptBacklog", "InitialWindow", "MaxWindow"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("fault of %s not reported: %v", field, err)
		}
	}
	if err := (session.Config{KeepAlive: -1}).Validate(); err == nil {
		t.Error("DeadAfter without KeepAlive was accepted")
	}
	if err := (session.Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if _, err := session.New(nil, 0, session.Config{}); err == nil {
		t.Error("role 0 was accepted")
	}
	if _, err := session.New(nil, session.Device, session.Config{InitialWindow: -1}); err == nil {
		t.Error("a negative window was accepted")
	}
}
