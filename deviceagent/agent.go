package deviceagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// A SignalSource hears the signals for this device: a hub connection of the
// agent's own, one lent by the host program, or a fake.
//
// Run delivers until ctx ends and then returns nil; any other return is an error
// that no retry can mend. It calls h for one delivery after the other.
type SignalSource interface {
	Run(ctx context.Context, h signaler.Handler) error
}

// Config is an agent's. DeviceID, Source, RelayHosts and Targets are required.
type Config struct {
	DeviceID string
	Source   SignalSource
	// RelayHosts are the hosts this device may dial: "relay.example.com",
	// "relay.example.com:8443" (a host alone means any port), "*.example.com"
	// (one or more labels in place of the star), or "*" for any.
	RelayHosts []string
	// AllowPlain permits ws:// to hosts that are not loopback.
	AllowPlain bool
	Targets    *Targets

	MaxBridges  int           // at once; 0: 16
	MaxStreams  int           // at once on one bridge; 0: 256
	DialTimeout time.Duration // for a target; 0: 10 s

	Dialer  ws.Dialer      // to the relay: proxy, private CA
	Session session.Config // MaxStreams is set from above
	Logger  *slog.Logger   // nil: silent
}

// Defaults of Config.
const (
	DefaultMaxBridges  = 16
	DefaultMaxStreams  = 256
	DefaultDialTimeout = 10 * time.Second
)

// clockGrace is how far a device's clock may be ahead.
const clockGrace = time.Minute

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := wire.CheckDeviceID(c.DeviceID); err != nil {
		bad("DeviceID: %w", err)
	}
	if c.Source == nil {
		bad("Source: is missing")
	}
	if len(c.RelayHosts) == 0 {
		bad(`RelayHosts: name the relays this device may dial, or "*" for any`)
	}
	for _, h := range c.RelayHosts {
		if err := checkHostPattern(h); err != nil {
			bad("RelayHosts: %q %w", h, err)
		}
	}
	if c.Targets == nil {
		bad("Targets: are missing; an empty list allows nothing")
	}
	if c.MaxBridges < 0 || c.MaxStreams < 0 || c.DialTimeout < 0 {
		bad("MaxBridges, MaxStreams and DialTimeout cannot be negative")
	}
	return errors.Join(errs...)
}

// An Agent serves bridges on one device.
type Agent struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards the three below
	seen    map[string]time.Time
	bridges int
	closing bool
	work    sync.WaitGroup
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("deviceagent: %w", err)
	}
	cfg.MaxBridges = cmp.Or(cfg.MaxBridges, DefaultMaxBridges)
	cfg.MaxStreams = cmp.Or(cfg.MaxStreams, DefaultMaxStreams)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, DefaultDialTimeout)
	cfg.Session.MaxStreams = cfg.MaxStreams
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{cfg: cfg, log: cfg.Logger, seen: make(map[string]time.Time)}, nil
}

// Run serves until ctx ends: then it takes no more signals, ends its bridges,
// and returns nil when the last goroutine has ended. It returns the source's
// error when that gives up. Run may be called again after it has returned.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	a.closing = false
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.log.Info("agent listens", "device", a.cfg.DeviceID, "targets", a.cfg.Targets.Names())
	err := a.cfg.Source.Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
		return a.handle(ctx, d)
	})
	cancel()
	a.mu.Lock()
	a.closing = true
	a.mu.Unlock()
	a.work.Wait()
	return err
}

// handle answers one delivery at once; what follows runs on its own until ctx
// ends.
func (a *Agent) handle(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
	s, err := signaler.Parse(d.Payload)
	if err != nil {
		a.log.Warn("signal refused", "reason", "bad_signal", "error", err)
		return refuse("bad_signal", "%v", err)
	}
	no := a.check(s)
	if no == nil {
		no = a.start(func() { a.serve(ctx, s) })
	}
	if no == nil {
		return nil
	}
	a.log.Info("signal refused", "bridge", s.BridgeID, "principal", s.Principal, "target", s.Target, "reason", no.Code, "text", no.Message)
	// A replay has been answered, and telling the relay would refuse the first one.
	if !d.Answers && s.RejectURL != "" && no.Code != "replayed" && no.Code != "relay_not_allowed" {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.closing {
			a.work.Go(func() { a.reject(ctx, s, no) })
		}
	}
	return no
}

// start runs f as a bridge, if there is room for one.
func (a *Agent) start(f func()) *signaler.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closing:
		return refuse("stopping", "the agent stops")
	case a.bridges >= a.cfg.MaxBridges:
		return refuse("limit_reached", "%d bridges are open, as many as this device allows", a.bridges)
	}
	a.bridges++
	a.work.Go(func() {
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.bridges--
		}()
		f()
	})
	return nil
}

