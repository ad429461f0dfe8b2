package fake

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"websocketbridge/signaler"
)

// A Hub signals devices in memory. It is a signaler.Signaler.
type Hub struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards what follows, and every device, item and listener
	devices map[string]*device
	changed chan struct{} // closed and replaced when a device comes or goes
	faults  Faults
	seen    int    // signals since the faults were set
	lastID  uint64 // of items
}

var _ signaler.Signaler = (*Hub)(nil)

// New returns a hub. It starts nothing.
func New(cfg Config) *Hub {
	if cfg.AnswerTimeout <= 0 {
		cfg.AnswerTimeout = defaultAnswerTimeout
	}
	h := &Hub{cfg: cfg, log: cfg.Logger, devices: make(map[string]*device), changed: make(chan struct{})}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.AddDevices(cfg.Devices...)
	return h
}

// AddDevices makes the hub know devices.
func (h *Hub) AddDevices(ids ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		h.device(id)
	}
}

// device returns the device, which is known from now on. The caller holds mu.
func (h *Hub) device(id string) *device {
	d := h.devices[id]
	if d == nil {
		d = &device{id: id}
		h.devices[id] = d
	}
	return d
}

// Signal implements signaler.Signaler.
func (h *Hub) Signal(ctx context.Context, s *signaler.Signal) error {
	err := h.signal(ctx, s)
	if err != nil {
		err = fmt.Errorf("fake hub: signal device %q: %w", s.DeviceID, err)
	}
	h.log.Debug("signal", "device", s.DeviceID, "bridge", s.BridgeID, "err", err)
	return err
}

func (h *Hub) signal(ctx context.Context, s *signaler.Signal) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	payload, err := s.Encode()
	if err != nil {
		return err
	}
	c, err := h.submit(s, payload)
	if c == nil {
		return err
	}
	defer h.withdraw(c)
	timer := time.NewTimer(h.cfg.AnswerTimeout)
	defer timer.Stop()
	select {
	case err := <-c.answer:
		return err
	case <-timer.C:
		return signaler.ErrTimedOut
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// submit takes the signal or refuses it. A call is returned where an answer has
// to be waited for.
func (h *Hub) submit(s *signaler.Signal, payload []byte) (*call, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.faults
	if err := f.err(); err != nil {
		return nil, err
	}
	if f.Hang {
		return newCall(s.DeviceID), nil
	}
	d := h.devices[s.DeviceID]
	if d == nil {
		if !h.cfg.AnyDevice || s.DeviceID == "" {
			return nil, signaler.ErrDeviceNotFound
		}
		d = h.device(s.DeviceID)
	}
	it := item{payload: payload}
	if f.Delay > 0 {
		it.ready = time.Now().Add(f.Delay)
	}
	if h.cfg.Mode == Message {
		d.dropExpired(time.Now())
		if d.waiting() >= QueueLength {
			return nil, fmt.Errorf("its queue of %d messages is full: %w", QueueLength, signaler.ErrThrottled)
		}
		if it.expires = s.ExpiresAt; it.expires.IsZero() {
			it.expires = time.Now().Add(MessageLife)
		}
	} else {
		if d.listener == nil {
			return nil, signaler.ErrDeviceOffline
		}
		if f.Refuse != nil {
			return nil, &signaler.RefusedError{Refusal: *f.Refuse}
		}
		it.call = newCall(s.DeviceID)
	}
	if h.lose() {
		return it.call, nil
	}
	h.enqueue(d, it)
	return it.call, nil
}

// enqueue puts a signal and its duplicates in line. The caller holds mu.
func (h *Hub) enqueue(d *device, it item) {
	var items []*item
	for i := range 1 + h.faults.Duplicate {
		h.lastID++
		next := it
		next.id, next.extra = h.lastID, i > 0
		items = append(items, &next)
	}
	if h.faults.Reorder && d.held == nil {
		d.held = items
		return
	}
	d.queue = slices.Concat(d.queue, items, d.held)
	d.held = nil
	d.wake()
}

// withdraw forgets a call that nobody waits for any more.
func (h *Hub) withdraw(c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.devices[c.device]
	if d == nil {
		return
	}
	ours := func(it *item) bool { return it.call == c && !it.extra }
	d.queue = slices.DeleteFunc(d.queue, ours)
	if d.held = slices.DeleteFunc(d.held, ours); len(d.held) == 0 {
		d.held = nil
	}
}

// DeviceState is what the hub knows of a device.
type DeviceState struct {
	ID     string `json:"deviceId"`
	Online bool   `json:"online"` // it listens
	Queued int    `json:"queued"` // signals it has not taken, or not answered
}

// Devices returns the known devices by ID.
func (h *Hub) Devices() []DeviceState {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]DeviceState, 0, len(h.devices))
	for _, d := range h.devices {
		if h.cfg.Mode == Message {
			d.dropExpired(time.Now())
		}
		all = append(all, DeviceState{ID: d.id, Online: d.listener != nil, Queued: d.waiting()})
	}
	slices.SortFunc(all, func(a, b DeviceState) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// WaitOnline returns when the device listens, or the cause of ctx's end.
func (h *Hub) WaitOnline(ctx context.Context, deviceID string) error {
	return h.wait(ctx, deviceID, true)
}

// WaitOffline returns when the device does not listen, or the cause of ctx's end.
func (h *Hub) WaitOffline(ctx context.Context, deviceID string) error {
	return h.wait(ctx, deviceID, false)
}

func (h *Hub) wait(ctx context.Context, deviceID string, online bool) error {
	for {
		h.mu.Lock()
		d, changed := h.devices[deviceID], h.changed
		is := d != nil && d.listener != nil
		h.mu.Unlock()
		if is == online {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fake hub: wait for device %q: %w", deviceID, context.Cause(ctx))
		}
	}
}
