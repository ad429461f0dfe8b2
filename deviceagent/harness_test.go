package deviceagent_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

const device = "pump-7"

// A lab is a relay, a fake hub and an agent, in memory if the test is in a bubble.
type lab struct {
	t      *testing.T
	hub    *fake.Hub
	ln     *netfault.Listener
	log    testlog.Buffer // the agent's, with everything
	agent  *deviceagent.Agent
	client client.Config
	change func(*signaler.Signal) // before the hub gets it; may be nil

	stopAgent func() error
	stopRelay func()
}

type signalFunc func(context.Context, *signaler.Signal) error

func (f signalFunc) Signal(ctx context.Context, s *signaler.Signal) error { return f(ctx, s) }

// newLab starts all three. stop must be called at the end of a bubble.
func newLab(t *testing.T, inMemory bool, hub fake.Config, targets *deviceagent.Targets, change func(*deviceagent.Config)) *lab {
	t.Helper()
	l := &lab{t: t, hub: fake.New(hub)}
	dialer := ws.Dialer{Proxy: netfault.NoProxy}
	var ln net.Listener
	host := "relay.test"
	if inMemory {
		l.ln = netfault.NewListener()
		ln, dialer.Dial = l.ln, l.ln.Dial
	} else {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		host = ln.Addr().String()
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	srv, err := relay.New(relay.Config{
		PublicURL: "ws://" + host, Auth: auth.AllowAll{}, Keys: ring, Drain: -1, Signaler: signalFunc(func(ctx context.Context, s *signaler.Signal) error {
			if l.change != nil {
				l.change(s)
			}
			return l.hub.Signal(ctx, s)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Run(ctx, relay.Listeners{Public: ln})
	}()
	l.stopRelay = func() {
		cancel()
		<-done
	}
	cfg := deviceagent.Config{
		DeviceID: device, Source: l.hub.Source(device), RelayHosts: []string{"*"}, AllowPlain: true, Targets: targets, Dialer: dialer,
		Logger: newLogger(&l.log),
	}
	if change != nil {
		change(&cfg)
	}
	if l.agent, err = deviceagent.New(cfg); err != nil {
		t.Fatal(err)
	}
	l.startAgent()
	l.client = client.Config{URL: "ws://" + host, AllowPlain: true, Dialer: dialer}
	if !inMemory {
		t.Cleanup(l.stop)
	}
	return l
}

func (l *lab) startAgent() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.agent.Run(ctx) }()
	l.stopAgent = sync.OnceValue(func() error {
		cancel()
		return <-ran
	})
	if err := l.hub.WaitOnline(context.Background(), device); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) stop() {
	if err := l.stopAgent(); err != nil {
		l.t.Errorf("agent: %v", err)
	}
	l.stopRelay()
	if l.ln != nil {
		time.Sleep(time.Second) // the bubble's: net/http holds a connection for a while after an early answer
	}
	if strings.Contains(l.log.String(), "bridgeToken") {
		l.t.Errorf("a token is in the log:\n%s", &l.log)
	}
	if l.t.Failed() {
		l.t.Logf("the agent's log:\n%s", &l.log)
	}
}

// says waits until the agent has logged text.
func (l *lab) says(text string) {
	l.t.Helper()
	until(l.t, "the agent logs "+text, func() bool { return strings.Contains(l.log.String(), text) })
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (l *lab) session(targets ...string) *client.Session {
	l.t.Helper()
	s, err := client.Dial(context.Background(), l.client, client.Request{Device: device, Targets: targets})
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) raw(targets ...string) *ws.Conn {
	l.t.Helper()
	c, err := client.DialRaw(context.Background(), l.client, client.Request{Device: device, Targets: targets})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// parse is ParseTargets for tests.
func parse(t *testing.T, entries ...string) *deviceagent.Targets {
	t.Helper()
	targets, err := deviceagent.ParseTargets(entries)
	if err != nil {
		t.Fatal(err)
	}
	return targets
}

// dialFunc is a target in a sentence.
type dialFunc func(context.Context) (net.Conn, error)

func (f dialFunc) Dial(ctx context.Context) (net.Conn, error) { return f(ctx) }
func (dialFunc) String() string                               { return "a test's" }

// program is a target whose every connection f serves.
func program(t *testing.T, name string, f func(c *net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return name + "=tcp:" + ln.Addr().String()
}

// exchange sends a word and wants it back.
func exchange(t *testing.T, c io.ReadWriter) {
	t.Helper()
	go io.WriteString(c, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
}

func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serveUpgrades answers every handshake with a 101 and a subprotocol, if not "".
func serveUpgrades(ln net.Listener, subprotocol string, f func(net.Conn)) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Upgrade(w, r, subprotocol, nil)
		if err != nil {
			return
		}
		defer c.Close()
		f(c)
	})}
	srv.Serve(ln)
}

// readClose returns the reason of the first frame, which has to be a close frame.
func readClose(c net.Conn) string {
	buf := make([]byte, 256)
	n, _ := io.ReadAtLeast(c, buf, 6)
	h, size, err := ws.ParseHeader(buf[:n])
	if err != nil || h.Opcode != ws.OpClose {
		return "no close frame"
	}
	payload := buf[size : size+int(h.Len)]
	ws.Mask(payload, payload, h.Key, 0)
	_, reason, _ := ws.ParseClose(payload)
	return reason
}

type sig = signaler.Signal
