package hub_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/signalertest"
	"websocketbridge/test/emulator"
)

// auto returns a signaler of both ways.
func (r *methodRig) auto(t *testing.T, module string, patience time.Duration) *auto.Signaler {
	t.Helper()
	s, err := auto.New(auto.Config{Method: r.method(t, func(c *method.Config) { c.Module, c.AskOnce = module, module == "" }), Message: r.message(t), Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The auto signaler passes the suite, with agents, and with devices that take messages
// only.
func TestAutoConformance(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		t.Run(map[bool]string{false: "agents", true: "older devices"}[older], func(t *testing.T) {
			signalertest.Run(t, func(t *testing.T) signalertest.Harness {
				r := newMethodRig(t, emulator.Config{})
				h := r.harness(r.auto(t, "", townPatience), "")
				h.Queues, h.UnderWay = true, 25 // the hub keeps 50 messages for a device
				if older {
					h.Answers = false
					h.Connect = func(t *testing.T, id string, handle signaler.Handler) {
						if _, err := r.hub.DeviceConnectionString(id); err != nil {
							r.register(t, id, "")
						}
						r.older(t, id, handle)
					}
				}
				return h
			})
		})
	}
}

// Each kind of device is reached in its way.
func TestAutoWays(t *testing.T) {
	t.Parallel()
	r := newMethodRig(t, emulator.Config{Devices: []emulator.Device{
		{ID: "module", Modules: []emulator.Module{{ID: "bridge"}}}, {ID: "older"}, {ID: "off", Modules: []emulator.Module{{ID: "bridge"}}},
	}})
	s := r.auto(t, "bridge", townPatience)
	got := make(chan signaler.Delivery, 10)
	take := func(_ context.Context, d signaler.Delivery) *signaler.Refusal { got <- d; return nil }
	r.agent(t, "module", "bridge", take)
	r.older(t, "older", take)
	for _, id := range []string{"module", "older"} {
		if err := s.Signal(t.Context(), aSignal(id)); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-got:
			if sig, err := signaler.Parse(d.Payload); err != nil || sig.DeviceID != id || d.Answers != (id == "module") {
				t.Errorf("%s got %v, %v", id, d, err)
			}
		case <-time.After(townPatience):
			t.Fatalf("%s got nothing", id)
		}
	}
	// The hub keeps the message for a device that is off, for as long as the token lives.
	if err := s.Signal(t.Context(), aSignal("off")); err != nil {
		t.Error(err)
	}
	if err := s.Signal(t.Context(), aSignal("none")); !errors.Is(err, signaler.ErrDeviceNotFound) {
		t.Errorf("got %v", err)
	}
	if n := r.hub.Stats().MessagesAccepted; n != 2 {
		t.Errorf("%d messages", n)
	}
}
