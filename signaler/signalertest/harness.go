package signalertest

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
)

// patience is when the suite stops to wait: a loaded CI machine and a real hub
// are slow, a deadlock is for ever.
const patience = time.Minute

// A Harness is an implementation and the hub behind it. The hub knows no device
// at first. Functions fail t by themselves and undo themselves in t.Cleanup.
type Harness struct {
	Signaler signaler.Signaler

	// Answers: the device's answer comes back through the hub (direct method).
	Answers bool
	// Queues: the hub takes signals for a device that is not connected, and
	// delivers them when it connects. Otherwise such a device is offline.
	Queues bool
	// RetryAfter: a hub that throttles says how long to wait.
	RetryAfter bool
	// UnderWay is how many signals to one device the hub may be asked to hold at a
	// time, with some room for what was delivered but not yet acknowledged;
	// 0: any number.
	UnderWay int

	// Register makes the hub know a device that is not connected.
	Register func(t *testing.T, deviceID string)
	// Connect connects a device, known or not, and returns when the hub sees it.
	// The handler may block until its ctx ends: the device is silent then.
	Connect func(t *testing.T, deviceID string, h signaler.Handler)
	// Fail makes the hub fail every signal from now on. err is one of the keys of
	// Failures, or a *signaler.ThrottledError that says how long to wait.
	Fail func(t *testing.T, err error)
	// Stall makes the hub leave every signal without an answer from now on.
	Stall func(t *testing.T)

	// Cannot holds the Failures that the hub cannot show, and why.
	Cannot map[error]string
}

// Failures are what Fail is asked for.
func Failures() []error {
	return []error{signaler.ErrThrottled, signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrUnavailable}
}

func (h *Harness) check(t *testing.T) {
	t.Helper()
	if h.Signaler == nil || h.Register == nil || h.Connect == nil || h.Fail == nil || h.Stall == nil {
		t.Fatal("the harness has a nil field")
	}
	known := make(map[error]bool)
	for _, err := range Failures() {
		known[err] = true
	}
	for err, why := range h.Cannot {
		if !known[err] || why == "" {
			t.Fatalf("the harness declares without a case or without a reason that it cannot show %q: %q", err, why)
		}
	}
}

// signal returns a full signal; its secrets are those that keepsSecrets seeks.
func signal(deviceID, bridgeID string) *signaler.Signal {
	return &signaler.Signal{
		AcceptURL:   "wss://relay.example/bridge/accept?bridgeToken=t0k3n-" + bridgeID,
		RequestData: "req-secret-" + bridgeID,
		Version:     signaler.Version, BridgeID: bridgeID, DeviceID: deviceID, Target: "ssh", Principal: "ops@example.com",
		ExpiresAt:    time.Now().Add(time.Hour).UTC().Truncate(time.Second),
		RejectURL:    "https://relay.example/bridge/reject?bridgeToken=t0k3n-" + bridgeID,
		Subprotocols: []string{"bridge.session.v1", "mqtt"},
		Sig:          "c2lnbmF0dXJl",
	}
}

// send signals, and checks what holds for every signal: it comes back as it was,
// and the error says nothing secret and at most one thing.
func (h *Harness) send(t *testing.T, ctx context.Context, s *signaler.Signal) error {
	t.Helper()
	before := *s
	before.Subprotocols = append([]string(nil), s.Subprotocols...)
	err := h.Signaler.Signal(ctx, s)
	if !reflect.DeepEqual(*s, before) {
		t.Errorf("Signal changed the signal of bridge %s", before.BridgeID)
	}
	if err == nil {
		return nil
	}
	for _, secret := range []string{"t0k3n", "bridgeToken", "req-secret", "relay.example"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds a secret: %v", err)
		}
	}
	var said []error
	for _, sentinel := range []error{
		signaler.ErrDeviceNotFound, signaler.ErrDeviceOffline, signaler.ErrRefused, signaler.ErrTimedOut,
		signaler.ErrThrottled, signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrUnavailable,
	} {
		if errors.Is(err, sentinel) {
			said = append(said, sentinel)
		}
	}
	if len(said) > 1 {
		t.Errorf("%v is more than one thing: %q", err, said)
	}
	return err
}

// want checks that err is the sentinel.
func want(t *testing.T, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("got error %v, want %v", err, sentinel)
	}
}

// A recorder is a device that accepts and remembers.
type recorder chan signaler.Delivery

func newRecorder() recorder { return make(recorder, 1000) }

func (r recorder) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	r <- d
	return nil
}

// next returns the next signal that the device received.
func (r recorder) next(t *testing.T, ctx context.Context) (*signaler.Signal, signaler.Delivery) {
	t.Helper()
	select {
	case d := <-r:
		s, err := signaler.Parse(d.Payload)
		if err != nil {
			t.Fatalf("the device received what is no signal: %v", err)
		}
		return s, d
	case <-ctx.Done():
		t.Fatal("the device did not receive the signal")
		return nil, signaler.Delivery{}
	}
}
