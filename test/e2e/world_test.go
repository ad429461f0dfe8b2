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
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/front"
	"websocketbridge/test/process/processtest"
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
	nodes   int  // of the relay; 0: 1
	nodeTLS bool // between them
}

// everywhere runs a scenario on one node, on two and on five.
func everywhere(t *testing.T, scenario func(t *testing.T, nodes int)) {
	for _, nodes := range []int{1, 2, 5} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) { scenario(t, nodes) })
	}
}

// world is a relay of one or more nodes, one hub and one device.
type world struct {
	t      *testing.T
	hub    *fake.Hub
	signal *countingSignaler
	key    token.Key // that all nodes begin with
	log    *testlog.Buffer
	opts   options

	nodes     []*member
	reserved  []net.Listener // for addresses that are known before anybody listens
	front     *front.Front   // nil with one node
	forwards  atomic.Int32   // dials between nodes
	stopAgent func()
	client    client.Config
}

// member is one node of the world's relay.
type member struct {
	addr, nodeAddr string // public, and for peers; they stay when it starts again
	ring           *token.Ring
	srv            *relay.Server
	stop           func()
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
	w := &world{t: t, hub: fake.New(o.hub), log: new(testlog.Buffer), opts: o, key: token.NewKey()}
	w.signal = &countingSignaler{Signaler: w.hub}
	t.Cleanup(func() {
		if t.Failed() {
			s := w.log.String()
			t.Logf("the end of the log:\n%s", s[max(0, len(s)-8000):])
		}
	})
	for range max(o.nodes, 1) {
		w.nodes = append(w.nodes, &member{addr: "127.0.0.1:0", nodeAddr: "127.0.0.1:0"})
	}
	w.startFront()
	for i := range w.nodes {
		w.startNode(i)
	}
	if !o.noAgent {
		w.startAgent()
	}
	return w
}

// startFront gives the relay its one address, and the nodes theirs.
func (w *world) startFront() {
	w.t.Helper()
	var backends []string
	for _, m := range w.nodes {
		for _, addr := range []*string{&m.addr, &m.nodeAddr} {
			ln := w.listen(*addr)
			*addr = ln.Addr().String()
			w.reserved = append(w.reserved, ln)
		}
		backends = append(backends, m.addr)
	}
	if w.client.URL = "ws://" + backends[0]; len(backends) == 1 {
		return
	}
	w.front = front.New(front.Config{Backends: backends})
	ln := w.listen("127.0.0.1:0")
	w.client.URL = "ws://" + ln.Addr().String()
	w.run(func(ctx context.Context) error { return w.front.Run(ctx, ln) })
}

// listen takes the listener that was reserved for an address, or makes one.
func (w *world) listen(addr string) net.Listener {
	w.t.Helper()
	for i, ln := range w.reserved {
		if ln.Addr().String() == addr {
			w.reserved = slices.Delete(w.reserved, i, i+1)
			return ln
		}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return ln
}

// startNode starts a node of the relay, at the addresses that it had.
func (w *world) startNode(i int) {
	w.t.Helper()
	m := w.nodes[i]
	var err error
	if m.ring, err = token.NewRing(w.key); err != nil {
		w.t.Fatal(err)
	}
	on := relay.Listeners{Public: w.listen(m.addr), Node: w.listen(m.nodeAddr)}
	cfg := relay.Config{
		PublicURL: w.client.URL, Signaler: w.signal, Keys: m.ring, Auth: auth.AllowAll{}, Drain: -1,
		ConnectsPerDevice: -1, ConnectsPerAddress: -1, MaxPerDevice: -1, // one device and one address are everybody here
		Logger: slog.New(slog.NewTextHandler(w.log, nil)).With("part", fmt.Sprintf("node %d", i)),
	}
	if len(w.nodes) > 1 {
		cfg.Cluster = w.cluster(m, cfg.Logger)
	} else {
		on.Node.Close()
		on.Node = nil
	}
	if w.opts.relay != nil {
		w.opts.relay(&cfg)
	}
	if m.srv, err = relay.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	m.stop = w.run(func(ctx context.Context) error { return m.srv.Run(ctx, on) })
}

// cluster is what a node is to the others.
func (w *world) cluster(m *member, log *slog.Logger) *cluster.Node {
	w.t.Helper()
	var addrs []string
	for _, m := range w.nodes {
		addrs = append(addrs, m.nodeAddr)
	}
	peers, err := cluster.ParsePeers(addrs, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	c := cluster.Config{Address: m.nodeAddr, Peers: peers, Keys: m.ring, Logger: log, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.forwards.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	if w.opts.nodeTLS {
		if c.TLS, err = cluster.SelfTLS(); err != nil {
			w.t.Fatal(err)
		}
	}
	node, err := cluster.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return node
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
	processtest.Until(t, patience, what, ok)
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
