package emulator

import (
	"context"
	"fmt"
	"time"
)

// SetFaults replaces the faults, and counts anew. The error says everything that
// is wrong, and nothing has changed then.
func (h *Hub) SetFaults(f Faults) error {
	if err := f.Validate(); err != nil {
		return fmt.Errorf("set faults: %w", err)
	}
	f = f.clone()
	for _, t := range f.triggers() {
		t.seen = 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = f
	return nil
}

// Faults returns the faults in force.
func (h *Hub) Faults() Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults.clone()
}

// clone shares nothing with f, and keeps the counts.
func (f Faults) clone() Faults {
	f.Method, f.REST, f.C2D, f.Feedback, f.C2DDuplicate = ptr(f.Method), ptr(f.REST), ptr(f.C2D), ptr(f.Feedback), ptr(f.C2DDuplicate)
	a, m := &f.AMQP, &f.MQTT
	a.CBS, a.CBSMute, a.Link, a.Credit, a.Cut, a.HalfOpen = ptr(a.CBS), ptr(a.CBSMute), ptr(a.Link), ptr(a.Credit), ptr(a.Cut), ptr(a.HalfOpen)
	m.ConnAck, m.ConnAckMute, m.PubAckMute, m.Cut, m.HalfOpen = ptr(m.ConnAck), ptr(m.ConnAckMute), ptr(m.PubAckMute), ptr(m.Cut), ptr(m.HalfOpen)
	m.Deaf, m.PingMute, m.Duplicate = ptr(m.Deaf), ptr(m.PingMute), ptr(m.Duplicate)
	return f
}

func ptr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// strikes asks whether a fault strikes this time, and counts. which picks the
// trigger out of the faults in force; it may return nil. device may be empty, for
// something that is no device's:
//
//	if h.strikes(func(f *Faults) *Trigger { return f.MQTT.Cut }, id.Device) { … }
//
// For a fault with settings, which copies them out as well.
func (h *Hub) strikes(which func(*Faults) *Trigger, device string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.strikeLocked(which(&h.faults), device)
}

// strikeLocked is strikes with mu held.
func (h *Hub) strikeLocked(t *Trigger, device string) bool {
	if t == nil || t.Device != "" && t.Device != device {
		return false
	}
	t.seen++
	switch {
	case t.Nth > 0:
		return t.seen == t.Nth
	case t.Every > 0:
		return t.seen%t.Every == 0
	case t.Times > 0:
		return t.seen <= t.Times
	}
	return true
}

// c2dFault is what Faults.C2D does to a message; nil: nothing.
func (h *Hub) c2dFault(ctx context.Context, id identity) *hubError {
	var f C2DFault
	if !h.strikes(func(all *Faults) *Trigger {
		if all.C2D == nil {
			return nil
		}
		f = *all.C2D
		return &all.C2D.Trigger
	}, id.Device) {
		return nil
	}
	if !sleep(ctx, time.Duration(f.Delay)) {
		return &hubError{Outcome: outcomeNone}
	}
	switch f.Outcome {
	case "rejected":
		e := errInternal()
		if f.Condition != "" {
			e.Condition = f.Condition
		}
		if f.Description != "" {
			e.Message = f.Description
		}
		return e
	case "released":
		return &hubError{Name: "released", Outcome: outcomeReleased}
	case "modified":
		return &hubError{Name: "modified", Outcome: outcomeModified}
	case "none":
		return &hubError{Name: "none", Outcome: outcomeNone}
	}
	return nil
}

// sleep waits; false: ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
