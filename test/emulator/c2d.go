package emulator

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// A property of a message. A nil Value is null: a bare key on the wire.
type property struct {
	Name  string
	Value *string
}

// A c2dMessage is a cloud-to-device message. Who queues one does not change it
// any more.
type c2dMessage struct {
	ID, CorrelationID, UserID, ContentType, ContentEncoding, To string
	Ack                                                         string    // none, positive, negative or full, in any case; "" is none
	Expiry                                                      time.Time // zero: the hub's life of a message
	Properties                                                  []property
	Body                                                        []byte

	// The hub fills in what follows, and changes it under its lock: a link reads
	// it in deliver only.
	Enqueued   time.Time
	Deliveries int // times that it was abandoned
	Sent       int // times that deliver took it; more than 1: a duplicate may be the device's

	seq     uint64
	expiry  *alarm
	unlock  *alarm
	lock    uint64 // 0: queued
	pending bool   // in the queue or locked
	twice   bool   // deliver it once more, by a fault
}

// size is what counts for the limit: body and properties.
func (m *c2dMessage) size() int {
	n := len(m.Body)
	for _, p := range m.Properties {
		n += len(p.Name)
		if p.Value != nil {
			n += len(*p.Value)
		}
	}
	return n
}

// A queue is a device's messages in order, those that are locked too.
type queue []*c2dMessage

