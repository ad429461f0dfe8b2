// Package hub_test runs relay, agent, signalers and the hub connection together
// against the emulator of IoT Hub, over real sockets on the loopback address.
package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/hub"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
	"websocketbridge/test/testlog"
)

// townPatience bounds every wait for a state. It measures nothing.
const townPatience = 60 * time.Second

// ways are how a relay can tell a device.
var ways = []string{"c2d", "method", "auto"}

// townOptions change a town before it is built.
type townOptions struct {
	way        string          // of ways; "": c2d
	hub        emulator.Config // devices are made by the town
	devices    []string        // each has an agent; nil: pump-7
	tokenLife  time.Duration   // of the relay's and the agents'; 0: defaults
	relay      func(*relay.Config)
	source     func(*hub.Config)
	c2d        func(*c2d.Config)
	maxBridges int
	unready    bool // do not wait for the agents: they cannot connect yet
}

// town is a hub, a relay, and devices with an agent each.
type town struct {
	t       *testing.T
	opts    townOptions
	hub     *emulator.Hub
	stopHub func()
	log     *testlog.Buffer
	client  client.Config
}

func newTown(t *testing.T, o townOptions) *town {
	t.Helper()
	if len(o.devices) == 0 {
		o.devices = []string{"pump-7"}
	}
	tn := &town{t: t, opts: o, log: &testlog.Buffer{Keep: 1 << 20}}
	t.Cleanup(func() {
		if t.Failed() {
			s := tn.log.String()
			t.Logf("the end of the log:\n%s", s[max(0, len(s)-10000):])
		}
	})
	for _, id := range o.devices {
		o.hub.Devices = append(o.hub.Devices, emulator.Device{ID: id})
	}
	o.hub.Logger = tn.logger("hub")
	var err error
	if tn.hub, err = emulator.New(o.hub); err != nil {
		t.Fatal(err)
	}
	tn.stopHub = tn.run("hub", tn.hub.Run)
	tn.startRelay()
	for _, id := range o.devices {
		tn.startAgent(id)
	}
	for _, id := range o.devices {
		if !o.unready {
			tn.waitListening(id)
		}
	}
	return tn
}

func (tn *town) logger(part string) *slog.Logger {
	return slog.New(slog.NewTextHandler(tn.log, nil)).With("part", part)
}

func (tn *town) trust() *tls.Config { return &tls.Config{RootCAs: tn.hub.RootCAs()} }

func (tn *town) waitListening(id string) {
	tn.t.Helper()
	for _, what := range []emulator.Listen{emulator.ListenMessages, emulator.ListenMethods} {
		if err := tn.hub.WaitListening(tn.ctx(), id, "", what); err != nil {
			tn.t.Fatalf("%s does not listen: %v", id, err)
		}
	}
}

func (tn *town) startRelay() {
	tn.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tn.t.Fatal(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		tn.t.Fatal(err)
	}
	cfg := relay.Config{
		PublicURL: "ws://" + ln.Addr().String(), Signaler: tn.signaler(), Keys: ring, Auth: auth.AllowAll{}, Drain: -1,
		ConnectsPerDevice: -1, ConnectsPerAddress: -1, MaxPerDevice: -1, // one device and one address are everybody here
		Logger: tn.logger("relay"),
	}
	if tn.opts.relay != nil {
		tn.opts.relay(&cfg)
	}
	node, err := relay.New(cfg)
	if err != nil {
		tn.t.Fatal(err)
	}
	tn.client.URL = cfg.PublicURL
	tn.run("relay", func(ctx context.Context) error { return node.Run(ctx, relay.Listeners{Public: ln}) })
}

