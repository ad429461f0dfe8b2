package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

func TestDial(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		var bridge, target string
		l.refuse = func(s *signaler.Signal) *signaler.Refusal {
			bridge, target = s.BridgeID, s.Target
			return nil
		}
		s, err := client.Dial(context.Background(), l.client, request("ssh", "web"))
		if err != nil {
			t.Fatal(err)
		}
		if s.BridgeID == "" || s.BridgeID != bridge || target != "ssh,web" {
			t.Errorf("bridge %q for %q, signal %q", s.BridgeID, target, bridge)
		}
		st, err := s.Open(context.Background(), "ssh")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		if s.Why() != nil {
			t.Errorf("a session that lives ended: %v", s.Why())
		}
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		closers.Wait()
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if !errors.Is(s.Why(), session.ErrClosed) {
			t.Errorf("why: %v", s.Why())
		}
	})
}

// ctx bounds the dialling only.
func TestDialContext(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := client.Dial(ctx, l.client, request())
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		st, err := s.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		s.Close()
		if err := l.hub.SetFaults(fake.Faults{LoseAll: true}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeoutCause(context.Background(), time.Second, errors.New("too slow for me"))
		defer cancel()
		if _, err := client.Dial(ctx, l.client, request()); err == nil || err.Error() != "dial relay.test: too slow for me" {
			t.Errorf("got %v", err)
		}
	})
}

func TestDialRaw(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		l.stream = nil
		c, err := client.DialRaw(context.Background(), l.client, request("x"))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c)
		c.Close()
		l.raw = func(c *ws.Conn) { c.CloseWith(wire.CloseInternal, "the target's connection failed") }
		if c, err = client.DialRaw(context.Background(), l.client, request("x")); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(c)
		if e := wantError(t, client.Explain(err), ""); e.Close != wire.CloseInternal || e.Detail != "the target's connection failed" {
			t.Errorf("got %+v", e)
		}
		c.Close()
	})
}

// A device that does not know the session protocol is not left with an open bridge.
func TestNoSession(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		l.stream = nil
		ended := make(chan error, 1)
		l.raw = func(c *ws.Conn) {
			_, err := io.ReadAll(c)
			c.Close()
			ended <- err
		}
		if _, err := client.Dial(context.Background(), l.client, request()); !errors.Is(err, client.ErrNoSession) {
			t.Errorf("got %v", err)
		}
		var e *ws.CloseError
		if err := <-ended; !errors.As(err, &e) || e.Code != wire.ClosePolicy {
			t.Errorf("the device's bridge ends with %v", err)
		}
	})
}

func TestRefused(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.MaxBridges = 1 }, func(t *testing.T, l *lab) {
		l.refuse = func(*signaler.Signal) *signaler.Refusal {
			return &signaler.Refusal{Code: "target_not_allowed", Message: "not that one"}
		}
		_, err := client.Dial(context.Background(), l.client, request("x"))
		e := wantError(t, err, wire.DeviceRefused)
		if e.Status != 409 || e.DeviceCode != "target_not_allowed" || e.Detail != `device "pump-7" refused: target_not_allowed: not that one` || e.BridgeID == "" || e.Hint == "" || e.Temporary() {
			t.Errorf("got %+v", e)
		}
		_, err = client.Dial(context.Background(), l.client, client.Request{Device: "pump-8"})
		wantError(t, err, wire.DeviceNotFound)
		l.refuse = nil
		s, err := client.Dial(context.Background(), l.client, request())
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.DialRaw(context.Background(), l.client, request())
		if e := wantError(t, err, wire.LimitReached); e.RetryAfter != time.Second || !e.Temporary() {
			t.Errorf("got %+v", e)
		}
		s.Close()
		time.Sleep(time.Second) // the relay is through with it
		l.goneOffline()
		_, err = client.DialRaw(context.Background(), l.client, request())
		if e := wantError(t, err, wire.DeviceOffline); !e.Temporary() {
			t.Errorf("got %+v", e)
		}
	})
}

func TestWhy(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(l *lab, device *session.Session)
		code wire.Code // of an *Error; "": it is none
	}{
		{"relay is killed", func(l *lab, _ *session.Session) { l.srv.Kill() }, wire.Draining},
		{"device closes", func(_ *lab, s *session.Session) { s.Close() }, ""},
		{"bridge gets old", func(*lab, *session.Session) { time.Sleep(time.Hour) }, wire.MaxDuration},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *relay.Config) { c.MaxDuration = time.Hour }, func(t *testing.T, l *lab) {
				devices := make(chan *session.Session, 1)
				l.session = func(s *session.Session) { devices <- s }
				s, err := client.Dial(context.Background(), l.client, request())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Open(context.Background(), "x"); err != nil { // then the device's Run runs as well
					t.Fatal(err)
				}
				go tt.end(l, <-devices)
				<-s.Done()
				if tt.code == "" {
					var gone *session.GoAwayError
					if !errors.As(s.Why(), &gone) || gone.Code != session.CodeClosed {
						t.Errorf("got %v", s.Why())
					}
				} else if e := wantError(t, s.Why(), tt.code); e.Detail == "" || e.Close == 0 || e.Status != 0 {
					t.Errorf("got %+v", e)
				}
				s.Close()
			})
		})
	}
}

// A device has no business opening streams, unless its requester wants that.
func TestDeviceOpens(t *testing.T) {
	for _, most := range []int{0, 1} {
		inBubble(t, nil, func(t *testing.T, l *lab) {
			got := make(chan error, 1)
			l.session = func(s *session.Session) {
				_, err := s.Open(context.Background(), "back")
				got <- err
			}
			l.client.Session.MaxStreams = most
			s, err := client.Dial(context.Background(), l.client, request())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var refused *session.OpenError
			if most == 0 {
				if err := <-got; !errors.As(err, &refused) || refused.Code != session.CodeLimitReached {
					t.Errorf("got %v", err)
				}
				return
			}
			in, err := s.Accept(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			in.Accept()
			if err := <-got; err != nil {
				t.Error(err)
			}
		})
	}
}
