package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A Hub is an IoT Hub in memory.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	policies map[string]string // keys by policy
	bearers  map[string]bool
	awake    chan struct{} // to keepTime
	ca       *authority
	tls      *tls.Config
	mqtt     net.Listener // plain TCP, as the others; TLS is on top of them
	amqp     net.Listener
	https    net.Listener
	admin    net.Listener // nil: none

	mu       sync.Mutex // guards what follows, and every record and attachment
	devices  map[string]*record
	feedback feedback
	events   events
	alarms   alarms
	faults   Faults
	stats    Stats
	meters   [operations]meter
	day      time.Time // whose quota is used
	used     int
	lastSeq  uint64 // of messages
	lastLock uint64
	lastRID  uint64
	closed   bool // the hub stops
	sockets  map[net.Conn]socketKind
	watchers map[*watcher]struct{} // of actions

	crowd sync.WaitGroup // what serves a socket
}

// New makes a hub that listens already, so that its addresses are known; Run
// serves. The error says everything that is wrong with cfg, or which address
// cannot be listened on.
func New(cfg Config) (*Hub, error) {
	h, err := newHub(cfg)
	if err != nil {
		return nil, err
	}
	if err := h.listen(); err != nil {
		h.closeListeners()
		return nil, fmt.Errorf("emulator: %w", err)
	}
	return h, nil
}

// newHub is New without sockets.
func newHub(cfg Config) (*Hub, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	h := &Hub{
		cfg: cfg, log: cfg.Logger, policies: make(map[string]string), bearers: make(map[string]bool), awake: make(chan struct{}, 1),
		devices: make(map[string]*record), sockets: make(map[net.Conn]socketKind), watchers: make(map[*watcher]struct{}),
		stats: Stats{Connects: make(map[string]int), Methods: make(map[string]int)},
	}
	h.feedback.changed, h.feedback.last = make(chan struct{}), time.Now()
	h.events.changed = make(chan struct{})
	for name := range policyRights {
		if h.policies[name] = cfg.PolicyKeys[name]; h.policies[name] == "" {
			h.policies[name] = newKey()
		}
	}
	for _, jwt := range cfg.BearerTokens {
		h.bearers[jwt] = true
	}
	if err := h.SetFaults(cfg.Faults); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	for _, d := range cfg.Devices {
		if h.devices[d.ID] != nil {
			return nil, fmt.Errorf("emulator: device %q is there twice", d.ID)
		}
		if _, err := h.PutDevice(d); err != nil {
			return nil, fmt.Errorf("emulator: %w", err)
		}
	}
	return h, nil
}

// Run serves until ctx ends, then cuts every connection, waits for what serves
// them, and returns nil. An error means that a listener failed. A hub runs once.
func (h *Hub) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		errs = make(chan error, 4)
	)
	serve := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				errs <- fmt.Errorf("emulator: serve %s: %w", name, err)
				cancel(err)
			}
		})
	}
	wg.Go(func() { h.keepTime(ctx) })
	serve("MQTT", func(ctx context.Context) error { return h.acceptTLS(ctx, h.mqtt, socketMQTT, h.serveMQTT) })
	serve("AMQP", func(ctx context.Context) error { return h.acceptTLS(ctx, h.amqp, socketAMQP, h.serveAMQP) })
	serve("HTTPS", h.serveHTTPS)
	if h.admin != nil {
		serve("the admin API", h.serveAdmin)
	}
	<-ctx.Done()
	h.stop()
	wg.Wait()
	h.crowd.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// stop takes no more connections and cuts those that are there.
func (h *Hub) stop() {
	h.closeListeners()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, d := range h.devices {
		for r := range d.all {
			h.cut(r, errStopped, errDisconnected())
		}
	}
	for c := range h.sockets {
		hardClose(c) // Close may wait for a peer
	}
}

// Close gives the listeners back of a hub that never ran.
func (h *Hub) Close() error { return h.closeListeners() }

func (h *Hub) closeListeners() error {
	var errs []error
	for _, l := range []net.Listener{h.mqtt, h.amqp, h.https, h.admin} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// MQTTAddr is where the hub listens for MQTT over TLS, as host:port.
func (h *Hub) MQTTAddr() string { return h.mqtt.Addr().String() }

// AMQPAddr is where the hub listens for AMQP over TLS.
func (h *Hub) AMQPAddr() string { return h.amqp.Addr().String() }

// HTTPSAddr is where the hub listens for REST and both WebSockets.
func (h *Hub) HTTPSAddr() string { return h.https.Addr().String() }

// AdminAddr is where the admin API is; "": nowhere.
func (h *Hub) AdminAddr() string {
	if h.admin == nil {
		return ""
	}
	return h.admin.Addr().String()
}

// HostName is the hub's name in tokens, certificates and connection strings.
func (h *Hub) HostName() string { return h.cfg.HostName }

// WaitConnected returns when a device (module: "") or a module is connected, or
// the cause of ctx's end.
func (h *Hub) WaitConnected(ctx context.Context, id, module string) error {
	return h.wait(ctx, identity{id, module}, func(r *record) bool { return r.link != nil })
}

// WaitDisconnected returns when it is not connected.
func (h *Hub) WaitDisconnected(ctx context.Context, id, module string) error {
	return h.wait(ctx, identity{id, module}, func(r *record) bool { return r.link == nil })
}

// WaitListening returns when it listens, that is, when the hub took its SUBSCRIBE
// or its link.
func (h *Hub) WaitListening(ctx context.Context, id, module string, what Listen) error {
	if what < 0 || what >= listens {
		return fmt.Errorf("emulator: there is no Listen %d", what)
	}
	return h.wait(ctx, identity{id, module}, func(r *record) bool { return r.takes(what) })
}

func (h *Hub) wait(ctx context.Context, id identity, is func(*record) bool) error {
	for {
		h.mu.Lock()
		r, missing := h.find(id)
		if missing != nil {
			h.mu.Unlock()
			return fmt.Errorf("emulator: wait for %v: the hub has no such identity", id)
		}
		ok, changed := is(r), r.changed
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("emulator: wait for %v: %w", id, context.Cause(ctx))
		}
	}
}
