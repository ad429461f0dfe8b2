package auto_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/signaler/fake"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/signalertest"
)

// way is a signaler that answers as it is told, and counts.
type way struct {
	answer func(ctx context.Context) error
	calls  int
}

func (w *way) Signal(ctx context.Context, _ *signaler.Signal) error {
	w.calls++
	return w.answer(ctx)
}

func says(err error) *way { return &way{answer: func(context.Context) error { return err }} }

var sig = &signaler.Signal{AcceptURL: "wss://relay.example/bridge/accept", DeviceID: "pump-7"}

func TestOrder(t *testing.T) {
	no := &signaler.RefusedError{Refusal: signaler.Refusal{Code: "busy", Message: "not now"}}
	for _, tt := range []struct {
		name          string
		first, second error
		want          error
		messages      int
	}{
		{"accepted", nil, nil, nil, 0},
		{"refused", no, nil, signaler.ErrRefused, 0},
		{"offline", signaler.ErrDeviceOffline, nil, nil, 1},
		{"no module", errors.Join(method.ErrModuleNotFound, signaler.ErrDeviceNotFound), nil, nil, 1},
		{"no module and no device", errors.Join(method.ErrModuleNotFound, signaler.ErrDeviceNotFound), signaler.ErrDeviceNotFound, signaler.ErrDeviceNotFound, 1},
		{"no device", signaler.ErrDeviceNotFound, nil, signaler.ErrDeviceNotFound, 0},
		{"no handler", errors.Join(method.ErrNoHandler, no), nil, nil, 1},
		{"no answer", signaler.ErrTimedOut, nil, nil, 1},
		{"throttled", &signaler.ThrottledError{RetryAfter: time.Second}, nil, signaler.ErrThrottled, 0},
		{"credentials", signaler.ErrUnauthorized, nil, signaler.ErrUnauthorized, 0},
		{"tier", signaler.ErrNotSupported, nil, signaler.ErrNotSupported, 0},
		{"unavailable", signaler.ErrUnavailable, nil, signaler.ErrUnavailable, 0},
		{"too big", signaler.ErrTooBig, nil, signaler.ErrTooBig, 0},
		{"offline, and messages fail", signaler.ErrDeviceOffline, signaler.ErrUnavailable, signaler.ErrUnavailable, 1},
		{"offline, and the queue is full", signaler.ErrDeviceOffline, signaler.ErrThrottled, signaler.ErrThrottled, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, c := says(tt.first), says(tt.second)
			err := newAuto(t, m, c, 0).Signal(t.Context(), sig)
			if !errors.Is(err, tt.want) || m.calls != 1 || c.calls != tt.messages {
				t.Errorf("got %v after %d messages", err, c.calls)
			}
			if tt.messages > 0 && tt.second != nil && errors.Is(err, signaler.ErrDeviceOffline) {
				t.Errorf("%v is two things", err)
			}
		})
	}
}

func newAuto(t *testing.T, m, c signaler.Signaler, patience time.Duration) *auto.Signaler {
	t.Helper()
	a, err := auto.New(auto.Config{Method: m, Message: c, Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A device that takes the call and says nothing gets a message while there is time.
func TestSilentDevice(t *testing.T) {
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("direct method: %w", context.Cause(ctx))
	}
	synctest.Test(t, func(t *testing.T) {
		c := says(nil)
		start := time.Now()
		if err := newAuto(t, &way{answer: hang}, c, 0).Signal(t.Context(), sig); err != nil || c.calls != 1 || time.Since(start) != auto.DefaultPatience {
			t.Errorf("%v, %d messages, after %v", err, c.calls, time.Since(start))
		}
		left := errors.New("requester left")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, left)
		defer cancel()
		if err := newAuto(t, &way{answer: hang}, c, 0).Signal(ctx, sig); !errors.Is(err, left) || c.calls != 1 {
			t.Errorf("%v, %d messages", err, c.calls-1)
		}
	})
}

func TestValidate(t *testing.T) {
	if _, err := auto.New(auto.Config{Patience: -1}); err == nil || err.Error() != "auto: Method: is missing\nMessage: is missing\nPatience: -1ns is negative" {
		t.Error(err)
	}
}

// In front of two hubs that know the same devices, it passes what they pass: with
// devices that listen for both, as our agent does, and with older ones.
func TestConformance(t *testing.T) {
	for name, listens := range map[string][]fake.Mode{
		"method and message": {fake.Method, fake.Message}, "message only": {fake.Message},
	} {
		t.Run(name, func(t *testing.T) {
			signalertest.Run(t, func(t *testing.T) signalertest.Harness { return harness(t, listens) })
		})
	}
}

func harness(t *testing.T, listens []fake.Mode) signalertest.Harness {
	hubs := map[fake.Mode]*fake.Hub{}
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		hubs[mode] = fake.New(fake.Config{Mode: mode})
	}
	set := func(f fake.Faults) {
		for _, h := range hubs {
			if err := h.SetFaults(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	register := func(id string) {
		for _, h := range hubs {
			h.AddDevices(id)
		}
	}
	return signalertest.Harness{
		Signaler: newAuto(t, hubs[fake.Method], hubs[fake.Message], time.Minute),
		Answers:  listens[0] == fake.Method, Queues: true, RetryAfter: true, UnderWay: fake.QueueLength / 2,
		Register: func(_ *testing.T, id string) { register(id) },
		Connect: func(t *testing.T, id string, h signaler.Handler) {
			register(id)
			for _, mode := range listens {
				hub := hubs[mode]
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- hub.Source(id).Run(ctx, h) }()
				t.Cleanup(func() {
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
				})
				if err := hub.WaitOnline(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
		},
		Fail: func(t *testing.T, err error) {
			f, ok := fake.FaultFor(err)
			if !ok {
				t.Fatalf("no fault for %v", err)
			}
			set(f)
		},
		Stall: func(*testing.T) { set(fake.Faults{Hang: true}) },
	}
}
