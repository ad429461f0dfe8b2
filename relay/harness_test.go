package relay_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// signalFunc is a Signaler in a sentence.
type signalFunc func(ctx context.Context, s *signaler.Signal) error

func (f signalFunc) Signal(ctx context.Context, s *signaler.Signal) error { return f(ctx, s) }

// node is one running relay inside a synctest bubble.
type node struct {
	t       *testing.T
	ln      *netfault.Listener
	srv     *relay.Server
	signals chan *signaler.Signal // what the default signaler was handed
	log     *testlog.Buffer
	stop    context.CancelFunc
	stopped chan error
	ring    *token.Ring
}

// inBubble runs f with a node. When f returns the node is stopped without a drain, and
// synctest fails the test if one goroutine is left.
func inBubble(t *testing.T, change func(*relay.Config), f func(n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, mustRing(t), nil, change)
		defer n.end()
		f(n)
	})
}

// startNode starts a node; peers is where its node port is, nil: it is the only one.
func startNode(t *testing.T, ring *token.Ring, peers net.Listener, change func(*relay.Config)) *node {
	t.Helper()
	n := &node{t: t, ln: netfault.NewListener(), signals: make(chan *signaler.Signal, 100), log: new(testlog.Buffer), stopped: make(chan error, 1), ring: ring}
	cfg := relay.Config{
		PublicURL: "ws://relay.test/front",
		Auth:      auth.AllowAll{},
		Keys:      n.ring,
		Signaler: signalFunc(func(_ context.Context, s *signaler.Signal) error {
			if _, err := s.Encode(); err != nil {
				return err
			}
			n.signals <- s
			return nil
		}),
		Drain:  -1,
		Logger: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if n.srv, err = relay.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { n.stopped <- n.srv.Run(ctx, relay.Listeners{Public: n.ln, Node: peers}) }()
	return n
}

// end stops the node, if nothing has yet, and looks at its log.
func (n *node) end() {
	n.t.Helper()
	n.stop()
	if err := <-n.stopped; err != nil {
		n.t.Errorf("Run: %v", err)
	}
	time.Sleep(second) // the bubble's: net/http holds a connection for 500 ms after an early answer
	if secret := "bridgeToken="; strings.Contains(strings.ReplaceAll(n.log.String(), secret+"[redacted]", ""), secret) {
		n.t.Errorf("a token is in the log:\n%s", n.log)
	}
}

func (n *node) dialer() *ws.Dialer {
	return &ws.Dialer{Dial: n.ln.Dial, Proxy: netfault.NoProxy}
}

// connect dials as a requester and returns what came of it.
func (n *node) connect(ctx context.Context, query string, subprotocols ...string) (*ws.Conn, error) {
	return n.dialer().DialWebSocket(ctx, "ws://relay.test/front/bridge/connect?"+query, nil, subprotocols...)
}

type dialed struct {
	conn *ws.Conn
	err  error
}

// connecting is connect in the background.
func (n *node) connecting(ctx context.Context, query string, subprotocols ...string) <-chan dialed {
	done := make(chan dialed, 1)
	go func() {
		c, err := n.connect(ctx, query, subprotocols...)
		done <- dialed{c, err}
	}()
	return done
}

// accept dials back as a device.
func (n *node) accept(s *signaler.Signal, subprotocols ...string) (*ws.Conn, error) {
	return n.dialer().DialWebSocket(context.Background(), s.AcceptURL, nil, subprotocols...)
}

func (n *node) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.ln.Dial, DisableKeepAlives: true}}
}

// reject posts a device's no and returns the status.
func (n *node) reject(s *signaler.Signal, body string) int {
	n.t.Helper()
	resp, err := n.httpClient().Post(s.RejectURL, "application/json", strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// open makes a bridge and returns both ends.
func (n *node) open(query string) (requester, device *ws.Conn) {
	n.t.Helper()
	done := n.connecting(context.Background(), query)
	device, err := n.accept(<-n.signals)
	if err != nil {
		n.t.Fatalf("accept: %v", err)
	}
	got := <-done
	if got.err != nil {
		n.t.Fatalf("connect: %v", got.err)
	}
	return got.conn, device
}

// wantStatus checks a refusal and returns its problem.
func wantStatus(t *testing.T, err error, status int, code wire.Code) wire.Problem {
	t.Helper()
	var h *ws.HandshakeError
	if !errors.As(err, &h) {
		t.Fatalf("got %v, want status %d", err, status)
	}
	p, perr := wire.ParseProblem(h.Body)
	if perr != nil {
		t.Fatalf("body %q: %v", h.Body, perr)
	}
	if h.Status != status || p.Status != status || p.Code != code {
		t.Fatalf("got %d %+v, want %d %s", h.Status, p, status, code)
	}
	for name, want := range map[string]string{
		"Content-Type": wire.ProblemType, "Cache-Control": "no-store", wire.HeaderBridgeID: p.BridgeID,
		"Retry-After": map[bool]string{true: strconv.Itoa(p.RetryAfter)}[p.RetryAfter > 0],
	} {
		if got := h.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if status == http.StatusUnauthorized && h.Header.Get("WWW-Authenticate") != auth.Challenge {
		t.Error("401 without WWW-Authenticate")
	}
	return p
}

// wantClose reads to the end and checks the close frame. Data before it is
// returned.
func wantClose(t *testing.T, c *ws.Conn, code int, reason wire.Code) string {
	t.Helper()
	data, err := io.ReadAll(c)
	var e *ws.CloseError
	switch {
	case code == wire.CloseNormal && err == nil:
	case errors.As(err, &e) && e.Code == code && wire.ParseReason(e.Reason).Code == reason:
	default:
		t.Fatalf("read ended with %v, want close %d %s", err, code, reason)
	}
	c.Close()
	return string(data)
}

// echo sends through one end and reads at the other.
func echo(t *testing.T, from, to *ws.Conn) {
	t.Helper()
	go from.Write([]byte("hello"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(to, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
}

const second = time.Second

func newRing() (*token.Ring, error) { return token.NewRing(token.NewKey()) }

func mustRing(t *testing.T) *token.Ring {
	t.Helper()
	r, err := newRing()
	if err != nil {
		t.Fatal(err)
	}
	return r
}
