package hub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/hub"
	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// agentPatience bounds every wait for a state.
const agentPatience = 60 * time.Second

const agentDevice, agentModule = "pump-7", "bridge"

// agentLab is a hub that tests of the agent's own connection can stop and start,
// and both ways to signal.
type agentLab struct {
	*testing.T
	cfg     emulator.Config
	hub     *emulator.Hub
	stopHub func()
	trust   *tls.Config
	log     *testlog.Buffer
}

// newAgentLab starts a hub that knows agentDevice with agentModule.
func newAgentLab(t *testing.T, cfg emulator.Config) *agentLab {
	t.Helper()
	l := &agentLab{T: t, log: &testlog.Buffer{}, cfg: cfg}
	if len(l.cfg.Devices) == 0 {
		l.cfg.Devices = []emulator.Device{{ID: agentDevice, Modules: []emulator.Module{{ID: agentModule}}}}
	}
	l.cfg.Logger = slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("part", "hub")
	t.Cleanup(func() {
		for _, secret := range []string{"sig=", "SharedAccessKey", "bridgeToken", "acceptUrl"} {
			if strings.Contains(l.log.String(), secret) {
				t.Errorf("%s is in a log", secret)
			}
		}
		if t.Failed() {
			s := l.log.String()
			t.Logf("the end of the log:\n%s", s[max(0, len(s)-12000):])
		}
	})
	l.startHub()
	return l
}

// startHub starts the hub, and again on the same addresses with the same keys.
func (l *agentLab) startHub() {
	l.Helper()
	h, err := emulator.New(l.cfg)
	if err != nil {
		l.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	l.stopHub = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.Error(err)
		}
	})
	l.Cleanup(l.stopHub)
	l.hub, l.trust = h, &tls.Config{RootCAs: h.RootCAs()}
}

// restartHub is the same hub again, but for its CA.
func (l *agentLab) restartHub(while func()) {
	l.Helper()
	if len(l.cfg.Devices[0].PrimaryKey) == 0 && len(l.cfg.Devices[0].Thumbprints) == 0 {
		l.Fatal("a hub that restarts needs devices with keys")
	}
	l.cfg.MQTTAddr, l.cfg.AMQPAddr, l.cfg.HTTPSAddr = l.hub.MQTTAddr(), l.hub.AMQPAddr(), l.hub.HTTPSAddr()
	l.stopHub()
	while()
	l.startHub()
}

func (l *agentLab) faults(f emulator.Faults) {
	l.Helper()
	if err := l.hub.SetFaults(f); err != nil {
		l.Fatal(err)
	}
}

// config is that of the device, or of its module.
func (l *agentLab) config(module string) hub.Config {
	l.Helper()
	text, err := l.hub.DeviceConnectionString(agentDevice)
	if module != "" {
		text, err = l.hub.ModuleConnectionString(agentDevice, module)
	}
	if err != nil {
		l.Fatal(err)
	}
	cfg, err := hub.FromConnectionString(text)
	if err != nil {
		l.Fatal(err)
	}
	cfg.Addr, cfg.TLS, cfg.Proxy = l.hub.MQTTAddr(), l.trust, netfault.NoProxy
	cfg.RetryFirst, cfg.RetryMost, cfg.RetryRefused = 100*time.Millisecond, time.Second, 200*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("part", "agent"+module)
	return cfg
}

// An agentRun is a source that runs, and what it has heard.
type agentRun struct {
	l    *agentLab
	src  *hub.Source
	stop func() error // and wait; nil: it ended since it was told to

	mu    sync.Mutex        // guards what follows
	heard map[string]int    // bridge IDs
	by    map[bool]int      // with answers, and without
	more  chan struct{}     // closed when there is more
	no    *signaler.Refusal // to everything
	at    atomic.Int64      // handlers now
	ended chan struct{}     // Run has returned
	err   error             // its error, then
}

// agent runs cfg until the test ends.
func (l *agentLab) agent(cfg hub.Config) *agentRun {
	l.Helper()
	src, err := hub.New(cfg)
	if err != nil {
		l.Fatal(err)
	}
	r := &agentRun{l: l, src: src, heard: make(map[string]int), by: make(map[bool]int), more: make(chan struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(r.ended)
		r.err = src.Run(ctx, r.handle)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case <-r.ended:
			return r.err
		case <-time.After(agentPatience):
			return errors.New("it does not stop")
		}
	})
	l.Cleanup(func() { r.stop() })
	return r
}

func (r *agentRun) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	if n := r.at.Add(1); n > 1 {
		r.l.Errorf("%d handlers at once", n)
	}
	defer r.at.Add(-1)
	s, err := signaler.Parse(d.Payload)
	if err != nil {
		return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard[s.BridgeID]++
	r.by[d.Answers]++
	close(r.more)
	r.more = make(chan struct{})
	return r.no
}

