package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/hub"
	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/sas"
	"websocketbridge/signaler/signalertest"
	"websocketbridge/test/emulator"
	"websocketbridge/test/netfault"
)

// methodRig is an emulator and what a signaler needs to reach it.
type methodRig struct {
	hub  *emulator.Hub
	cred credential.Source
	tls  *tls.Config
	form string // of errors, kept through all faults
}

func newMethodRig(t *testing.T, cfg emulator.Config) *methodRig {
	t.Helper()
	h, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, h.Run)
	cs, err := sas.ParseConnectionString(h.ServiceConnectionString("service"))
	if err != nil {
		t.Fatal(err)
	}
	cred, err := credential.FromConnectionString(cs, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &methodRig{hub: h, cred: cred, tls: &tls.Config{RootCAs: h.RootCAs()}, form: cfg.Faults.ErrorForm}
}

// runUntilEnd runs f until the test ends, and waits for it.
func runUntilEnd(t *testing.T, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// method returns a signaler. change may be nil.
func (r *methodRig) method(t *testing.T, change func(*method.Config)) *method.Signaler {
	t.Helper()
	cfg := method.Config{HostName: r.hub.HostName(), Addr: r.hub.HTTPSAddr(), Credential: r.cred, TLS: r.tls, Proxy: netfault.NoProxy}
	if change != nil {
		change(&cfg)
	}
	s, err := method.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// message returns a signaler that is connected to the hub.
func (r *methodRig) message(t *testing.T) *c2d.Signaler {
	t.Helper()
	s, err := c2d.New(c2d.Config{HostName: r.hub.HostName(), Addr: r.hub.AMQPAddr(), Credential: r.cred, TLS: r.tls, Proxy: netfault.NoProxy})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, s.Run)
	return s
}

// register makes the hub know a device, and its module if there is to be one.
func (r *methodRig) register(t *testing.T, device, module string) {
	t.Helper()
	d := emulator.Device{ID: device}
	if module != "" {
		d.Modules = []emulator.Module{{ID: module}}
	}
	if _, err := r.hub.PutDevice(d); err != nil {
		t.Fatal(err)
	}
}

// agent connects as our agent does, and returns when the hub knows that it listens.
func (r *methodRig) agent(t *testing.T, device, module string, h signaler.Handler) {
	t.Helper()
	text, err := r.hub.DeviceConnectionString(device)
	if module != "" {
		text, err = r.hub.ModuleConnectionString(device, module)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := hub.FromConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr, cfg.TLS, cfg.Proxy = r.hub.MQTTAddr(), r.tls, netfault.NoProxy
	src, err := hub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, func(ctx context.Context) error { return src.Run(ctx, h) })
	r.listening(t, device, module, emulator.ListenMethods)
	if module == "" {
		r.listening(t, device, "", emulator.ListenMessages)
	}
}

func (r *methodRig) listening(t *testing.T, device, module string, what emulator.Listen) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), townPatience)
	defer cancel()
	if err := r.hub.WaitListening(ctx, device, module, what); err != nil {
		t.Fatal(err)
	}
}

// older connects a device that takes messages only.
func (r *methodRig) older(t *testing.T, device string, h signaler.Handler) {
	t.Helper()
	text, err := r.hub.DeviceConnectionString(device)
	if err != nil {
		t.Fatal(err)
	}
	cs, err := sas.ParseConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	password, err := sas.Sign(cs.Resource(), "", cs.Key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := mqtt.NewClientOptions().AddBroker("tls://" + r.hub.MQTTAddr()).SetTLSConfig(&tls.Config{RootCAs: r.hub.RootCAs(), ServerName: r.hub.HostName()}).
		SetClientID(device).SetUsername(fmt.Sprintf("%s/%s/?api-version=2021-04-12", r.hub.HostName(), device)).SetPassword(password).SetOrderMatters(false)
	c := mqtt.NewClient(o)
	for _, do := range []func() mqtt.Token{
		c.Connect,
		func() mqtt.Token {
			return c.Subscribe("devices/"+device+"/messages/devicebound/#", 1, func(_ mqtt.Client, m mqtt.Message) {
				h(ctx, signaler.Delivery{Payload: m.Payload()})
			})
		},
	} {
		if token := do(); !token.WaitTimeout(townPatience) || token.Error() != nil {
			cancel()
			t.Fatal(token.Error())
		}
	}
	t.Cleanup(func() { cancel(); c.Disconnect(0) })
	r.listening(t, device, "", emulator.ListenMessages)
}

// fail makes the hub answer every call and every message with an error.
func (r *methodRig) fail(t *testing.T, err error) {
	t.Helper()
	call := &emulator.AnswerFault{}
	message := &emulator.C2DFault{Outcome: "rejected"}
	switch e := (*signaler.ThrottledError)(nil); {
	case errors.As(err, &e):
		call.Error, call.RetryAfter = "throttled", emulator.Duration(e.RetryAfter)
		message.Condition = "com.microsoft:device-container-throttled"
	case errors.Is(err, signaler.ErrThrottled):
		call.Error, message.Condition = "throttled", "com.microsoft:device-container-throttled"
	case errors.Is(err, signaler.ErrUnauthorized):
		call.Error, message.Condition = "unauthorized", "amqp:unauthorized-access"
	case errors.Is(err, signaler.ErrNotSupported):
		call.Error, message.Condition = "tier", "amqp:not-allowed"
	case errors.Is(err, signaler.ErrUnavailable):
		call.Error, message.Condition = "unavailable", "amqp:internal-error"
	default:
		t.Fatalf("no fault for %v", err)
	}
	r.set(t, emulator.Faults{Method: call, C2D: message})
}

func (r *methodRig) stall(t *testing.T) {
	t.Helper()
	r.set(t, emulator.Faults{Method: &emulator.AnswerFault{Stall: true}, C2D: &emulator.C2DFault{Outcome: "none"}})
}

func (r *methodRig) set(t *testing.T, f emulator.Faults) {
	t.Helper()
	f.ErrorForm = r.form
	if err := r.hub.SetFaults(f); err != nil {
		t.Fatal(err)
	}
}

// harness is what both conformance tests have in common.
func (r *methodRig) harness(s signaler.Signaler, module string) signalertest.Harness {
	return signalertest.Harness{
		Signaler: s, Answers: true, RetryAfter: true,
		Register: func(t *testing.T, id string) { r.register(t, id, module) },
		Connect: func(t *testing.T, id string, h signaler.Handler) {
			if _, err := r.hub.DeviceConnectionString(id); err != nil {
				r.register(t, id, module)
			}
			r.agent(t, id, module, h)
		},
		Fail: r.fail, Stall: r.stall,
	}
}

// aSignal is for tests that send by themselves.
func aSignal(device string) *signaler.Signal {
	return &signaler.Signal{
		AcceptURL: "wss://relay.example/bridge/accept?bridgeToken=t0k3n", Version: signaler.Version, BridgeID: "b1", DeviceID: device,
		ExpiresAt: time.Now().Add(time.Minute).UTC().Truncate(time.Second),
	}
}

func acceptAll(context.Context, signaler.Delivery) *signaler.Refusal { return nil }
