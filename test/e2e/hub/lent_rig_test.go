package hub_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amenzhinsky/iothub/iotdevice"
	"github.com/amenzhinsky/iothub/iotdevice/transport/mqtt"
	"github.com/amenzhinsky/iothub/iotservice"
	"github.com/amenzhinsky/iothub/logger"
	paho "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/lent"
	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
	"websocketbridge/test/testlog"
)

const lentDevice = "pump-7"

// lentRig is a hub, a device's program with a connection of its own, what its
// maker's service sends it, and a relay's two signalers.
type lentRig struct {
	t      *testing.T
	hub    *emulator.Hub
	client *iotdevice.Client
	guard  *lent.Guard
	log    *testlog.Buffer

	byMessage *c2d.Signaler
	byMethod  *method.Signaler
	service   *iotservice.Client // the maker's
	rest      *http.Client
	bearer    string
}

// newLentRig connects the program through its guard; change sees paho's options
// after it, as a careless host's would.
func newLentRig(t *testing.T, cfg emulator.Config, change func(*paho.ClientOptions)) *lentRig {
	t.Helper()
	r := &lentRig{t: t, guard: new(lent.Guard), log: new(testlog.Buffer)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", r.log)
		}
	})
	cfg.Devices = []emulator.Device{{ID: lentDevice}}
	var err error
	if r.hub, err = emulator.New(cfg); err != nil {
		t.Fatal(err)
	}
	r.run("hub", r.hub.Run)
	trust := &tls.Config{RootCAs: r.hub.RootCAs(), ServerName: r.hub.HostName()}

	serviceCS := r.hub.ServiceConnectionString("service")
	cs, err := sas.ParseConnectionString(serviceCS)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := credential.FromConnectionString(cs, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r.byMessage, err = c2d.New(c2d.Config{HostName: cs.HostName, Addr: r.hub.AMQPAddr(), Credential: cred, TLS: trust}); err != nil {
		t.Fatal(err)
	}
	r.run("c2d", r.byMessage.Run)
	if r.byMethod, err = method.New(method.Config{HostName: cs.HostName, Addr: r.hub.HTTPSAddr(), Credential: cred, TLS: trust}); err != nil {
		t.Fatal(err)
	}
	tok, err := cred.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.bearer = tok.Text
	r.rest = &http.Client{Transport: &http.Transport{TLSClientConfig: trust, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, r.hub.HTTPSAddr())
	}}}
	t.Cleanup(r.rest.CloseIdleConnections)
	_, port, err := net.SplitHostPort(r.hub.AMQPAddr())
	if err != nil {
		t.Fatal(err)
	}
	r.service, err = iotservice.NewFromConnectionString(strings.Replace(serviceCS, cs.HostName, cs.HostName+":"+port, 1), iotservice.WithTLSConfig(trust), iotservice.WithLogger(silent))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.service.Close() })

	deviceCS, err := r.hub.DeviceConnectionString(lentDevice)
	if err != nil {
		t.Fatal(err)
	}
	r.guard.Logger = r.logger()
	tr := mqtt.New(mqtt.WithClientOptionsConfig(func(o *paho.ClientOptions) {
		o.Servers = []*url.URL{{Scheme: "tls", Host: r.hub.MQTTAddr()}}
		o.SetTLSConfig(trust.Clone())
		o.SetMaxReconnectInterval(50 * time.Millisecond)
		r.guard.Configure(o)
		if change != nil {
			change(o)
		}
	}))
	if r.client, err = iotdevice.NewFromConnectionString(tr, deviceCS, iotdevice.WithLogger(silent)); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	return r
}

var silent = logger.New(logger.LevelOff, nil)

func (r *lentRig) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r.log, nil)) }

// run runs a part until the test ends.
func (r *lentRig) run(name string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil && ctx.Err() == nil {
				r.t.Errorf("%s: %v", name, err)
			}
		case <-time.After(townPatience):
			r.t.Errorf("%s does not stop", name)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// heardSignals is what the agent would get, by bridge: a message whose
// acknowledgement is cut off comes twice.
type heardSignals struct {
	mu                sync.Mutex
	messages, methods map[string]bool
}

func (h *heardSignals) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	s, err := signaler.Parse(d.Payload)
	if err != nil {
		return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.Answers {
		h.methods[s.BridgeID] = true
	} else {
		h.messages[s.BridgeID] = true
	}
	return nil
}

func (h *heardSignals) counts() (messages, methods int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.messages), len(h.methods)
}

