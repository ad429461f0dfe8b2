package c2d

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// A site is hubs that come and go: each dial meets a new peer.
type site struct {
	t    *testing.T
	peer func() *peer // nil: nobody is there

	mu    sync.Mutex
	dials []time.Time
	last  *peer
}

func (h *site) dial(ctx context.Context) (net.Conn, net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials = append(h.dials, time.Now())
	if h.peer == nil {
		return nil, nil, errors.New("connection refused")
	}
	h.last = h.peer()
	c := h.last.start(h.t)
	return c, c, nil
}

func (h *site) set(peer func() *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peer = peer
}

func (h *site) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.dials)
}

// tokens returns those that the last peer was shown.
func (h *site) tokens() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	tokens, _ := h.last.seen()
	return tokens
}

// cut ends the connection under way.
func (h *site) cut() {
	h.mu.Lock()
	p := h.last
	h.mu.Unlock()
	p.end()
}

// A source gives what tokens says at the moment.
type source struct {
	mu    sync.Mutex
	token func() (credential.Token, error)
	asked int
}

func (s *source) Token(context.Context) (credential.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.token()
}

func (s *source) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *source) set(f func() (credential.Token, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = f
}

// bubble runs f with a signaler that runs and logs.
func bubble(t *testing.T, change func(*Config), f func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		h := &site{t: t, peer: func() *peer { return &peer{} }}
		var log safeBuffer
		s := testSignaler(t, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			if change != nil {
				change(c)
			}
		})
		s.dial = h.dial
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		f(t, s, h, &log.b)
		cancel()
		synctest.Wait()
		sleep(time.Minute)
		if err := s.Signal(context.Background(), testSignal()); !errors.Is(err, signaler.ErrUnavailable) || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("after Run: %v", err)
		}
	})
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func testSignal() *signaler.Signal {
	return &signaler.Signal{AcceptURL: "wss://relay.example/bridge/accept?bridgeToken=t0k3n", DeviceID: "pump-7", BridgeID: "b1"}
}

// sleep lets the time pass, and what is due then happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// signal signals with a relay's patience.
func signal(t *testing.T, s *Signaler) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	return s.Signal(ctx, testSignal())
}

// cut0 cuts the connection that there is, and gives the next the time to come up.
func (h *site) cut0() {
	synctest.Wait()
	h.cut()
	sleep(2 * time.Second)
}
