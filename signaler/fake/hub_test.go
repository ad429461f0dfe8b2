package fake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

func signal(deviceID, bridgeID string) *signaler.Signal {
	return &signaler.Signal{AcceptURL: "wss://relay.example/bridge/accept?bridgeToken=t0k3n", DeviceID: deviceID, BridgeID: bridgeID}
}

// A device answers with what its test says and remembers the bridges.
type device struct {
	mu   sync.Mutex // guards got: a sleep orders nothing for the race detector
	got  []string
	stop context.CancelFunc
	done chan error // what Run returned
}

// listen connects a device inside a bubble.
func listen(t *testing.T, src source, answer func(ctx context.Context, bridge string) *signaler.Refusal) *device {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	d := &device{stop: cancel, done: make(chan error, 1)}
	go func() {
		d.done <- src.Run(ctx, func(ctx context.Context, del signaler.Delivery) *signaler.Refusal {
			s, err := signaler.Parse(del.Payload)
			if err != nil {
				t.Error(err)
				return nil
			}
			d.mu.Lock()
			d.got = append(d.got, s.BridgeID)
			d.mu.Unlock()
			if answer == nil {
				return nil
			}
			return answer(ctx, s.BridgeID)
		})
	}()
	synctest.Wait()
	return d
}

// block never answers.
func block(ctx context.Context, _ string) *signaler.Refusal {
	<-ctx.Done()
	return nil
}

// asked is a Signal under way.
func asked(t *testing.T, hub *fake.Hub, s *signaler.Signal) chan error {
	c := make(chan error, 1)
	go func() { c <- hub.Signal(t.Context(), s) }()
	synctest.Wait()
	return c
}

func want(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func received(t *testing.T, d *device, want ...string) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.got, want) {
		t.Errorf("the device received %q, want %q", d.got, want)
	}
}

func TestMethodTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		d := listen(t, hub.Source("pump-7"), block)
		start := time.Now()
		err := hub.Signal(t.Context(), signal("pump-7", "b1"))
		want(t, err, signaler.ErrTimedOut)
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("after %v", got)
		}
		if got, want := err.Error(), `fake hub: signal device "pump-7": no answer in time`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		received(t, d, "b1")
		d.stop()
		want(t, <-d.done, nil)
	})
}

func TestMethodLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{AnswerTimeout: time.Second})
		d := listen(t, hub.Source("pump-7"), func(_ context.Context, bridge string) *signaler.Refusal {
			if bridge == "b1" {
				time.Sleep(1500 * time.Millisecond)
				return &signaler.Refusal{Code: "busy"}
			}
			return nil
		})
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrTimedOut)
		want(t, hub.Signal(t.Context(), signal("pump-7", "b2")), nil)
		received(t, d, "b1", "b2")
	})
}

func TestMethodCallerLeavesBeforeDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		release := make(chan struct{})
		d := listen(t, hub.Source("pump-7"), func(context.Context, string) *signaler.Refusal { <-release; return nil })
		first := asked(t, hub, signal("pump-7", "b1"))
		ctx, cancel := context.WithCancelCause(t.Context())
		second := make(chan error, 1)
		go func() { second <- hub.Signal(ctx, signal("pump-7", "b2")) }()
		synctest.Wait()
		left := errors.New("requester left")
		cancel(left)
		want(t, <-second, left)
		close(release)
		want(t, <-first, nil)
		received(t, d, "b1")
	})
}

func TestMethodDeviceLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		d := listen(t, hub.Source("pump-7"), block)
		inFlight, waiting := asked(t, hub, signal("pump-7", "b1")), asked(t, hub, signal("pump-7", "b2"))
		d.stop()
		want(t, <-d.done, nil)
		want(t, <-inFlight, signaler.ErrDeviceOffline) // as IoT Hub's 404 in mid-call
		want(t, <-waiting, signaler.ErrDeviceOffline)
		want(t, hub.Signal(t.Context(), signal("pump-7", "b3")), signaler.ErrDeviceOffline)
		received(t, d, "b1")

		again := listen(t, hub.Source("pump-7"), nil)
		received(t, again)
	})
}

func TestTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		first := listen(t, hub.Source("pump-7"), func(ctx context.Context, _ string) *signaler.Refusal {
			<-ctx.Done()
			want(t, context.Cause(ctx), signaler.ErrTakenOver)
			return nil
		})
		inFlight, waiting := asked(t, hub, signal("pump-7", "b1")), asked(t, hub, signal("pump-7", "b2"))
		second := listen(t, hub.Source("pump-7"), nil)
		want(t, <-first.done, signaler.ErrTakenOver)
		want(t, <-inFlight, signaler.ErrDeviceOffline) // as IoT Hub's in-flight methods fail
		want(t, <-waiting, nil)
		received(t, first, "b1")
		received(t, second, "b2")
		want(t, hub.WaitOnline(t.Context(), "pump-7"), nil)
	})
}

func TestMessageRedelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message})
		first := listen(t, hub.Source("pump-7"), block)
		for _, b := range []string{"b1", "b2", "b3"} {
			want(t, hub.Signal(t.Context(), signal("pump-7", b)), nil)
		}
		received(t, first, "b1")
		second := listen(t, hub.Source("pump-7"), nil)
		want(t, <-first.done, signaler.ErrTakenOver)
		received(t, second, "b1", "b2", "b3") // b1 was not done
	})
}

func TestMessageRefusalIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message})
		d := listen(t, hub.Source("pump-7"), func(context.Context, string) *signaler.Refusal { return &signaler.Refusal{Code: "no"} })
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), nil)
		want(t, hub.Signal(t.Context(), signal("pump-7", "b2")), nil)
		received(t, d, "b1", "b2")
	})
}

func TestMessageQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message, Devices: []string{"pump-7", "pump-8"}})
		var all []string
		for i := range fake.QueueLength {
			all = append(all, fmt.Sprint("b", i))
			want(t, hub.Signal(t.Context(), signal("pump-7", all[i])), nil)
		}
		err := hub.Signal(t.Context(), signal("pump-7", "one more"))
		want(t, err, signaler.ErrThrottled)
		if !strings.Contains(err.Error(), "queue of 50 messages is full") {
			t.Errorf("%q does not say why", err)
		}
		want(t, hub.Signal(t.Context(), signal("pump-8", "b0")), nil)
		states := []fake.DeviceState{{ID: "pump-7", Queued: 50}, {ID: "pump-8", Queued: 1}}
		if got := hub.Devices(); !slices.Equal(got, states) {
			t.Errorf("got %+v, want %+v", got, states)
		}
		received(t, listen(t, hub.Source("pump-7"), nil), all...)
		want(t, hub.Signal(t.Context(), signal("pump-7", "one more")), nil)
	})
}

func TestMessageExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message, Devices: []string{"pump-7"}})
		short, long, past := signal("pump-7", "short"), signal("pump-7", "default"), signal("pump-7", "past")
		short.ExpiresAt = time.Now().Add(20 * time.Second)
		past.ExpiresAt = time.Now().Add(-time.Second)
		for range fake.QueueLength - 1 {
			want(t, hub.Signal(t.Context(), short), nil)
		}
		want(t, hub.Signal(t.Context(), long), nil)
		want(t, hub.Signal(t.Context(), long), signaler.ErrThrottled)
		time.Sleep(21 * time.Second)
		want(t, hub.Signal(t.Context(), past), nil) // the expired ones made room
		d := listen(t, hub.Source("pump-7"), nil)
		received(t, d, "default")
		d.stop()
		<-d.done
		want(t, hub.Signal(t.Context(), long), nil)
		time.Sleep(fake.MessageLife + time.Second)
		received(t, listen(t, hub.Source("pump-7"), nil))
		if got := hub.Devices()[0].Queued; got != 0 {
			t.Errorf("%d are queued", got)
		}
	})
}

func TestKnownDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Devices: []string{"pump-7"}})
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrDeviceOffline)
		want(t, hub.Signal(t.Context(), signal("pump-8", "b1")), signaler.ErrDeviceNotFound)
		want(t, hub.Signal(t.Context(), signal("", "b1")), signaler.ErrDeviceNotFound)
		d := listen(t, hub.Source("pump-8"), nil)
		d.stop()
		<-d.done
		want(t, hub.Signal(t.Context(), signal("pump-8", "b1")), signaler.ErrDeviceOffline)

		hub = fake.New(fake.Config{AnyDevice: true})
		want(t, hub.Signal(t.Context(), signal("pump-9", "b1")), signaler.ErrDeviceOffline)
		want(t, hub.Signal(t.Context(), signal("", "b1")), signaler.ErrDeviceNotFound)
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)
		online := make(chan error, 1)
		go func() { online <- hub.WaitOnline(t.Context(), "pump-7") }()
		other := listen(t, hub.Source("pump-8"), nil)
		select {
		case err := <-online:
			t.Fatalf("got %v for another device", err)
		default:
		}
		d := listen(t, hub.Source("pump-7"), nil)
		want(t, <-online, nil)
		other.stop()
		d.stop()
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)

		left := errors.New("test gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, left)
		defer cancel()
		want(t, hub.WaitOnline(ctx, "pump-7"), left)
	})
}

func TestRunAfterTheEnd(t *testing.T) {
	hub := fake.New(fake.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, hub.Source("pump-7").Run(ctx, nil), nil)
	want(t, remote(t, "ws://127.0.0.1:1", "pump-7").Run(ctx, nil), nil)
	if got := hub.Devices(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range []fake.Mode{fake.Method, fake.Message} {
		if got, err := fake.ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%v: got %v, %v", m, got, err)
		}
	}
	if _, err := fake.ParseMode("c2d"); err == nil || !strings.Contains(err.Error(), "neither method nor message") {
		t.Errorf("got %v", err)
	}
}
