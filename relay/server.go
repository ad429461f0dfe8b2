package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// A Server is one node.
type Server struct {
	cfg      Config
	public   *url.URL
	instance token.ID // of this process; a restarted node is another one
	table    *table

	// ctx ends when nothing may live on: waiting requesters are refused, open
	// bridges closed.
	ctx    context.Context
	cancel context.CancelCauseFunc
	work   group
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	cfg = cfg.withDefaults()
	public, err := parsePublicURL(cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, public: public, instance: token.NewID(), table: newTable(cfg.MaxBridges, cfg.MaxWaiting)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// HTTP limits of both listeners.
const (
	headerTimeout = 10 * time.Second // for the whole head of a request
	bodyTimeout   = 10 * time.Second // for what follows it, which is a reject at most
	idleTimeout   = 60 * time.Second // between requests on one connection
	maxHeader     = 16 << 10         // bytes; a request URL holds a token and 2 KiB of request data
)

// Run serves both listeners until ctx ends, then drains: new requesters are
// refused, open bridges live on for Config.Drain. It returns when the last
// bridge has ended and every goroutine with it; nil after a drain. admin may be
// nil. Run is called once.
func (s *Server) Run(ctx context.Context, public, admin net.Listener) error {
	failed := make(chan error, 2)
	var servers []*http.Server
	var serving sync.WaitGroup
	for _, l := range []struct {
		name string
		net.Listener
		http.Handler
	}{{"public", public, s.Handler()}, {"admin", admin, s.AdminHandler()}} {
		if l.Listener == nil {
			continue
		}
		srv := &http.Server{
			Handler:           l.Handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          log.New(io.Discard, "", 0), // port scans; what matters is logged where it happens
		}
		servers = append(servers, srv)
		serving.Go(func() {
			if err := srv.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s listener: %w", l.name, err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case err = <-failed:
	}
	s.table.drain()
	s.cancel(&pump.Stop{Code: wire.Draining, Text: "the node stops; connect again"})
	s.work.Wait()
	for _, srv := range servers {
		srv.Close()
	}
	serving.Wait()
	s.work.Wait() // requests that came in between; they are refused at once
	return err
}

// drain refuses new bridges and waits for those there are.
func (s *Server) drain() {
	s.table.drain()
	deadline := time.NewTimer(s.cfg.Drain)
	defer deadline.Stop()
	for logged := false; ; {
		n, changed := s.table.left()
		if n == 0 {
			return
		}
		if !logged {
			s.cfg.Logger.Info("draining", "bridges", n, "deadline", s.cfg.Drain)
			logged = true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return
		}
	}
}

// Kill ends every bridge now, and with them a drain.
func (s *Server) Kill() {
	s.cancel(&pump.Stop{Code: wire.Draining, Text: "the node was told to stop now; connect again"})
}

// Handler serves the public paths, also below the path of the public URL, which
// a proxy may or may not strip.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, prefix := range slices.Compact([]string{"", strings.TrimRight(s.public.Path, "/")}) {
		mux.HandleFunc(prefix+wire.PathConnect, s.connect)
		mux.HandleFunc(prefix+wire.PathAccept, s.accept)
		mux.HandleFunc(prefix+wire.PathReject, s.reject)
	}
	return s.work.wrap(mux)
}

// run pumps between both ends until the bridge ends. It returns at once, so that
// the goroutine, the request and the buffers of net/http go.
func (s *Server) run(b *bridge, requester *pump.Leg, got arrival) {
	b.move(joining, open)
	s.table.opened()
	wait := time.Since(b.created)
	log := s.cfg.Logger.With(slog.String("bridge", b.id.String()), slog.String("device", b.deviceID),
		slog.String("principal", b.principal.Name), slog.String("target", b.target))
	log.Info("bridge open", "subprotocol", got.subprotocol, "waited", wait.Round(time.Millisecond))
	s.work.Go(func() {
		defer s.table.remove(b, true)
		res := pump.Run(s.ctx, requester, got.leg, s.cfg.pump())
		b.move(open, closed)
		log.Info("bridge closed", "reason", res.Reason, "by", res.By, "close", res.CloseCode, "text", Clean(res.Text, 200),
			"duration", res.Duration.Round(time.Millisecond), "to_device_bytes", res.ToDevice, "to_requester_bytes", res.ToRequester)
	})
}

// logRefused is the one line of a bridge that never opened.
func (s *Server) logRefused(b *bridge, err error) {
	p := problem(b, err)
	name := ""
	if b.principal != nil {
		name = b.principal.Name
	}
	s.cfg.Logger.Info("bridge refused", "bridge", p.BridgeID, "device", Clean(b.deviceID, wire.MaxDeviceID), "principal", name, "target", Clean(b.target, wire.MaxTarget),
		"reason", p.Code, "waited", time.Since(b.created).Round(time.Millisecond), "error", err)
}

// group counts handlers and goroutines, so that Run can wait for all of them.
// Unlike a WaitGroup it may grow from zero while it is waited for.
type group struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // not nil while n > 0
}

func (g *group) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n++; g.n == 1 {
		g.zero = make(chan struct{})
	}
}

func (g *group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 {
		close(g.zero)
		g.zero = nil
	}
}

// Go runs f as part of the group.
func (g *group) Go(f func()) {
	g.add()
	go func() {
		defer g.done()
		f()
	}()
}

// Wait returns when nothing is left.
func (g *group) Wait() {
	for {
		g.mu.Lock()
		zero := g.zero
		g.mu.Unlock()
		if zero == nil {
			return
		}
		<-zero
	}
}

func (g *group) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.add()
		defer g.done()
		h.ServeHTTP(w, r)
	})
}
