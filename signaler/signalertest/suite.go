package signalertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
)

// Run runs the suite.
func Run(t *testing.T, f func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, ctx context.Context, h *Harness)
	}{
		{"delivers the signal as it is", delivers},
		{"device not found", notFound},
		{"device not connected", offline},
		{"device refuses", refuses},
		{"device answers late", slow},
		{"device never answers", silent},
		{"answers go with their signals", matches},
		{"hub does not answer", stalls},
		{"hub throttles", throttled},
		{"hub refuses the credentials", func(t *testing.T, ctx context.Context, h *Harness) { fails(t, ctx, h, signaler.ErrUnauthorized) }},
		{"hub's tier is too low", func(t *testing.T, ctx context.Context, h *Harness) { fails(t, ctx, h, signaler.ErrNotSupported) }},
		{"hub is unavailable", func(t *testing.T, ctx context.Context, h *Harness) { fails(t, ctx, h, signaler.ErrUnavailable) }},
		{"ctx has ended already", ended},
		{"signal cannot be encoded", unsendable},
		{"200 at a time to one device", func(t *testing.T, ctx context.Context, h *Harness) { many(t, ctx, h, 1, 200) }},
		{"200 at a time to 200 devices", func(t *testing.T, ctx context.Context, h *Harness) { many(t, ctx, h, 200, 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := f(t)
			h.check(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(t, ctx, &h)
		})
	}
}

func delivers(t *testing.T, ctx context.Context, h *Harness) {
	r := newRecorder()
	h.Connect(t, "pump-7", r.handle)
	for name, change := range map[string]func(*signaler.Signal){
		"full": func(*signaler.Signal) {},
		"minimal": func(s *signaler.Signal) {
			*s = signaler.Signal{AcceptURL: s.AcceptURL, DeviceID: s.DeviceID}
		},
		"no expiry":   func(s *signaler.Signal) { s.ExpiresAt = time.Time{} },
		"other bytes": func(s *signaler.Signal) { s.RequestData = "<a href=\"?x&y\">\\ ä 漢 😀 \u2028 \x00\x01\n" },
		"big":         func(s *signaler.Signal) { s.RequestData = strings.Repeat("x", 3000) },
	} {
		s := signal("pump-7", name)
		change(s)
		if err := h.send(t, ctx, s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, d := r.next(t, ctx)
		if !reflect.DeepEqual(*got, *s) {
			t.Errorf("%s: the device received another signal", name)
		}
		if d.Answers != h.Answers {
			t.Errorf("%s: Delivery.Answers is %t, Harness.Answers %t", name, d.Answers, h.Answers)
		}
	}
}

func notFound(t *testing.T, ctx context.Context, h *Harness) {
	h.Connect(t, "pump-7", newRecorder().handle)
	want(t, h.send(t, ctx, signal("pump-8", "b1")), signaler.ErrDeviceNotFound)
}

func offline(t *testing.T, ctx context.Context, h *Harness) {
	h.Register(t, "pump-7")
	if !h.Queues {
		want(t, h.send(t, ctx, signal("pump-7", "b1")), signaler.ErrDeviceOffline)
		return
	}
	missing := make(map[string]bool)
	for i := range 3 {
		s := signal("pump-7", fmt.Sprint("b", i))
		if err := h.send(t, ctx, s); err != nil {
			t.Fatal(err)
		}
		missing[s.BridgeID] = true
	}
	r := newRecorder()
	h.Connect(t, "pump-7", r.handle)
	for len(missing) > 0 {
		s, _ := r.next(t, ctx)
		delete(missing, s.BridgeID)
	}
}

func refuses(t *testing.T, ctx context.Context, h *Harness) {
	no := signaler.Refusal{Code: "target_unknown", Message: `no target "ssh" on pump-7: ask its owner <ä@example.com> & wait`}
	told := make(chan struct{}, 10)
	h.Connect(t, "pump-7", func(context.Context, signaler.Delivery) *signaler.Refusal {
		told <- struct{}{}
		return &no
	})
	err := h.send(t, ctx, signal("pump-7", "b1"))
	if !h.Answers {
		if err != nil {
			t.Errorf("got %v from a hub without answers", err)
		}
		select {
		case <-told: // it refuses through the reject URL
		case <-ctx.Done():
			t.Error("the device was not told")
		}
		return
	}
	want(t, err, signaler.ErrRefused)
	if e, ok := errors.AsType[*signaler.RefusedError](err); !ok || e.Refusal != no {
		t.Errorf("got %v, want the device's own %+v", err, no)
	}
}

func slow(t *testing.T, ctx context.Context, h *Harness) {
	told, answer := make(chan struct{}, 10), make(chan struct{})
	h.Connect(t, "pump-7", func(ctx context.Context, _ signaler.Delivery) *signaler.Refusal {
		told <- struct{}{}
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return nil
	})
	result := make(chan error, 1)
	go func() { result <- h.send(t, ctx, signal("pump-7", "b1")) }()
	select {
	case <-told:
	case <-ctx.Done():
		t.Fatal("the device was not told")
	}
	if h.Answers {
		select {
		case err := <-result:
			t.Errorf("got %v before the device answered", err)
			result <- err
		default:
		}
	}
	close(answer)
	if err := <-result; err != nil {
		t.Errorf("got %v", err)
	}
}

// errLeft stands for the relay's cause: the requester hung up.
var errLeft = errors.New("requester left")

func silent(t *testing.T, ctx context.Context, h *Harness) {
	told, answer := make(chan struct{}, 10), make(chan struct{})
	h.Connect(t, "pump-7", func(ctx context.Context, _ signaler.Delivery) *signaler.Refusal {
		told <- struct{}{}
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return nil
	})
	sctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan error, 1)
	go func() { result <- h.send(t, sctx, signal("pump-7", "b1")) }()
	select {
	case <-told:
	case <-ctx.Done():
		t.Fatal("the device was not told")
	}
	if !h.Answers {
		if err := <-result; err != nil {
			t.Errorf("got %v from a hub without answers", err)
		}
		return
	}
	cancel(errLeft)
	want(t, <-result, errLeft)
	close(answer) // too late for the first, and no answer to the second
	if err := h.send(t, ctx, signal("pump-7", "b2")); err != nil {
		t.Errorf("the next signal: %v", err)
	}
}

func stalls(t *testing.T, ctx context.Context, h *Harness) {
	h.Connect(t, "pump-7", newRecorder().handle)
	h.Stall(t)
	t.Run("deadline", func(t *testing.T) {
		sctx, cancel := context.WithTimeoutCause(ctx, 50*time.Millisecond, errLeft)
		defer cancel()
		want(t, h.send(t, sctx, signal("pump-7", "b1")), errLeft)
	})
	t.Run("cancel", func(t *testing.T) {
		sctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		result := make(chan error)
		go func() { result <- h.send(t, sctx, signal("pump-7", "b2")) }()
		cancel(errLeft) // before, in or after the request: all have to work
		want(t, <-result, errLeft)
	})
	if ctx.Err() != nil {
		t.Error("Signal outlived its ctx")
	}
}

func throttled(t *testing.T, ctx context.Context, h *Harness) {
	fails(t, ctx, h, signaler.ErrThrottled)
	if !h.RetryAfter {
		return
	}
	const after = 3 * time.Second
	h.Fail(t, &signaler.ThrottledError{RetryAfter: after})
	err := h.send(t, ctx, signal("pump-7", "b2"))
	want(t, err, signaler.ErrThrottled)
	if e, ok := errors.AsType[*signaler.ThrottledError](err); !ok || e.RetryAfter != after {
		t.Errorf("got %v, want to retry after %v", err, after)
	}
}

func fails(t *testing.T, ctx context.Context, h *Harness, failure error) {
	if why, ok := h.Cannot[failure]; ok {
		t.Skipf("declared: the hub cannot show %q: %s", failure, why)
	}
	h.Connect(t, "pump-7", newRecorder().handle)
	h.Fail(t, failure)
	want(t, h.send(t, ctx, signal("pump-7", "b1")), failure)
}

func ended(t *testing.T, ctx context.Context, h *Harness) {
	r := newRecorder()
	h.Connect(t, "pump-7", r.handle)
	sctx, cancel := context.WithCancelCause(ctx)
	cancel(errLeft)
	want(t, h.send(t, sctx, signal("pump-7", "b1")), errLeft)
	if err := h.send(t, ctx, signal("pump-7", "b2")); err != nil {
		t.Fatal(err)
	}
	if s, _ := r.next(t, ctx); s.BridgeID != "b2" {
		t.Errorf("the device received the signal of bridge %s", s.BridgeID)
	}
}

func unsendable(t *testing.T, ctx context.Context, h *Harness) {
	r := newRecorder()
	h.Connect(t, "pump-7", r.handle)
	for name, change := range map[string]func(*signaler.Signal){
		"too big":       func(s *signaler.Signal) { s.RequestData = strings.Repeat("x", signaler.MaxSize) },
		"not UTF-8":     func(s *signaler.Signal) { s.RequestData = "\xff" },
		"no accept URL": func(s *signaler.Signal) { s.AcceptURL = "" },
	} {
		s := signal("pump-7", "b1")
		change(s)
		if h.send(t, ctx, s) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := h.send(t, ctx, signal("pump-7", "b2")); err != nil {
		t.Fatal(err)
	}
	if s, _ := r.next(t, ctx); s.BridgeID != "b2" {
		t.Errorf("the device received the signal of bridge %s", s.BridgeID)
	}
}
