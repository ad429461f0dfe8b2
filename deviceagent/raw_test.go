package deviceagent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
)

// wantClose reads to the end and checks the close frame.
func wantClose(t *testing.T, c *ws.Conn, code int, reason string) string {
	t.Helper()
	data, err := io.ReadAll(c)
	var e *ws.CloseError
	if code == wire.CloseNormal && err != nil || code != wire.CloseNormal && (!errors.As(err, &e) || e.Code != code || e.Reason != reason) {
		t.Errorf("read ended with %v, want %d %q", err, code, reason)
	}
	c.Close()
	return string(data)
}

// websocketbridge's signal has two fields, and its device has one target.
func TestTwoFieldSignal(t *testing.T) {
	l := newLab(t, false, fake.Config{Mode: fake.Message}, parse(t, "default=echo:"), nil)
	l.change = func(s *signaler.Signal) {
		*s = signaler.Signal{AcceptURL: s.AcceptURL, RequestData: s.RequestData, DeviceID: s.DeviceID} // the hub reads the last one
	}
	c := l.raw()
	exchange(t, c)
	c.Close()
	l.says("bridge closed")
}

func TestRawTargetDown(t *testing.T) {
	l := newLab(t, false, fake.Config{}, parse(t, "down=tcp:127.0.0.1:1", "gone=unix:/no/such/socket"), nil)
	for target, want := range map[string]string{
		"down": `device "pump-7" refused: dial_failed: 127.0.0.1:1: connection refused`,
		"gone": `device "pump-7" refused: dial_failed: /no/such/socket: no such file or directory`,
	} {
		_, err := client.DialRaw(t.Context(), l.client, client.Request{Device: device, Targets: []string{target}})
		var e *client.Error
		if !errors.As(err, &e) || e.Code != wire.DeviceRefused || e.DeviceCode != "dial_failed" || e.Detail != want {
			t.Errorf("got %+v, want %q", e, want)
		}
	}
}

func TestRawTargetEnds(t *testing.T) {
	l := newLab(t, false, fake.Config{}, parse(t, program(t, "date", func(c *net.TCPConn) { io.WriteString(c, "noon") })), nil)
	if got := wantClose(t, l.raw("date"), wire.CloseNormal, ""); got != "noon" {
		t.Errorf("got %q", got)
	}
	l.says("bridge closed")
	l.says("reason=done")
}

// A target that says no and closes while the request still comes is heard.
func TestRawTargetEndsEarly(t *testing.T) {
	answer := strings.Repeat("no", 16<<10)
	l := newLab(t, false, fake.Config{}, parse(t, program(t, "web", func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 100))
		io.WriteString(c, answer)
		c.CloseWrite()
		io.CopyN(io.Discard, c, 1<<20)
		c.CloseRead()
	})), nil)
	c := l.raw("web")
	go func() {
		for {
			if _, err := c.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}()
	if got := wantClose(t, c, wire.CloseNormal, ""); got != answer {
		t.Errorf("got %d bytes of %d", len(got), len(answer))
	}
}

func TestRawTargetFails(t *testing.T) {
	for name, upload := range map[string]bool{"idle": false, "while it is written to": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, false, fake.Config{}, parse(t, program(t, "bad", func(c *net.TCPConn) {
				io.ReadFull(c, make([]byte, 100))
				c.SetLinger(0)
			})), nil)
			for range 5 {
				c := l.raw("bad")
				c.Write(make([]byte, 100))
				if upload {
					go func() {
						for {
							if _, err := c.Write(make([]byte, 32<<10)); err != nil {
								return
							}
						}
					}()
				}
				wantClose(t, c, wire.CloseInternal, "the target's connection failed")
			}
			l.says("reset by peer")
		})
	}
}

func TestRawRequesterCloses(t *testing.T) {
	got := make(chan string, 1)
	read := func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err != nil {
			b = []byte(err.Error())
		}
		got <- string(b)
	}
	l := newLab(t, false, fake.Config{}, parse(t, program(t, "sink", read), program(t, "chatty", func(c *net.TCPConn) {
		go io.Copy(c, zeros{})
		read(c)
	})), nil)
	for _, target := range []string{"sink", "chatty"} {
		c := l.raw(target)
		io.WriteString(c, "all of it")
		if target == "chatty" {
			go io.Copy(io.Discard, c)
		}
		c.Close()
		if s := <-got; s != "all of it" {
			t.Errorf("%s got %q", target, s)
		}
	}
}

// A target never takes a cut for an end.
func TestRawBridgeLost(t *testing.T) {
	for name, cut := range map[string]func(l *lab, c *ws.Conn){
		"requester vanishes": func(_ *lab, c *ws.Conn) { c.CloseNow() },
		"requester leaves":   func(_ *lab, c *ws.Conn) { c.CloseWith(wire.CloseGoingAway, "") },
		"relay stops":        func(l *lab, _ *ws.Conn) { l.stopRelay() },
		"agent stops":        func(l *lab, _ *ws.Conn) { l.stopAgent() },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			l := newLab(t, false, fake.Config{}, parse(t, program(t, "sink", func(c *net.TCPConn) {
				_, err := io.Copy(io.Discard, c)
				got <- err
			})), nil)
			c := l.raw("sink")
			defer c.CloseNow()
			io.WriteString(c, "half")
			go io.Copy(io.Discard, c)
			cut(l, c)
			if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target reads %v", err)
			}
		})
	}
}

