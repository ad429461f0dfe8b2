package lent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/amenzhinsky/iothub/iotdevice/transport/mqtt"
	paho "github.com/eclipse/paho.mqtt.golang"
)

// ErrUnguarded: the client was not made with this Guard, or something undid it.
var ErrUnguarded = errors.New("client is not guarded")

// How often a connection may break before somebody else is suspected of using the
// same identity: the two end each other's connection for ever.
const (
	fightLosses = 3
	fightTime   = 5 * time.Minute
)

// A Guard makes one client safe to lend, and knows whether it is connected. The
// zero Guard is ready for use. Make the transport with Option, or, if it has a
// WithClientOptionsConfig of its own, call Configure at the end of that.
type Guard struct {
	Logger *slog.Logger // nil: silent; set before the client connects

	mu     sync.Mutex // guards what follows
	opts   *paho.ClientOptions
	conn   paho.Client   // the library's, once it was connected
	up     chan struct{} // closed while the connection is open
	losses []time.Time
}

// Option is for mqtt.New or mqtt.NewModuleTransport.
func (g *Guard) Option() mqtt.TransportOption { return mqtt.WithClientOptionsConfig(g.Configure) }

// Configure makes handlers run at the same time instead of one after the other,
// and watches the connection. Handlers that o has are called as before.
func (g *Guard) Configure(o *paho.ClientOptions) {
	o.SetOrderMatters(false)
	connected, lost := o.OnConnect, o.OnConnectionLost
	o.SetOnConnectHandler(func(c paho.Client) {
		g.changed(c, nil)
		if connected != nil { // the library's, which subscribes again
			connected(c)
		}
	})
	o.SetConnectionLostHandler(func(c paho.Client, err error) {
		g.changed(c, err)
		if lost != nil {
			lost(c, err)
		}
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opts, g.conn = o, nil
	g.up = make(chan struct{})
}

// changed looks at the connection. It does not trust the order in which paho's
// handlers come, each in a goroutine of its own.
func (g *Guard) changed(c paho.Client, lost error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn = c
	was := isClosed(g.up)
	switch is := c.IsConnectionOpen(); {
	case is && !was:
		close(g.up)
	case !is && was:
		g.up = make(chan struct{})
	}
	log := g.Logger
	if log == nil {
		return
	}
	if lost == nil {
		log.Info("lent connection is there", "client", g.opts.ClientID)
		return
	}
	now := time.Now()
	g.losses = append(g.losses, now)
	for len(g.losses) > 0 && now.Sub(g.losses[0]) > fightTime {
		g.losses = g.losses[1:]
	}
	log.Warn("lent connection is lost; its owner dials again", "client", g.opts.ClientID, "error", lost)
	if len(g.losses) >= fightLosses {
		log.Warn("lent connection breaks again and again; does another client use this identity?",
			"client", g.opts.ClientID, "losses", len(g.losses), "within", fightTime)
		g.losses = nil
	}
}

// wait returns when the connection is open, nil also when ctx has ended, and
// ErrUnguarded if this Guard does not guard the client of that device.
func (g *Guard) wait(ctx context.Context, deviceID string) error {
	g.mu.Lock()
	opts, up := g.opts, g.up
	g.mu.Unlock()
	if opts == nil {
		return fmt.Errorf("lent: %w: its transport was not made with Guard.Option, and two methods at once would stop it for good", ErrUnguarded)
	}
	if id := opts.ClientID; id != deviceID && !isModule(id, deviceID) {
		return fmt.Errorf("lent: %w: this Guard belongs to client %q, not to %q", ErrUnguarded, id, deviceID)
	}
	select {
	case <-up:
	case <-ctx.Done():
		return nil
	}
	g.mu.Lock()
	conn := g.conn
	g.mu.Unlock()
	if r := conn.OptionsReader(); r.Order() {
		return fmt.Errorf("lent: %w: its transport has SetOrderMatters(true) after all; call Guard.Configure last", ErrUnguarded)
	}
	return nil
}

// isModule reports whether a client ID is that of a module of the device.
func isModule(clientID, deviceID string) bool {
	return len(clientID) > len(deviceID)+1 && clientID[:len(deviceID)] == deviceID && clientID[len(deviceID)] == '/'
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