// hears waits until a bridge was heard of.
func (r *agentRun) hears(bridge string) {
	r.l.Helper()
	r.until("it hears of "+bridge, func() bool { return r.heard[bridge] > 0 })
}

// until waits until is, which it calls with the lock held, says so.
func (r *agentRun) until(what string, is func() bool) {
	r.l.Helper()
	late := time.After(agentPatience)
	for {
		r.mu.Lock()
		done, more := is(), r.more
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
		case <-r.ended:
			r.l.Fatalf("it ended before %s: %v", what, r.err)
		case <-late:
			r.l.Fatalf("waited in vain until %s", what)
		}
	}
}

// wait waits for a state that has no event, with a small ticker.
func (l *agentLab) wait(what string, is func() bool) {
	l.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(agentPatience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			l.Fatalf("waited in vain until %s", what)
		}
	}
}

// says waits until text is in the log.
func (l *agentLab) says(text string) {
	l.Helper()
	l.wait("the log says "+text, func() bool { return strings.Contains(l.log.String(), text) })
}

// listens waits until the hub has the agent's subscriptions.
func (l *agentLab) listens(module string) {
	l.Helper()
	what := []emulator.Listen{emulator.ListenMethods}
	if module == "" {
		what = append(what, emulator.ListenMessages)
	}
	for _, w := range what {
		if err := l.hub.WaitListening(l.ctx(), agentDevice, module, w); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *agentLab) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), agentPatience)
	l.Cleanup(cancel)
	return ctx
}

func (l *agentLab) credential() credential.Source {
	l.Helper()
	cs, err := sas.ParseConnectionString(l.hub.ServiceConnectionString("service"))
	if err != nil {
		l.Fatal(err)
	}
	src, err := credential.FromConnectionString(cs, 0)
	if err != nil {
		l.Fatal(err)
	}
	return src
}

// calls signals by direct method.
func (l *agentLab) calls(module string) *method.Signaler {
	l.Helper()
	s, err := method.New(method.Config{HostName: l.hub.HostName(), Addr: l.hub.HTTPSAddr(), Module: module, Credential: l.credential(), TLS: l.trust, Proxy: netfault.NoProxy})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(s.Close)
	return s
}

// messages signals by cloud-to-device message.
func (l *agentLab) messages() *c2d.Signaler {
	l.Helper()
	s, err := c2d.New(c2d.Config{HostName: l.hub.HostName(), Addr: l.hub.AMQPAddr(), Credential: l.credential(), TLS: l.trust, Proxy: netfault.NoProxy})
	if err != nil {
		l.Fatal(err)
	}
	runUntilEnd(l.T, s.Run)
	return s
}

func agentSignal(bridge string) *signaler.Signal {
	s := aSignal(agentDevice)
	s.BridgeID = bridge
	s.AcceptURL += bridge
	return s
}

// signal sends one and wants it accepted.
func (l *agentLab) signal(s signaler.Signaler, bridge string) {
	l.Helper()
	if err := s.Signal(l.ctx(), agentSignal(bridge)); err != nil {
		l.Errorf("signal %s: %v", bridge, err)
	}
}

// agentCert is a self-signed certificate and its thumbprint.
func agentCert(t *testing.T, until time.Time) (*tls.Certificate, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: agentDevice}, NotBefore: time.Unix(0, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}, hex.EncodeToString(sum[:])
}

func agentName(parts ...any) string { return strings.TrimSpace(fmt.Sprintln(parts...)) }

// rival is a program with the device's identity that comes back a moment after it
// was evicted. It hands on the messages it gets.
func (l *agentLab) rival() <-chan string {
	l.Helper()
	cfg := l.config("")
	password, err := sas.Sign(sas.Resource(l.hub.HostName(), agentDevice, ""), "", cfg.Key, time.Now().Add(time.Hour))
	if err != nil {
		l.Fatal(err)
	}
	got := make(chan string, 100)
	o := mqtt.NewClientOptions().AddBroker("tls://" + l.hub.MQTTAddr()).SetTLSConfig(&tls.Config{RootCAs: l.hub.RootCAs(), ServerName: l.hub.HostName()})
	o.SetClientID(agentDevice).SetUsername(l.hub.HostName() + "/" + agentDevice + "/?api-version=2021-04-12").SetPassword(password)
	o.SetOrderMatters(false).SetMaxReconnectInterval(100 * time.Millisecond)
	up := make(chan struct{}, 100)
	o.SetOnConnectHandler(func(c mqtt.Client) {
		t := c.Subscribe("devices/"+agentDevice+"/messages/devicebound/#", 1, func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) })
		if t.WaitTimeout(agentPatience) && t.Error() == nil {
			up <- struct{}{}
		}
	})
	c := mqtt.NewClient(o)
	c.Connect()
	l.Cleanup(func() { c.Disconnect(100) })
	select {
	case <-up:
	case <-time.After(agentPatience):
		l.Fatal("the rival does not connect")
	}
	return got
}
