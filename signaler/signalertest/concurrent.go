package signalertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"websocketbridge/signaler"
)

// matches refuses every signal in its own words.
func matches(t *testing.T, ctx context.Context, h *Harness) {
	if !h.Answers {
		t.Skip("declared: the hub carries no answers; \"device refuses\" has checked that none comes back")
	}
	h.Connect(t, "pump-7", func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
		s, err := signaler.Parse(d.Payload)
		if err != nil {
			return &signaler.Refusal{Code: "no signal", Message: err.Error()}
		}
		return &signaler.Refusal{Code: "busy", Message: s.BridgeID}
	})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			s := signal("pump-7", fmt.Sprint("b", i))
			err := h.send(t, ctx, s)
			if no, ok := errors.AsType[*signaler.RefusedError](err); !ok || no.Message != s.BridgeID {
				t.Errorf("signal of bridge %s: got %v", s.BridgeID, err)
			}
		})
	}
	wg.Wait()
}

// many signals each of the devices so often, all at a time, and waits until the
// devices have received them all.
func many(t *testing.T, ctx context.Context, h *Harness, devices, each int) {
	var wg sync.WaitGroup
	for i := range devices {
		id := fmt.Sprint("pump-", i)
		room := make(chan struct{}, each)
		if h.UnderWay > 0 {
			room = make(chan struct{}, h.UnderWay)
		}
		r := newRecorder()
		h.Connect(t, id, r.handle)
		missing := make(map[string]bool)
		for j := range each {
			s := signal(id, fmt.Sprintf("b%d-%d", i, j))
			missing[s.BridgeID] = true
			wg.Go(func() {
				select {
				case room <- struct{}{}:
				case <-ctx.Done():
					return // the receiver reports it
				}
				if err := h.send(t, ctx, s); err != nil {
					t.Errorf("bridge %s: %v", s.BridgeID, err)
				}
			})
		}
		wg.Go(func() {
			for len(missing) > 0 {
				select {
				case d := <-r:
					s, err := signaler.Parse(d.Payload)
					if err != nil || s.DeviceID != id {
						t.Errorf("device %s received another's signal, or none: %v", id, err)
						return
					}
					if missing[s.BridgeID] { // a hub may deliver twice
						delete(missing, s.BridgeID)
						<-room
					}
				case <-ctx.Done():
					t.Errorf("device %s did not receive %d of %d signals", id, len(missing), each)
					return
				}
			}
		})
	}
	wg.Wait()
}
