package fake_test

import (
	"context"
	"net"
	"testing"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/signaler/signalertest"
)

// A source is what the agent needs of a hub.
type source interface {
	Run(ctx context.Context, h signaler.Handler) error
}

func TestConformance(t *testing.T) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Run("in process", func(t *testing.T) {
				signalertest.Run(t, func(t *testing.T) signalertest.Harness {
					hub := fake.New(fake.Config{Mode: mode})
					return harness(hub, mode, func(id string) source { return hub.Source(id) })
				})
			})
			t.Run("endpoint", func(t *testing.T) {
				signalertest.Run(t, func(t *testing.T) signalertest.Harness {
					hub := fake.New(fake.Config{Mode: mode})
					url := serve(t, hub)
					return harness(hub, mode, func(id string) source { return remote(t, url, id) })
				})
			})
		})
	}
}

func harness(hub *fake.Hub, mode fake.Mode, connect func(id string) source) signalertest.Harness {
	h := signalertest.Harness{
		Signaler: hub, Answers: mode == fake.Method, Queues: mode == fake.Message, RetryAfter: true,
		Register: func(_ *testing.T, id string) { hub.AddDevices(id) },
		Connect: func(t *testing.T, id string, h signaler.Handler) {
			src := connect(id)
			start(t, func(ctx context.Context) error { return src.Run(ctx, h) })
			if err := hub.WaitOnline(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		Fail: func(t *testing.T, err error) {
			f, ok := fake.FaultFor(err)
			if !ok {
				t.Fatalf("no fault for %v", err)
			}
			set(t, hub, f)
		},
		Stall: func(t *testing.T) { set(t, hub, fake.Faults{Hang: true}) },
	}
	if mode == fake.Message {
		h.UnderWay = fake.QueueLength / 2
	}
	return h
}

func set(t *testing.T, hub *fake.Hub, f fake.Faults) {
	t.Helper()
	if err := hub.SetFaults(f); err != nil {
		t.Fatal(err)
	}
}

// start runs f until the test ends, and waits for it.
func start(t *testing.T, f func(ctx context.Context) error) {
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

// serve serves the hub on a loopback address.
func serve(t *testing.T, hub *fake.Hub) (url string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, func(ctx context.Context) error { return hub.Serve(ctx, ln) })
	return "ws://" + ln.Addr().String()
}

func remote(t *testing.T, url, id string) *fake.RemoteSource {
	src, err := fake.NewRemoteSource(fake.RemoteConfig{URL: url, DeviceID: id})
	if err != nil {
		t.Fatal(err)
	}
	return src
}
