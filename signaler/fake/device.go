package fake

import (
	"context"
	"errors"
	"slices"
	"time"

	"websocketbridge/signaler"
)

// A device is known to the hub. Hub.mu guards it and what it holds.
type device struct {
	id       string
	queue    []*item   // oldest first; those handed to the listener stay until it is done with them
	held     []*item   // what Reorder keeps back: one signal and its duplicates
	listener *listener // nil: offline
}

// An item is one delivery to make.
type item struct {
	id      uint64
	payload []byte
	ready   time.Time // not delivered before
	expires time.Time // Message mode: dropped after
	extra   bool      // a duplicate; its answer does not count, nor it in the queue
	call    *call     // who waits for the answer; nil in Message mode
	with    *listener // who has it; nil: nobody
}

// A call is one Signal that waits.
type call struct {
	device string
	answer chan error // takes the first answer; nil: accepted
}

func newCall(device string) *call { return &call{device: device, answer: make(chan error, 1)} }

func (c *call) settle(err error) {
	if c == nil {
		return
	}
	select {
	case c.answer <- err:
	default: // answered already, by a duplicate
	}
}

func (d *device) waiting() int {
	n := 0
	for _, it := range slices.Concat(d.queue, d.held) {
		if !it.extra {
			n++
		}
	}
	return n
}

func (d *device) dropExpired(now time.Time) {
	expired := func(it *item) bool { return it.with == nil && now.After(it.expires) }
	d.queue = slices.DeleteFunc(d.queue, expired)
	if d.held = slices.DeleteFunc(d.held, expired); len(d.held) == 0 {
		d.held = nil
	}
}

// wake makes the listener look at the queue again.
func (d *device) wake() {
	if d.listener == nil {
		return
	}
	select {
	case d.listener.look <- struct{}{}:
	default:
	}
}

// leave ends what l has. A method in flight fails, as IoT Hub's do with 404; a
// message is delivered again. The caller holds mu.
func (d *device) leave(l *listener) {
	d.queue = slices.DeleteFunc(d.queue, func(it *item) bool {
		if it.with != l {
			return false
		}
		it.with = nil
		if it.call == nil {
			return false
		}
		it.call.settle(signaler.ErrDeviceOffline)
		return true
	})
}

// A listener is one connection of a device.
type listener struct {
	hub    *Hub
	device *device
	cancel context.CancelCauseFunc
	look   chan struct{} // the queue has changed
}

// attach makes a connection of the device, the only one. Its ctx ends with the
// caller's, or with ErrTakenOver.
func (h *Hub) attach(ctx context.Context, deviceID string) (context.Context, *listener) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &listener{hub: h, cancel: cancel, look: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.device(deviceID)
	l.device = d
	if old := d.listener; old != nil {
		h.log.Info("device taken over by another connection", "device", deviceID)
		old.cancel(signaler.ErrTakenOver)
		d.leave(old)
	}
	d.listener = l
	d.wake()
	h.notify()
	return ctx, l
}

// detach ends the connection.
func (l *listener) detach() {
	l.cancel(nil)
	h, d := l.hub, l.device
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.listener != l {
		return
	}
	d.listener = nil
	d.leave(l)
	for _, it := range slices.Concat(d.queue, d.held) {
		it.call.settle(signaler.ErrDeviceOffline)
	}
	if h.cfg.Mode == Method {
		d.queue, d.held = nil, nil
	}
	h.notify()
}

// notify tells who waits for a device to come or go. The caller holds mu.
func (h *Hub) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// next returns what to deliver next, or the cause of ctx's end. Messages go out
// one by one: the next only after the one before was settled.
func (l *listener) next(ctx context.Context) (*item, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		it, again := l.take()
		if it != nil {
			return it, nil
		}
		if err := l.sleep(ctx, again); err != nil {
			return nil, err
		}
	}
}

// sleep returns when it is time to look at the queue again.
func (l *listener) sleep(ctx context.Context, again time.Duration) error {
	var ready <-chan time.Time
	if again > 0 {
		t := time.NewTimer(again)
		defer t.Stop()
		ready = t.C
	}
	select {
	case <-l.look:
	case <-ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// take returns an item, or after how long to come again; 0: when told.
func (l *listener) take() (_ *item, again time.Duration) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	d, now := l.device, time.Now()
	if d.listener != l {
		return nil, 0
	}
	messages := l.hub.cfg.Mode == Message
	if messages {
		d.dropExpired(now)
		if slices.ContainsFunc(d.queue, func(it *item) bool { return it.with == l }) {
			return nil, 0
		}
	}
	for _, it := range d.queue {
		if it.with != nil {
			continue
		}
		left := it.ready.Sub(now)
		if left <= 0 {
			it.with = l
			return it, 0
		}
		if again == 0 || left < again {
			again = left
		}
	}
	return nil, again
}

// settle takes the device's answer to a delivery. One that comes late, or that
// nobody asked for, is passed over.
func (l *listener) settle(id uint64, no *signaler.Refusal) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	i := slices.IndexFunc(l.device.queue, func(it *item) bool { return it.id == id && it.with == l })
	if i < 0 {
		return
	}
	it := l.device.queue[i]
	l.device.queue = slices.Delete(l.device.queue, i, i+1)
	var err error
	if no != nil {
		err = &signaler.RefusedError{Refusal: *no}
	}
	it.call.settle(err)
	l.device.wake()
}

// A Source is the device's side of a hub in the same process.
type Source struct {
	hub      *Hub
	deviceID string
}

// Source returns the device's side.
func (h *Hub) Source(deviceID string) *Source { return &Source{hub: h, deviceID: deviceID} }

// Run hands deliveries to handle, one after the other, until ctx ends, and then
// returns nil. It returns signaler.ErrTakenOver when another Run of the device
// replaces this one.
func (s *Source) Run(ctx context.Context, handle signaler.Handler) error {
	if ctx.Err() != nil {
		return nil
	}
	lctx, l := s.hub.attach(ctx, s.deviceID)
	defer l.detach()
	for {
		it, err := l.next(lctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, signaler.ErrTakenOver):
			return signaler.ErrTakenOver
		case err != nil:
			return err
		}
		d := signaler.Delivery{Payload: slices.Clone(it.payload), Answers: it.call != nil}
		no := handle(lctx, d)
		if lctx.Err() == nil { // otherwise the connection is gone, and no answer passes
			l.settle(it.id, no)
		}
	}
}