// signaler makes the relay's, and runs what it has to run.
func (tn *town) signaler() signaler.Signaler {
	tn.t.Helper()
	cs, err := sas.ParseConnectionString(tn.hub.ServiceConnectionString("service"))
	if err != nil {
		tn.t.Fatal(err)
	}
	cred, err := credential.FromConnectionString(cs, tn.opts.tokenLife)
	if err != nil {
		tn.t.Fatal(err)
	}
	trust := tn.trust()
	var byMessage, byMethod signaler.Signaler
	if tn.opts.way != "method" {
		cfg := c2d.Config{HostName: cs.HostName, Addr: tn.hub.AMQPAddr(), Credential: cred, TLS: trust, Logger: tn.logger("c2d")}
		if tn.opts.c2d != nil {
			tn.opts.c2d(&cfg)
		}
		s, err := c2d.New(cfg)
		if err != nil {
			tn.t.Fatal(err)
		}
		tn.run("c2d", s.Run)
		byMessage = s
	}
	if tn.opts.way == "method" || tn.opts.way == "auto" {
		if byMethod, err = method.New(method.Config{HostName: cs.HostName, Addr: tn.hub.HTTPSAddr(), Credential: cred, TLS: trust, Logger: tn.logger("method")}); err != nil {
			tn.t.Fatal(err)
		}
	}
	switch tn.opts.way {
	case "method":
		return byMethod
	case "auto":
		s, err := auto.New(auto.Config{Method: byMethod, Message: byMessage, Logger: tn.logger("auto")})
		if err != nil {
			tn.t.Fatal(err)
		}
		return s
	}
	return byMessage
}

func (tn *town) startAgent(id string) (stop func()) {
	tn.t.Helper()
	text, err := tn.hub.DeviceConnectionString(id)
	if err != nil {
		tn.t.Fatal(err)
	}
	cs, err := sas.ParseConnectionString(text)
	if err != nil {
		tn.t.Fatal(err)
	}
	hc := hub.Config{
		HostName: cs.HostName, DeviceID: id, Key: cs.Key, Addr: tn.hub.MQTTAddr(), TLS: tn.trust(),
		TokenLife: tn.opts.tokenLife, Logger: tn.logger("agent " + id),
	}
	if tn.opts.source != nil {
		tn.opts.source(&hc)
	}
	source, err := hub.New(hc)
	if err != nil {
		tn.t.Fatal(err)
	}
	targets, err := deviceagent.ParseTargets([]string{"echo"})
	if err != nil {
		tn.t.Fatal(err)
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID: id, Source: source, RelayHosts: []string{"127.0.0.1"}, Targets: targets, MaxBridges: max(tn.opts.maxBridges, 100),
		Logger: tn.logger("agent " + id),
	})
	if err != nil {
		tn.t.Fatal(err)
	}
	return tn.run("agent "+id, agent.Run)
}

// run starts a part and returns what stops it and waits for its end. The end of
// the test does so, too.
func (tn *town) run(name string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			tn.t.Errorf("%s failed: %v", name, err)
		}
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(townPatience):
			tn.t.Errorf("%s does not stop", name)
		}
	}
	tn.t.Cleanup(stop)
	return stop
}

func (tn *town) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), townPatience)
	tn.t.Cleanup(cancel)
	return ctx
}

// bridge makes a bridge to id, sends text through its target echo and gets it
// back.
func (tn *town) bridge(ctx context.Context, id string) error {
	s, err := client.Dial(ctx, tn.client, client.Request{Device: id, Targets: []string{"echo"}})
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := s.Open(ctx, "echo")
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c, "hello "+id)
}

// echo sends and expects the same bytes back.
func echo(c io.ReadWriter, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("echo gave %q for %q", b, text)
	}
	return nil
}

// openBridge is one that stays, and has to survive whatever the hub does.
type openBridge struct{ c io.ReadWriteCloser }

func (tn *town) open(id string) *openBridge {
	tn.t.Helper()
	s, err := client.Dial(tn.ctx(), tn.client, client.Request{Device: id, Targets: []string{"echo"}})
	if err != nil {
		tn.t.Fatal(err)
	}
	tn.t.Cleanup(func() { s.Close() })
	c, err := s.Open(tn.ctx(), "echo")
	if err != nil {
		tn.t.Fatal(err)
	}
	o := &openBridge{c}
	o.check(tn.t)
	return o
}

func (o *openBridge) check(t *testing.T) {
	t.Helper()
	if err := echo(o.c, "still here"); err != nil {
		t.Errorf("an open bridge noticed: %v", err)
	}
}

// untilBridge waits until bridges can be made, and returns how long that took.
func (tn *town) untilBridge(id string) time.Duration {
	tn.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(context.Background(), townPatience, errors.New("no bridge in time"))
	defer cancel()
	for {
		err := tn.bridge(ctx, id)
		if err == nil {
			return time.Since(began)
		}
		if ctx.Err() != nil {
			tn.t.Fatalf("signalling does not come back: %v", err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
