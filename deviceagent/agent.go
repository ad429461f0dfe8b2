package deviceagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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

	// SignalKeys are public keys of the relay: a signal that none of them has signed is
	// refused, and nothing of it is dialled. Empty: signatures are not looked at, and
	// whoever may write to the hub can send signals.
	SignalKeys []signaler.PublicKey
	// Principals may ask for a bridge: names in the relay's words, where a star stands for
	// any characters ("ops", "oidc:*@example.com", "signed:ops"). Empty: all. Without
	// SignalKeys whoever may write to the hub can claim any name.
	Principals []string
	// TargetPrincipals limits single targets further, by their names in Targets. To what
	// a pattern in Targets reaches, too, it is no limit.
	TargetPrincipals map[string][]string
	// KillSwitch says why remote access is off now; nil: it is on. While it is off,
	// signals are refused and open bridges are closed, at the latest after a second. It is
	// called twice a second, and for each signal, and returns at once. See FileSwitch. If
	// KillSwitch itself is nil, remote access is on.
	KillSwitch func() error

	MaxBridges  int           // at once; 0: 16
	MaxStreams  int           // at once on one bridge; 0: 256
	DialTimeout time.Duration // for a target; 0: 10 s
	// WindowMemory is by how many bytes the windows of all streams together may have grown
	// beyond Session.InitialWindow: memory that is used while targets take less than
	// comes. 0: 64 MiB; negative: none grows. See session.Budget.
	WindowMemory int

	Dialer  ws.Dialer      // to the relay: proxy, private CA
	Session session.Config // its MaxStreams and Budget are set from above
	Logger  *slog.Logger   // nil: silent
}

// Defaults of Config.
const (
	DefaultMaxBridges   = 16
	DefaultMaxStreams   = 256
	DefaultDialTimeout  = 10 * time.Second
	DefaultWindowMemory = 64 << 20 // bytes; two streams at the largest window
)

// maxRejects is how many refusals are on their way to a relay at once; more are
// dropped, and their requesters hear that the device did not dial back.
const maxRejects = 16

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
		if _, err := parseRelayHost(h); err != nil {
			bad("RelayHosts: %q %w", h, err)
		}
	}
	if c.Targets == nil {
		bad("Targets: are missing; an empty list allows nothing")
	}
	if slices.Contains(c.SignalKeys, signaler.PublicKey{}) {
		bad("SignalKeys: one is empty")
	}
	for _, p := range c.Principals {
		if err := checkPattern(p); err != nil {
			bad("Principals: %q %w", p, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.TargetPrincipals)) {
		if c.Targets != nil && !c.Targets.named(name) {
			bad("TargetPrincipals: there is no target named %q", name)
		}
		if len(c.TargetPrincipals[name]) == 0 {
			bad("TargetPrincipals: %q has no principal; leave it out of Targets if nobody may reach it", name)
		}
		for _, p := range c.TargetPrincipals[name] {
			if err := checkPattern(p); err != nil {
				bad("TargetPrincipals: %q of %q %w", p, name, err)
			}
		}
	}
	if c.MaxBridges < 0 || c.MaxStreams < 0 || c.DialTimeout < 0 {
		bad("MaxBridges, MaxStreams and DialTimeout cannot be negative")
	}
	if err := c.Session.Validate(); err != nil {
		bad("Session: %w", err)
	}
	return errors.Join(errs...)
}

// An Agent serves bridges on one device.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	relays []relayHost
	work   sync.WaitGroup

	asking sync.Mutex // held while the kill switch is asked and its answer is applied

	mu        sync.Mutex           // guards what is below; work grows under it, and only while ctx lives
	seen      map[string]time.Time // signals, until when they are remembered
	bridges   int
	rejects   int
	running   bool
	since     time.Time // of Run
	off       bool      // by the kill switch
	offWhy    string
	offSince  time.Time
	following map[*following]struct{} // bridges
	counts    counts
	live      context.Context // of bridges: ends with Run's, and when the kill switch is off
	cut       context.CancelCauseFunc
	quiet     map[string]*quietly // log lines, by code
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
	cfg.Session.Budget = session.NewBudget(cmp.Or(cfg.WindowMemory, DefaultWindowMemory))
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, seen: make(map[string]time.Time), quiet: make(map[string]*quietly), following: make(map[*following]struct{}),
		counts: counts{refused: make(map[string]uint64), streamsRefused: make(map[string]uint64)},
	}
	for _, h := range cfg.RelayHosts {
		r, _ := parseRelayHost(h) // Validate has been here
		a.relays = append(a.relays, r)
	}
	return a, nil
}

// Run serves until ctx ends: then it takes no more signals, ends its bridges,
// and returns nil when the last goroutine has ended. It returns the source's
// error when that gives up. Run may be called again after it has returned.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.beginBridges(ctx)
	a.log.Info("agent listens", "device", a.cfg.DeviceID, "targets", a.cfg.Targets.Names())
	err := a.cfg.Source.Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
		return a.handle(ctx, d)
	})
	a.mu.Lock()
	cancel()
	a.running = false
	a.mu.Unlock()
	a.work.Wait()
	return err
}

// handle answers one delivery at once; what follows runs on its own until ctx
// ends.
func (a *Agent) handle(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
	no := a.judge(ctx, d)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.received++
	if no == nil {
		a.counts.accepted++
	} else {
		a.counts.refused[no.Code]++ // codes are few
	}
	return no
}

func (a *Agent) judge(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
	s, err := signaler.Parse(d.Payload)
	if err != nil {
		no := refuse("bad_signal", "%v", err)
		a.logRefused(slog.LevelWarn, "signal refused", no)
		return no
	}
	if no := a.checkSignature(s); no != nil { // nothing of it is to be believed, or dialled
		return no
	}
	no := a.check(s)
	if live := a.bridgesContext(ctx); no == nil && !a.start(live, &a.bridges, a.cfg.MaxBridges, func() { a.serve(live, s) }) {
		no = refuse("limit_reached", "%d bridges are open, as many as this device allows", a.cfg.MaxBridges)
		if live.Err() != nil {
			no = stopped(live)
		}
	}
	if no == nil {
		return nil
	}
	a.logRefused(slog.LevelInfo, "signal refused", no, "bridge", s.BridgeID, "principal", s.Principal, "target", s.Target)
	// A replay has been answered, and telling the relay would refuse the first one.
	if !d.Answers && no.Code != "replayed" {
		a.start(ctx, &a.rejects, maxRejects, func() { a.reject(ctx, s, no) })
	}
	return no
}

// start runs f and counts it, unless most of its kind run or ctx has ended.
func (a *Agent) start(ctx context.Context, n *int, most int, f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil || *n >= most {
		return false
	}
	*n++
	a.work.Go(func() {
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			*n--
		}()
		f()
	})
	return true
}