// source runs a lent source until the test ends, or stop.
func (r *lentRig) source(listen lent.Listen) (*lent.Source, *heardSignals, func()) {
	r.t.Helper()
	s, err := lent.New(lent.Config{Client: r.client, Guard: r.guard, Listen: listen, Logger: r.logger()})
	if err != nil {
		r.t.Fatal(err)
	}
	h := heardSignals{messages: map[string]bool{}, methods: map[string]bool{}}
	return s, &h, r.run("source", func(ctx context.Context) error { return s.Run(ctx, h.handle) })
}

// joined waits until the source is among the client's subscribers, which the hub
// cannot know: the program's subscription may have been there before.
func (r *lentRig) joined() {
	r.t.Helper()
	r.until("the source listens", func() bool { return strings.Contains(r.log.String(), "listening on the host's connection") })
}

// listening waits until the hub has the device's subscriptions.
func (r *lentRig) listening() {
	r.t.Helper()
	for _, what := range []emulator.Listen{emulator.ListenMessages, emulator.ListenMethods} {
		if err := r.hub.WaitListening(r.ctx(), lentDevice, "", what); err != nil {
			r.t.Fatalf("the device does not listen: %v", err)
		}
	}
}

func (r *lentRig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), townPatience)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *lentRig) signal(to signaler.Signaler, i int) error {
	return to.Signal(r.ctx(), &signaler.Signal{
		AcceptURL: fmt.Sprintf("wss://relay.example.com/bridge/accept?bridgeToken=%d&a=1+2", i), Version: 1,
		BridgeID: fmt.Sprintf("b%d", i), DeviceID: lentDevice, ExpiresAt: time.Now().Add(time.Minute),
	})
}

// message is the maker's.
func (r *lentRig) message(body string) error {
	return r.service.SendEvent(r.ctx(), lentDevice, []byte(body),
		iotservice.WithSendMessageID(body), iotservice.WithSendProperty("colour", "red"), iotservice.WithSendExpiryTime(time.Now().Add(time.Minute)))
}

// call is the maker's direct method.
func (r *lentRig) call(name string, payload any) (status int, answer map[string]any, err error) {
	body, err := json.Marshal(map[string]any{"methodName": name, "payload": payload, "responseTimeoutInSeconds": 10})
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(r.ctx(), http.MethodPost, "https://"+r.hub.HostName()+"/twins/"+lentDevice+"/methods?api-version=2021-04-12", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", r.bearer)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	resp, err := r.rest.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, nil, fmt.Errorf("the hub answers %s: %s", resp.Status, body)
	}
	var a struct {
		Status  int
		Payload map[string]any
	}
	err = json.Unmarshal(body, &a)
	return a.Status, a.Payload, err
}

// until waits for a state that nobody announces.
func (r *lentRig) until(what string, is func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(townPatience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("not within %v: %s", townPatience, what)
		}
	}
}

// own is the program's business: a method Reboot, and messages, which are counted
// once each. The contexts are the client's, as it has to be.
func (r *lentRig) own() (messages func() int) {
	r.t.Helper()
	if err := r.client.RegisterMethod(context.Background(), "Reboot", func(in map[string]any) (int, map[string]any, error) { return 202, in, nil }); err != nil {
		r.t.Fatal(err)
	}
	sub, err := r.client.SubscribeEvents(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var mu sync.Mutex
	got, read := map[string]bool{}, make(chan struct{})
	go func() {
		defer close(read)
		for m := range sub.C() {
			if m.Properties["colour"] == "red" {
				mu.Lock()
				got[string(m.Payload)] = true
				mu.Unlock()
			}
		}
	}()
	r.t.Cleanup(func() {
		r.client.UnsubscribeEvents(sub)
		<-read
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(got)
	}
}
