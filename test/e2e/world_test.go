// Package e2e_test runs relay, agent and clients together, over real sockets on
// the loopback address, with the fake hub between them.
package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/testlog"
)

const device = "pump-7"

// patience bounds every wait for a state. It is not a measure of anything.
const patience = 30 * time.Second

// options change a world before it is made.
type options struct {
	relay   func(*relay.Config)
	agent   func(*deviceagent.Config)
	hub     fake.Config
	targets []string
	noAgent bool
}

// world is one relay, one hub and one device.
type world struct {
	t      *testing.T
	hub    *fake.Hub
	signal *countingSignaler
	ring   *token.Ring
	log    *testlog.Buffer
	opts   options

	node      *relay.Server
	nodeAddr  string
	stopNode  func()
	stopAgent func()
	client    client.Config
}

type countingSignaler struct {
	signaler.Signaler
	mu sync.Mutex
	n  int
}

func (c *countingSignaler) Signal(ctx context.Context, s *signaler.Signal) error {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Signaler.Signal(ctx, s)
}

func (c *countingSignaler) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, hub: fake.New(o.hub), log: new(testlog.Buffer), opts: o}
	w.signal = &countingSignaler{Signaler: w.hub}
	var err error
	if w.ring, err = token.NewRing(token.NewKey()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s := w.log.String()
			t.Logf("the end of the log:\n%s", s[max(0, len(s)-8000):])
		}
	})
	w.startNode()
	if !o.noAgent {
		w.startAgent()
	}
	return w
}

// startNode starts the relay, at its old address if it had one.
func (w *world) startNode() {
	w.t.Helper()
	addr := w.nodeAddr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodeAddr = ln.Addr().String()
	cfg := relay.Config{
		PublicURL: "ws://" + w.nodeAddr, Signaler: w.signal, Keys: w.ring, Auth: auth.AllowAll{}, Drain: -1,
		Logger: slog.New(slog.NewTextHandler(w.log, nil)).With("part", "relay"),
	}
	if w.opts.relay != nil {
		w.opts.relay(&cfg)
	}
	if w.node, err = relay.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	w.client.URL = cfg.PublicURL
	w.stopNode = w.run(func(ctx context.Context) error { return w.node.Run(ctx, relay.Listeners{Public: ln}) })
}

func (w *world) startAgent() {
	w.t.Helper()
	targets, err := deviceagent.ParseTargets(append([]string{"echo"}, w.opts.targets...))
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := deviceagent.Config{
		DeviceID: device, Source: w.hub.Source(device), RelayHosts: []string{"127.0.0.1"}, Targets: targets, MaxBridges: 100,
		Logger: slog.New(slog.NewTextHandler(w.log, nil)).With("part", "agent"),
	}
	if w.opts.agent != nil {
		w.opts.agent(&cfg)
	}
	agent, err := deviceagent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.stopAgent = w.run(agent.Run)
	if err := w.hub.WaitOnline(w.ctx(), device); err != nil {
		w.t.Fatal(err)
	}
}

// run starts a part of the world and returns what stops it and waits for its
// end. The end of the test does so, too.
func (w *world) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			w.t.Errorf("a part failed: %v", err)
		}
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			w.t.Errorf("a part does not stop")
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// dial opens a session for targets.
func (w *world) dial(targets ...string) *client.Session {
	w.t.Helper()
	s, err := client.Dial(w.ctx(), w.client, client.Request{Device: device, Targets: targets})
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// until waits for a state that nobody announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if ok() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// tcpTarget serves connections until the test ends and returns its target spec.
func tcpTarget(t *testing.T, name string, serve func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return name + "=tcp:" + ln.Addr().String()
}

// webTarget serves HTTP and returns its target spec.
func webTarget(t *testing.T, name string, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return fmt.Sprintf("%s=tcp:%s", name, ln.Addr())
}

// exchange sends and expects the same bytes back.
func exchange(t *testing.T, c io.ReadWriter, text string) {
	t.Helper()
	go io.WriteString(c, text)
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v", b, err)
	}
}