// check says why the signal is not followed.
func (a *Agent) check(s *signaler.Signal) *signaler.Refusal {
	now := time.Now()
	if s.DeviceID != "" && s.DeviceID != a.cfg.DeviceID {
		return refuse("wrong_device", "the signal is for device %q, this is %q", s.DeviceID, a.cfg.DeviceID)
	}
	if !s.ExpiresAt.IsZero() && now.After(s.ExpiresAt.Add(clockGrace)) {
		return refuse("expired", "the signal expired at %s and it is %s here; is this device's clock right?",
			s.ExpiresAt.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	for _, u := range []string{s.AcceptURL, s.RejectURL} {
		if no := a.checkRelay(u); no != nil {
			return no
		}
	}
	if !a.firstTime(s, now) {
		return refuse("replayed", "the signal has been here before")
	}
	targets, err := wire.SplitTargets(s.Target)
	if err != nil {
		return refuse("bad_signal", "target %v", err)
	}
	if !wantsSession(s) {
		_, no := a.rawTarget(targets)
		return no
	}
	for _, name := range named(targets) {
		if _, ok := a.cfg.Targets.Find(name); !ok {
			return a.missing(targets, name)
		}
	}
	return nil
}

// named is what a request without a target means.
func named(targets []string) []string {
	if len(targets) == 0 {
		return []string{wire.DefaultTarget}
	}
	return targets
}

// missing refuses a target that is not on the list.
func (a *Agent) missing(targets []string, name string) *signaler.Refusal {
	if len(targets) == 0 {
		return refuse("target_required", "the request names no target, and this device has none called %q", wire.DefaultTarget)
	}
	return notAllowed(name)
}

func (a *Agent) checkRelay(raw string) *signaler.Refusal {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return refuse("bad_signal", "the relay's address is not a URL")
	}
	secure := u.Scheme == "wss" || u.Scheme == "https"
	if !secure && !a.cfg.AllowPlain && !ws.IsLoopback(u.Hostname()) {
		return refuse("relay_not_allowed", "the relay %s is not reached by TLS, and this device does not allow plain connections", u.Host)
	}
	port := cmp.Or(u.Port(), map[bool]string{true: "443", false: "80"}[secure])
	for _, p := range a.cfg.RelayHosts {
		if matchHost(p, u.Hostname(), port) {
			return nil
		}
	}
	return refuse("relay_not_allowed", "the relay %s is not on this device's list", u.Host)
}

// firstTime remembers a signal until it has expired.
func (a *Agent) firstTime(s *signaler.Signal, now time.Time) bool {
	key := cmp.Or(s.BridgeID, s.AcceptURL)
	until := s.ExpiresAt.Add(clockGrace)
	if s.ExpiresAt.IsZero() {
		until = now.Add(time.Hour)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, t := range a.seen { // few: those of the last minute
		if now.After(t) {
			delete(a.seen, k)
		}
	}
	if _, ok := a.seen[key]; ok {
		return false
	}
	a.seen[key] = until
	return true
}

func wantsSession(s *signaler.Signal) bool {
	for _, p := range s.Subprotocols {
		if p == wire.SessionV1 {
			return true
		}
	}
	return false
}

func refuse(code, format string, args ...any) *signaler.Refusal {
	return &signaler.Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

func notAllowed(name string) *signaler.Refusal {
	return refuse("target_not_allowed", "target %q is not on this device's list", name)
}

// checkHostPattern says why p is no entry of RelayHosts.
func checkHostPattern(p string) error {
	host := p
	if h, port, err := net.SplitHostPort(p); err == nil {
		if host = h; port == "" {
			return errors.New("has an empty port")
		}
	}
	switch {
	case host == "":
		return errors.New("has no host")
	case strings.Contains(host, "/"):
		return errors.New("is a URL; name the host only")
	case host != "*" && strings.Contains(strings.TrimPrefix(host, "*."), "*"):
		return errors.New(`may have a star only as "*" or in front, as in "*.example.com"`)
	}
	return nil
}

func matchHost(pattern, host, port string) bool {
	if h, p, err := net.SplitHostPort(pattern); err == nil {
		if p != port {
			return false
		}
		pattern = h
	}
	pattern, host = strings.ToLower(strings.Trim(pattern, "[]")), strings.ToLower(strings.TrimSuffix(host, "."))
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return suffix == "" || len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}