// enqueueC2D takes a message, or says why not. It blocks while the hub shapes
// traffic, so a caller that serves other links as well calls it in a goroutine.
// An error's Outcome says what AMQP is to answer.
func (h *Hub) enqueueC2D(ctx context.Context, id identity, m *c2dMessage) *hubError {
	if err := h.c2dFault(ctx, id); err != nil {
		return h.c2dRefused(err)
	}
	if err := h.throttle(ctx, opC2D, 1); err != nil {
		return h.c2dRefused(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.takeC2D(id, m); err != nil {
		h.stats.MessagesRejected++
		return err
	}
	h.stats.MessagesAccepted++
	return nil
}

func (h *Hub) c2dRefused(err *hubError) *hubError {
	h.count(func(s *Stats) { s.MessagesRejected++ })
	return err
}

// takeC2D is enqueueC2D with mu held, after the rates.
func (h *Hub) takeC2D(id identity, m *c2dMessage) *hubError {
	if !h.tier().devices {
		return errTier(h.cfg.Tier, "Cloud-to-device messages are")
	}
	r, err := h.enabled(id)
	if err != nil {
		return err
	}
	if id.Module != "" && !h.cfg.ModuleMessages {
		return errAddress("devices/" + id.Device + "/modules/" + id.Module + "/messages/devicebound")
	}
	m.Ack = strings.ToLower(m.Ack)
	if !slices.Contains([]string{"", "none", "positive", "negative", "full"}, m.Ack) {
		return errArgument("iothub-ack is not none, positive, negative or full.")
	}
	if n := m.size(); n > maxMessage {
		return errTooLarge(413, n, maxMessage)
	}
	now := time.Now()
	switch {
	case m.Expiry.IsZero():
		m.Expiry = now.Add(h.cfg.MessageLife)
	case !m.Expiry.After(now):
		return errExpiry("The message expired at %s, before it was sent.", stamp(m.Expiry))
	case m.Expiry.After(now.Add(maxMessageLife + time.Minute)): // a minute for clocks
		return errExpiry("The message expires at %s, in more than %v.", stamp(m.Expiry), maxMessageLife)
	}
	if len(r.messages) >= h.cfg.MessageQueue {
		return errQueueFull(h.cfg.MessageQueue)
	}
	if err := h.charge(len(m.Body)); err != nil {
		return err
	}
	h.lastSeq++
	m.Enqueued, m.seq, m.pending = now, h.lastSeq, true
	m.twice = h.strikeLocked(h.faults.C2DDuplicate, id.Device)
	m.expiry = h.at(m.Expiry, func() { h.expireC2D(r, m) })
	r.messages = append(r.messages, m)
	h.flow(r)
	return nil
}

// flow delivers what it can, in order. The caller holds mu.
func (h *Hub) flow(r *record) {
	if !r.takes(ListenMessages) {
		return
	}
	now := time.Now()
	for i := 0; i < len(r.messages); {
		m := r.messages[i]
		if m.lock != 0 || !m.Expiry.After(now) { // expireC2D comes for it
			i++
			continue
		}
		a := r.link
		h.lastLock++
		lock := h.lastLock
		m.Sent++
		if !a.link.deliver(lock, m) {
			m.Sent--
			return
		}
		m.lock = lock
		a.locked[lock] = m
		m.unlock = h.at(now.Add(h.cfg.MessageLock), func() { h.requeue(a, lock) })
		if m.twice { // under a lock that nobody knows: settling it does nothing
			m.twice = false
			h.lastLock++
			a.link.deliver(h.lastLock, m)
		}
		i++
	}
}

// requeue gives messages back that were not settled, without raising their
// delivery count. They never left their places in the queue. The caller holds mu.
func (h *Hub) requeue(a *attachment, locks ...uint64) {
	for _, lock := range locks {
		m := h.unlockC2D(a, lock)
		if m == nil {
			continue
		}
		h.stats.MessagesRequeued++
		if !m.Expiry.After(time.Now()) {
			h.expireC2D(a.r, m)
		}
	}
	h.flow(a.r)
}

func (h *Hub) requeueAll(a *attachment) { h.requeue(a, slices.Collect(maps.Keys(a.locked))...) }

// unlockC2D ends a lock; nil: it was lost already. The caller holds mu.
func (h *Hub) unlockC2D(a *attachment, lock uint64) *c2dMessage {
	m := a.locked[lock]
	if m == nil {
		return nil
	}
	delete(a.locked, lock)
	h.cancel(m.unlock)
	m.lock = 0
	return m
}

// expireC2D drops a message whose time is over. One that the device has just now
// may still be completed; it is dropped when the lock ends. The caller holds mu.
func (h *Hub) expireC2D(r *record, m *c2dMessage) {
	if m.pending && m.lock == 0 {
		h.stats.MessagesExpired++
		h.finish(r, m, statusExpired)
	}
}

// finish drops a message and says so where it asks for it. The caller holds mu.
func (h *Hub) finish(r *record, m *c2dMessage, status feedbackStatus) {
	m.pending = false
	h.cancel(m.expiry)
	h.cancel(m.unlock)
	r.messages = slices.DeleteFunc(r.messages, func(q *c2dMessage) bool { return q == m })
	h.feedbackFor(r, m, status)
}

// complete, abandon and reject settle a message; false: the lock was lost, since
// 60 s have passed or the connection ended.
func (a *attachment) complete(lock uint64) bool {
	return a.settle(lock, func(r *record, m *c2dMessage) {
		a.h.stats.MessagesCompleted++
		a.h.finish(r, m, statusSuccess)
	})
}

func (a *attachment) reject(lock uint64) bool {
	return a.settle(lock, func(r *record, m *c2dMessage) { a.h.finish(r, m, statusRejected) })
}

func (a *attachment) abandon(lock uint64) bool {
	return a.settle(lock, func(r *record, m *c2dMessage) {
		if m.Deliveries++; m.Deliveries >= a.h.cfg.MaxDeliveries {
			a.h.finish(r, m, statusDeliveryCount)
			return
		}
		if !m.Expiry.After(time.Now()) {
			a.h.expireC2D(r, m)
		}
	})
}

func (a *attachment) settle(lock uint64, f func(*record, *c2dMessage)) bool {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.r.lastActivity = time.Now()
	m := a.h.unlockC2D(a, lock)
	if m == nil {
		return false
	}
	f(a.r, m)
	a.h.flow(a.r) // there is room in the window again
	return true
}

// purge drops a device's messages, with feedback Purged, and returns how many. A
// message that the device has just now goes too. The caller holds mu.
func (h *Hub) purge(r *record) int {
	n := len(r.messages)
	for _, m := range slices.Clone(r.messages) {
		if m.lock != 0 && r.link != nil {
			h.unlockC2D(r.link, m.lock)
		}
		h.finish(r, m, statusPurged)
	}
	return n
}

// dropQueue forgets a deleted identity's messages without feedback. The caller
// holds mu.
func (h *Hub) dropQueue(r *record) {
	for _, m := range r.messages {
		m.pending = false
		h.cancel(m.expiry)
		h.cancel(m.unlock)
	}
	r.messages = nil
}
