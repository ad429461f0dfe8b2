package deviceagent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// A bridge serves the targets its signal names and no others.
func TestStreamTargets(t *testing.T) {
	l := newLab(t, false, fake.Config{}, parse(t, "default=echo:", "echo", "web=echo:", "down=tcp:127.0.0.1:1", "tcp:127.0.0.1:1-9"), nil)
	for _, tt := range []struct {
		asked []string
		opens map[string]string // target → code and message; "": it opens
	}{
		{nil, map[string]string{
			"default": "",
			"echo":    `target_not_allowed: this bridge was opened for default, not for "echo"`,
			"":        `target_not_allowed: target "" is not on this device's list`,
		}},
		{[]string{"echo", "down", "127.0.0.1:2"}, map[string]string{
			"echo":        "",
			"down":        "dial_failed: 127.0.0.1:1: connection refused",
			"127.0.0.1:2": "dial_failed: 127.0.0.1:2: connection refused",
			"127.0.0.1:3": `target_not_allowed: this bridge was opened for echo,down,127.0.0.1:2, not for "127.0.0.1:3"`,
			"web":         `target_not_allowed: this bridge was opened for echo,down,127.0.0.1:2, not for "web"`,
			"default":     `target_not_allowed: this bridge was opened for echo,down,127.0.0.1:2, not for "default"`,
			"echo,down":   `target_not_allowed: target "echo,down" is not on this device's list`,
			"\xff\n":      `target_not_allowed: target "\xff\n" is not on this device's list`,
		}},
	} {
		s := l.session(tt.asked...)
		for target, want := range tt.opens {
			st, err := s.Open(t.Context(), target)
			if want == "" {
				if err != nil {
					t.Errorf("%v, open %q: %v", tt.asked, target, err)
					continue
				}
				exchange(t, st)
				st.Close()
				continue
			}
			var refused *session.OpenError
			if !errors.As(err, &refused) || refused.Code+": "+refused.Message != want {
				t.Errorf("%v, open %q: got %v, want %s", tt.asked, target, err, want)
			}
		}
		s.Close()
	}
}

func TestHalfClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		fmt.Fprintf(c, "%d bytes", n)
	})
	defer served.Wait()
	defer ln.Close()
	heard := make(chan string, 1)
	l := newLab(t, false, fake.Config{}, parse(t, "unix=unix:"+path,
		program(t, "count", func(c *net.TCPConn) {
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprintf(c, "%d bytes", n)
		}),
		program(t, "first", func(c *net.TCPConn) {
			io.WriteString(c, "that is all")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})), nil)
	s := l.session("count", "first", "unix")
	defer s.Close()
	for _, target := range []string{"count", "unix"} {
		st, err := s.Open(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		st.Write(make([]byte, 300<<10))
		st.CloseWrite()
		if b, err := io.ReadAll(st); err != nil || string(b) != "307200 bytes" {
			t.Errorf("%s: got %q, %v", target, b, err)
		}
		st.Close()
	}
	st, err := s.Open(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(st); err != nil || string(b) != "that is all" {
		t.Errorf("got %q, %v", b, err)
	}
	io.WriteString(st, "and still heard")
	st.CloseWrite()
	if got := <-heard; got != "and still heard" {
		t.Errorf("the target got %q", got)
	}
	until(t, "the streams are gone", func() bool { return s.NumStreams() == 0 })
}

// Who closes a stream has not taken back what was written, and neither does a
// whole session.
func TestStreamClosedAtOnce(t *testing.T) {
	got := make(chan string, 1)
	l := newLab(t, false, fake.Config{}, parse(t, program(t, "sink", func(c *net.TCPConn) {
		io.WriteString(c, "a banner that nobody reads")
		b, err := io.ReadAll(c)
		if err != nil {
			b = []byte(err.Error())
		}
		got <- string(b)
	})), nil)
	for _, whole := range []bool{false, true} {
		s := l.session("sink")
		st, err := s.Open(t.Context(), "sink")
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("x", 100<<10)
		io.WriteString(st, want)
		st.Close()
		if whole {
			s.Close()
		}
		if b := <-got; b != want {
			t.Errorf("the target got %d bytes, %.30q", len(b), b)
		}
		s.Close()
	}
}

func TestStreamFailures(t *testing.T) {
	got := make(chan error, 1)
	l := newLab(t, false, fake.Config{}, parse(t,
		program(t, "bad", func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		}),
		program(t, "sink", func(c *net.TCPConn) {
			_, err := io.Copy(io.Discard, c)
			got <- err
		})), nil)
	s := l.session("bad", "sink")
	st, err := s.Open(t.Context(), "bad")
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("x"))
	var reset *session.ResetError
	if _, err := io.ReadAll(st); !errors.As(err, &reset) || reset.Code != "target_failed" {
		t.Errorf("got %v", err)
	}
	st.Close()
	for name, cut := range map[string]func(*session.Stream){
		"reset":   func(st *session.Stream) { st.Reset("x", "y") },
		"session": func(*session.Stream) { s.Close() },
	} {
		if s.Err() != nil {
			s = l.session("sink")
		}
		if st, err = s.Open(t.Context(), "sink"); err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("half"))
		cut(st)
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the target reads %v", name, err)
		}
		st.Close()
	}
	s.Close()
}

func TestCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, true, fake.Config{}, parse(t, "echo"), func(c *deviceagent.Config) { c.MaxBridges, c.MaxStreams = 2, 3 })
		defer l.stop()
		s := l.session("echo")
		var streams []*session.Stream
		for range 3 {
			st, err := s.Open(context.Background(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, st)
		}
		var refused *session.OpenError
		if _, err := s.Open(context.Background(), "echo"); !errors.As(err, &refused) || refused.Code != "limit_reached" {
			t.Errorf("a fourth stream: %v", err)
		}
		streams[0].CloseWrite()
		io.Copy(io.Discard, streams[0])
		synctest.Wait()
		if st, err := s.Open(context.Background(), "echo"); err != nil {
			t.Errorf("in place of one that ended: %v", err)
		} else {
			exchange(t, st)
		}
		second := l.session("echo")
		_, err := client.Dial(context.Background(), l.client, client.Request{Device: device, Targets: []string{"echo"}})
		var e *client.Error
		if !errors.As(err, &e) || e.DeviceCode != "limit_reached" || !strings.Contains(e.Detail, "2 bridges are open") {
			t.Errorf("a third bridge: %v", err)
		}
		second.Close()
		synctest.Wait()
		l.session("echo").Close()
		s.Close()
	})
}

// All bridges of an agent share the memory that windows may grow by.
func TestWindowMemory(t *testing.T) {
	for memory, want := range map[int]int{1 << 20: 1 << 20, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, true, fake.Config{}, parse(t, "echo"), func(c *deviceagent.Config) { c.WindowMemory = memory })
			defer l.stop()
			most := 0
			for range 2 {
				s := l.session("echo")
				defer s.Close()
				st, err := s.Open(context.Background(), "echo")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					st.Write(make([]byte, 8<<20))
					st.CloseWrite()
				}()
				for buf := make([]byte, 64<<10); err == nil; _, err = st.Read(buf) {
					most = max(most, l.agent.Windows().Used())
				}
				if err != io.EOF {
					t.Error(err)
				}
			}
			if most != want {
				t.Errorf("windows grew by %d of %d", most, memory)
			}
			synctest.Wait()
			if n := l.agent.Windows().Used(); n != 0 {
				t.Errorf("%d bytes were not given back", n)
			}
		})
	}
}

// Targets that hang are given up, each by itself, and at the latest with their
// bridge.
func TestHangingTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := parse(t, "echo")
		given := make(chan time.Duration, 2)
		if err := targets.Add("hangs", dialFunc(func(ctx context.Context) (net.Conn, error) {
			start := time.Now()
			<-ctx.Done()
			given <- time.Since(start)
			return nil, errors.New("given up")
		})); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, true, fake.Config{}, targets, func(c *deviceagent.Config) { c.DialTimeout = 7 * time.Second })
		defer l.stop()
		s := l.session("echo", "hangs")
		answer := make(chan error, 1)
		go func() {
			_, err := s.Open(context.Background(), "hangs")
			answer <- err
		}()
		st, err := s.Open(context.Background(), "echo")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		var refused *session.OpenError
		if err := <-answer; !errors.As(err, &refused) || refused.Code != "dial_failed" || refused.Message != "given up" {
			t.Errorf("got %v", err)
		}
		if d := <-given; d != 7*time.Second {
			t.Errorf("given up after %v", d)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.Open(ctx, "hangs"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.Close()
		if d := <-given; d > 2*time.Second {
			t.Errorf("given up after %v, with its session", d)
		}
	})
}

// When ctx ends all bridges end, Run returns with nothing left, and may be called
// again.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, true, fake.Config{}, parse(t, "echo"), nil)
		defer l.stop()
		for range 3 {
			s, c := l.session("echo"), l.raw("echo")
			st, err := s.Open(context.Background(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, st)
			exchange(t, c)
			stopped := make(chan error)
			go func() { stopped <- l.stopAgent() }()
			wantClose(t, c, wire.CloseGoingAway, "peer_lost: the agent stops")
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if _, err := st.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("the stream ends with %v", err)
			}
			<-s.Done()
			s.Close()
			_, err = client.Dial(context.Background(), l.client, client.Request{Device: device, Targets: []string{"echo"}})
			var e *client.Error
			if !errors.As(err, &e) || e.Code != wire.DeviceOffline {
				t.Errorf("got %v", err)
			}
			l.startAgent()
		}
	})
}

// A relay that takes the subprotocol away gets no session.
func TestSubprotocolLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := netfault.NewListener()
		defer ln.Close()
		closed := make(chan string, 1)
		go serveUpgrades(ln, "", func(c net.Conn) { closed <- readClose(c) })
		var log testlog.Buffer
		handling(t, func(c *deviceagent.Config) {
			c.Logger = newLogger(&log)
			c.Dialer.Dial = ln.Dial
		}, func(_ *deviceagent.Agent, handle func(s *sig) string) {
			s := good()
			s.AcceptURL = "ws://127.0.0.1/"
			handle(s)
			if got := <-closed; !strings.Contains(got, "took the subprotocol") {
				t.Errorf("closed with %q", got)
			}
			time.Sleep(time.Second) // the agent is through with it
		})
		if !strings.Contains(log.String(), "did not agree") {
			t.Errorf("log:\n%s", &log)
		}
	})
}

// After a silence that was long enough a bridge is over at once: nobody waits for an
// answer to a goodbye.
func TestRequesterSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := netfault.NewListener()
		defer ln.Close()
		go serveUpgrades(ln, wire.SessionV1, func(c net.Conn) { io.Copy(io.Discard, c) })
		var log testlog.Buffer
		handling(t, func(c *deviceagent.Config) {
			c.Logger = newLogger(&log)
			c.Dialer.Dial = ln.Dial
			c.Session.KeepAlive, c.Session.DeadAfter = 10*time.Second, 20*time.Second
		}, func(_ *deviceagent.Agent, handle func(s *sig) string) {
			s := good()
			s.AcceptURL = "ws://127.0.0.1/"
			handle(s)
			time.Sleep(time.Minute) // the bubble's
		})
		if !strings.Contains(log.String(), `duration=20s reason="session: the other side is dead`) {
			t.Errorf("log:\n%s", &log)
		}
	})
}
