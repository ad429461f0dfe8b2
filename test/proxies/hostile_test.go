//go:build proxies && linux

package proxies_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// cutter is a proxy that cuts connections of which one direction is silent, as load balancers
// and NATs do.
type cutter struct {
	silence time.Duration
	to      string
	cuts    atomic.Int64
}

// start returns the address to dial. It ends with the test.
func (c *cutter) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(ctx, near) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func (c *cutter) serve(ctx context.Context, near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	pass := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			from.SetReadDeadline(time.Now().Add(c.silence))
			n, err := from.Read(buf)
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					break
				}
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.cuts.Add(1)
			}
			if err != nil {
				break
			}
		}
		near.Close()
		far.Close()
	}
	wg.Go(func() { pass(near, far) })
	pass(far, near)
	wg.Wait()
}

// Two proxies, one on each side of the relay, cut what is silent. With the relay's pings no
// tunnel is; without them it is cut, so the proxies do what they should.
func TestCutsIdle(t *testing.T) {
	t.Parallel()
	silence := duration(t, "PROXIES_CUT", 2*time.Second)
	ping := silence / 2
	if silence >= 20*time.Second {
		ping = 15 * time.Second
	}
	for _, tt := range []struct {
		name    string
		base    int
		silence time.Duration
		env     []string
		lives   bool
	}{
		{"pings", 9000, silence, []string{"RELAY_PING=" + ping.String()}, true},
		// The two ends of the session ping, too, every 15 s.
		{"no pings", 9010, 2 * time.Second, []string{"RELAY_PING=0", "RELAY_DEAD=0"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			relay := net.JoinHostPort("127.0.0.1", port(tt.base))
			devices, users := &cutter{silence: tt.silence, to: relay}, &cutter{silence: tt.silence, to: relay}
			w := newWorld(t, plan{nodes: 1, base: tt.base, url: "ws://" + devices.start(t), userURL: "ws://" + users.start(t), relayEnv: tt.env})
			tunnel, local := w.tunnel("ssh")
			s := w.session(local["ssh"])
			if tt.lives {
				w.idle(s, 3*silence+silence/2)
				if n := devices.cuts.Load() + users.cuts.Load(); n > 0 || len(tunnel.Events("lost")) > 0 {
					t.Errorf("%d connections were cut; the tunnel says %v", n, tunnel.Events("lost"))
				}
				return
			}
			tunnel.Event("lost", 1)
			if devices.cuts.Load()+users.cuts.Load() == 0 {
				t.Error("it was lost, but not by the proxies")
			}
		})
	}
}

// answerer is a proxy that takes WebSockets apart and answers pings itself, so that neither side
// hears by them whether the other lives.
type answerer struct {
	to   string // ws://host:port
	wait sync.WaitGroup
}

func (a *answerer) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: a, BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		cancel()
		server.Close()
		<-done
		a.wait.Wait() // of hijacked connections
	})
	return l.Addr().String()
}

func (a *answerer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	a.wait.Add(1)
	defer a.wait.Done()
	var offered []string
	for _, p := range strings.Split(r.Header.Get("Sec-Websocket-Protocol"), ",") {
		if p = strings.TrimSpace(p); p != "" {
			offered = append(offered, p)
		}
	}
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-Api-Key"} {
		if v := r.Header.Get(name); v != "" {
			header.Set(name, v)
		}
	}
	far, res, err := websocket.Dial(r.Context(), a.to+r.URL.RequestURI(), &websocket.DialOptions{Subprotocols: offered, HTTPHeader: header})
	if err != nil {
		status := http.StatusBadGateway
		if res != nil {
			status = res.StatusCode
		}
		http.Error(rw, "no", status)
		return
	}
	defer far.CloseNow()
	near, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{far.Subprotocol()}})
	if err != nil {
		return
	}
	defer near.CloseNow()
	far.SetReadLimit(-1)
	near.SetReadLimit(-1)
	var wg sync.WaitGroup
	pass := func(to, from *websocket.Conn) {
		defer to.CloseNow()
		defer from.CloseNow()
		for {
			kind, msg, err := from.Reader(r.Context())
			if err != nil {
				return
			}
			out, err := to.Writer(r.Context(), kind)
			if err != nil {
				return
			}
			if _, err := io.Copy(out, msg); err != nil {
				return
			}
			if out.Close() != nil {
				return
			}
		}
	}
	wg.Go(func() { pass(near, far) })
	pass(far, near)
	wg.Wait()
}

// deadAfter is session.DefaultDeadAfter, which is no setting of the programs.
const deadAfter = 35 * time.Second

// Behind a proxy that answers pings itself, the relay cannot see that a device is gone. The
// two ends of a session do, within 35 s, and so do both sides of the relay then.
func TestAnswersPings(t *testing.T) {
	t.Parallel()
	const base = 9020
	relay := "ws://" + net.JoinHostPort("127.0.0.1", port(base))
	devices, users := &answerer{to: relay}, &answerer{to: relay}
	w := newWorld(t, plan{
		nodes: 1, base: base, url: "ws://" + devices.start(t), userURL: "ws://" + users.start(t),
		relayEnv: []string{"RELAY_PING=1s", "RELAY_DEAD=3s"}, // the relay would notice soon
	})
	tunnel, local := w.tunnel("ssh")
	s := w.session(local["ssh"])
	// It lives for longer than the relay is patient, and pings do not come through.
	w.idle(s, 5*time.Second)
	began := time.Now()
	w.agent.Signal(syscall.SIGSTOP) // its kernel still takes bytes
	tunnel.Event("lost", 1)
	took := time.Since(began)
	if took > deadAfter+time.Second {
		t.Errorf("it took %v; at most %v is right", took, deadAfter)
	}
	if strings.Contains(w.nodes[0].String(), "peer_dead") {
		t.Error("the relay noticed first: the proxy does not answer pings")
	}
	s.Awaits("ends, as its tunnel is lost", s.Ended)
	t.Logf("noticed after %v", took.Round(time.Millisecond))
}
