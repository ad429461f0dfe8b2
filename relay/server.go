package relay

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/calm"
	"websocketbridge/relay/metrics"
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
	forwards *forwards
	once     *usedIDs // tickets of signed URLs that this node made
	limits   *limits
	pending  *pending
	origins  []origin
	metrics  *metrics.Node
	calm     *calm.Log // for lines that strangers can cause

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
	s := &Server{
		cfg: cfg, public: public, instance: token.NewID(), table: newTable(cfg), forwards: newForwards(cfg.MaxBridges), once: newUsedIDs(),
		limits: newLimits(cfg), pending: newPending(cfg), calm: &calm.Log{To: cfg.Logger},
	}
	s.pending.evicted = s.evicted
	s.metrics = metrics.New(cfg.Version, s.sample)
	if s.origins, err = parseOrigins(cfg.Origins); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// HTTP limits of both listeners.
const (
	headerTimeout = 10 * time.Second // for the whole head of a request
	bodyTimeout   = 10 * time.Second // for what follows it, which is a reject at most
	idleTimeout   = 60 * time.Second // between requests on one connection
	writeTimeout  = 2 * time.Minute  // from the head of a request to the end of its answer: a wait for a device, by way of another node
	maxHeader     = 16 << 10         // bytes; a request URL holds a token and 2 KiB of request data
	stopTimeout   = 10 * time.Second // for answers under way when the node stops
)

// Listeners are the ports of a node. Those that are nil are not served.
type Listeners struct {
	Public net.Listener // requesters and devices
	Admin  net.Listener // for whoever operates the node
	Node   net.Listener // peers; with Config.Cluster only
}

// Run serves the listeners until ctx ends, then drains: new requesters are
// refused, open bridges live on for Config.Drain. It returns when the last
// bridge has ended and every goroutine with it; nil after a drain. Run is called
// once.
func (s *Server) Run(ctx context.Context, on Listeners) error {
	if on.Node != nil && s.cfg.Cluster == nil {
		return errors.New("relay: a listener for peers, and no cluster")
	}
	if on.Node != nil {
		on.Node = s.cfg.Cluster.Listen(on.Node)
		defer on.Node.Close()
	}
	s.record(audit.Record{Event: audit.Started, URL: s.cfg.PublicURL})
	defer s.record(audit.Record{Event: audit.Stopped})
	failed := make(chan error, 3)
	var servers []*http.Server
	var serving sync.WaitGroup
	for _, l := range []struct {
		name string
		net.Listener
		http.Handler
	}{{"public", on.Public, s.Handler()}, {"admin", on.Admin, s.AdminHandler()}, {"node", on.Node, s.nodeHandler()}} {
		if l.Listener == nil {
			continue
		}
		srv := &http.Server{
			Handler:           l.Handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			WriteTimeout:      writeTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          log.New(calmWriter{s.calm}, "", 0),
		}
		if l.name == "public" {
			srv.ConnState = s.pending.state
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
	s.stop()
	// First nobody comes in any more, or strangers could keep the node from ending;
	// then whoever waits for an answer gets it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, srv := range servers {
		serving.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	serving.Wait()
	s.work.Wait()
	s.calm.Flush()
	return err
}

// A calmWriter takes what net/http has to say: port scans, mostly.
type calmWriter struct{ to *calm.Log }

func (w calmWriter) Write(p []byte) (int, error) {
	w.to.Log(slog.LevelDebug, "net/http", clean(wire.Redact(string(p)), maxLogged))
	return len(p), nil
}

// Handler serves the public paths, also below the path of the public URL, which
// a proxy may or may not strip.
func (s *Server) Handler() http.Handler {
	prefix := strings.TrimRight(s.public.Path, "/")
	return s.guard(s.limited(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, prefix)
		switch path {
		case wire.PathConnect:
			s.connect(w, r, false)
		case wire.PathConnectSigned:
			s.connectSigned(w, r)
		case wire.PathCanI:
			s.canI(w, r)
		case wire.PathGetSignedURL:
			s.getSignedURL(w, r)
		case wire.PathAccept:
			s.accept(w, r, "")
		case wire.PathReject:
			s.reject(w, r, "")
		default:
			http.NotFound(w, r)
		}
	})))
}

// guard makes a handler part of the node: Run waits for it, a body cannot come
// for ever, a panic is told, and nobody keeps an answer or sends its URL elsewhere.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.work.add()
		defer s.work.done()
		h := w.Header()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				s.panicked(p, "path", clean(r.URL.Path, maxLogged))
				writeProblem(w, wire.NewProblem(wire.Internal, "", ""))
			}
		}()
		if r.ContentLength != 0 { // net/http reads what a handler leaves before it answers
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
		if r.ContentLength != 0 { // what has not come by now is not waited for
			http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		}
	})
}

// panicked is called with what recover returned; about says where it was.
func (s *Server) panicked(p any, about ...any) {
	s.metrics.Panicked()
	s.calm.Log(slog.LevelError, "panic", "panic", append(about, "panic", wire.Redact(fmt.Sprint(p)), "stack", string(debug.Stack()))...)
}

// run pumps between both ends until the bridge ends. It returns at once, so that
// the goroutine, the request and the buffers of net/http go.
func (s *Server) run(b *bridge, requester *pump.Leg, got arrival) {
	b.move(joining, open)
	if s.table.opened(b, requester, got.leg, got.via) {
		s.move(requester)
	}
	life := s.isOpen(b, got)
	wait := time.Since(b.created)
	log := s.cfg.Logger.With(slog.String("bridge", b.id.String()), slog.String("device", b.deviceID),
		slog.String("principal", b.principal.Name), slog.String("target", clean(b.target, maxLogged)))
	about := []any{"from", b.from, "subprotocol", got.subprotocol, "waited", wait.Round(time.Millisecond)}
	if got.via != "" {
		about = append(about, "via", got.via)
	}
	if rule := b.permit.Rule(); rule != "" {
		about = append(about, "rule", rule)
	}
	if id := b.traceID(); id != "" {
		about = append(about, "trace", id)
	}
	log.Info("bridge open", about...)
	b.opened = true
	s.work.add()
	pump.Start(b.live, requester, got.leg, s.cfg.pump(b.permit.Caps), func(res pump.Result) {
		defer s.work.done()
		defer s.table.remove(b)
		b.move(open, closed)
		s.recordClosed(b, got.via, res)
		s.isClosed(life, res)
		log.Info("bridge closed", "reason", res.Reason, "by", res.By, "close", res.CloseCode, "text", clean(res.Text, 200),
			"duration", res.Duration.Round(time.Millisecond), "to_device_bytes", res.ToDevice, "to_requester_bytes", res.ToRequester)
	})
}

// maxLogged is how much of a stranger's words a log line holds, in bytes.
const maxLogged = 300

// logRefused is the one line of a bridge that never opened.
func (s *Server) logRefused(b *bridge, err error) {
	p := problem(b, err)
	s.recordRefused(b, p)
	name := ""
	if b.principal != nil {
		name = b.principal.Name
	}
	var more []any
	if id := b.traceID(); id != "" && b.granted { // a stranger's is not worth a line's length
		more = []any{"trace", id}
	}
	s.tell(slog.LevelInfo, "bridge refused", p.Code, err, append(more, "bridge", p.BridgeID, "device", clean(b.deviceID, wire.MaxDeviceID), "principal", name,
		"target", clean(b.target, maxLogged), "from", b.from, "reason", p.Code, "waited", time.Since(b.created).Round(time.Millisecond))...)
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