// The agent's end closes with 1001, also over a target that takes and says nothing.
func TestRawAgentStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := parse(t)
		near, far := net.Pipe()
		defer far.Close()
		if err := targets.Add("stuck", dialFunc(func(context.Context) (net.Conn, error) { return near, nil })); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, true, fake.Config{}, targets, nil)
		defer l.stop()
		c := l.raw("stuck")
		c.Write(make([]byte, 100))
		synctest.Wait()
		done := make(chan error)
		go func() { done <- l.stopAgent() }()
		wantClose(t, c, wire.CloseGoingAway, "peer_lost: the agent stops")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A target that stays after its requester has gone is let go after a while.
func TestRawTargetStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := parse(t)
		near, far := net.Pipe() // without half-close: it hears nothing of an end
		defer far.Close()
		if err := targets.Add("t", dialFunc(func(context.Context) (net.Conn, error) { return near, nil })); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, true, fake.Config{}, targets, nil)
		defer l.stop()
		start := time.Now()
		l.raw("t").Close()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != 5*time.Second {
			t.Errorf("read %v after %v", err, time.Since(start))
		}
	})
}

// A target that takes nothing does not hold its bridge for ever after the
// requester has gone, although nobody reads the WebSocket then.
func TestRawTargetStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := parse(t)
		near, far := net.Pipe()
		defer far.Close()
		if err := targets.Add("stuck", dialFunc(func(context.Context) (net.Conn, error) { return near, nil })); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, true, fake.Config{}, targets, func(c *deviceagent.Config) { c.MaxBridges = 1 })
		defer l.stop()
		c := l.raw("stuck")
		c.Write(make([]byte, 100))
		synctest.Wait()
		c.CloseNow()
		time.Sleep(2 * time.Minute) // the bubble's clock
		if log := l.log.String(); !strings.Contains(log, "bridge closed") {
			t.Errorf("the bridge is still held:\n%s", log)
			far.Close()
		}
	})
}

// The relay is away and comes back before the signal has expired.
func TestDialBackRetries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		away  time.Duration
		proxy bool // something answers in the relay's place
		dials bool // in the end
	}{
		{"a while", 10 * time.Second, false, true},
		{"behind a proxy that stays", 10 * time.Second, true, true},
		{"too long", 100 * time.Second, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := netfault.NewListener()
				go serveAnswers(ln, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
				defer ln.Close()
				back := time.Now().Add(tt.away)
				var tries atomic.Int32
				l := newLab(t, true, fake.Config{}, parse(t, "default=echo:"), func(c *deviceagent.Config) {
					dial := c.Dialer.Dial
					c.Dialer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if tries.Add(1); time.Now().After(back) {
							return dial(ctx, network, addr)
						}
						if tt.proxy {
							return ln.Dial(ctx, network, addr)
						}
						return nil, errors.New("no route")
					}
				})
				defer l.stop()
				c, err := client.DialRaw(context.Background(), l.client, client.Request{Device: device})
				if (err == nil) != tt.dials {
					t.Fatalf("got %v", err)
				}
				if c != nil {
					exchange(t, c)
					c.Close()
				}
				time.Sleep(time.Minute)
				if n := tries.Load(); n < 6 || n > 40 {
					t.Errorf("%d tries", n)
				}
				if tt.dials != strings.Contains(l.log.String(), "bridge open") {
					t.Errorf("log:\n%s", &l.log)
				}
			})
		})
	}
}

// serveAnswers gives the same answer to all.
func serveAnswers(ln net.Listener, answer string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 64<<10)
			for n := 0; !strings.Contains(string(buf[:n]), "\r\n\r\n"); {
				m, err := c.Read(buf[n:])
				if err != nil {
					return
				}
				n += m
			}
			io.WriteString(c, answer)
		}()
	}
}

// What the relay itself says is final, but that a node cannot reach another is that
// node's view.
func TestDialBackAnswered(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		tries        int
	}{
		{"gone", "HTTP/1.1 410 Gone\r\n\r\n" + `{"status":410,"code":"bridge_gone"}`, 1},
		{"owner lost", "HTTP/1.1 502 Bad Gateway\r\n\r\n" + `{"status":502,"code":"owner_lost"}`, 3},
		{"no relay", "HTTP/1.1 404 Not Found\r\n\r\n", 1},
		{"moved", "HTTP/1.1 301 Moved Permanently\r\nLocation: ws://evil.test/\r\n\r\n", 1},
		{"found", "HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n", 1},
		{"redirected", "HTTP/1.1 307 Temporary Redirect\r\nLocation: ws://127.0.0.1:22/\r\n\r\n", 1},
		{"redirected for ever", "HTTP/1.1 308 Permanent Redirect\r\nLocation: //evil.test/\r\n\r\n", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := netfault.NewListener()
				go serveAnswers(ln, tt.answer)
				defer ln.Close()
				tries := 0
				handling(t, func(c *deviceagent.Config) {
					c.Dialer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						tries++
						if addr != "127.0.0.1:80" {
							t.Errorf("dialled %s", addr)
						}
						return ln.Dial(ctx, network, addr)
					}
				}, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
					s := good()
					s.AcceptURL = "ws://127.0.0.1/"
					if got := handle(s); got != "" {
						t.Errorf("got %q", got)
					}
					time.Sleep(time.Minute)
				})
				if tries != tt.tries {
					t.Errorf("%d tries", tries)
				}
			})
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

var _ session.Transport = (*ws.Conn)(nil)
