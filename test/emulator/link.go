package emulator

import (
	"strconv"
	"time"
)

// A Listen is something a device says that it takes.
type Listen int

// What devices listen for.
const (
	ListenMethods  Listen = iota // direct methods
	ListenMessages               // cloud-to-device messages
	ListenDesired                // desired properties of the twin
	listens                      // how many
)

func (l Listen) String() string {
	return [...]string{"methods", "messages", "desired properties", "?"}[min(max(l, 0), listens)]
}

// A deviceLink is one MQTT or AMQP connection of an identity.
//
// The hub calls it with its lock held. So no method may block, or call the hub or
// the attachment; nor may the link hold a lock of its own, which these methods
// take, when it calls them. A link that queues what it has to write, and has a
// goroutine that writes it, is right.
type deviceLink interface {
	// deliver sends a message. lock is its name for complete, abandon and reject.
	// false: it cannot now (the window is full, or closed); the message stays
	// queued, and flow tells the hub to try again. The link does not change m.
	deliver(lock uint64, m *c2dMessage) bool
	// invoke sends the request of a direct method; false: it cannot.
	invoke(rid, method string, payload []byte) bool
	// desired sends a change of desired properties; false: it cannot.
	desired(version int64, patch []byte) bool
	// close cuts the connection without a goodbye. It is called at most once, and
	// the attachment is dead already. cause is for the log.
	close(cause error)
}

// An attachment is a link that the hub has taken. Its methods may be called from
// any goroutine, and do nothing once it is detached or another link took over.
type attachment struct {
	h       *Hub
	r       *record
	id      identity
	link    deviceLink // Hub.mu guards what follows
	dead    bool
	listens [listens]bool
	locked  map[uint64]*c2dMessage // sent, not settled
	calls   map[string]*methodCall // by rid
	expiry  *alarm
	lag     [listens]*alarm // Faults.ListenLag
}

// attach takes a link whose identity was checked. A connection that the identity
// has is cut without a word, and its calls in flight fail with 400027. expiry is
// the token's; the zero time: never. The error is for a hub that limits the rate
// of connections, or if the identity was deleted or disabled since.
func (h *Hub) attach(id identity, l deviceLink, expiry time.Time) (*attachment, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.enabled(id)
	if err != nil {
		return nil, err
	}
	if h.closed {
		return nil, errUnavailable()
	}
	if err := h.limit(opConnect, 1); err != nil {
		h.stats.ConnectsRefused++
		return nil, err
	}
	if r.link != nil {
		h.stats.Takeovers++
		h.cut(r, errTaken, errEvicted())
	}
	a := &attachment{h: h, r: r, id: id, link: l, locked: make(map[uint64]*c2dMessage), calls: make(map[string]*methodCall)}
	h.noteState(r)
	r.link, r.lastActivity = a, time.Now()
	h.stats.Connects[id.String()]++
	if !expiry.IsZero() {
		a.expire(expiry)
	}
	r.signal()
	h.log.Debug("connected", "device", id.Device, "module", id.Module)
	return a, nil
}

// expire cuts the link when its token is over, and the grace too. The caller
// holds mu.
func (a *attachment) expire(expiry time.Time) {
	a.h.cancel(a.expiry)
	a.expiry = a.h.at(expiry.Add(a.h.cfg.TokenGrace), func() {
		if !a.dead {
			a.h.cut(a.r, errExpired, errDisconnected())
		}
	})
}

// renew gives the link a longer life: AMQP can put another token.
func (a *attachment) renew(expiry time.Time) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if !a.dead {
		a.expire(expiry)
	}
}

// detach is for a link that ended by itself. What it had not settled is queued
// again, and calls in flight fail with 404104.
func (a *attachment) detach() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if !a.dead {
		a.h.release(a, errDisconnected())
		a.h.log.Debug("disconnected", "device", a.id.Device, "module", a.id.Module)
	}
}

// cut ends a record's connection; calls in flight fail with answer. The caller
// holds mu.
func (h *Hub) cut(r *record, cause error, answer *hubError) {
	a := r.link
	if a == nil {
		return
	}
	h.release(a, answer)
	a.link.close(cause)
	h.log.Debug("connection cut", "device", a.id.Device, "module", a.id.Module, "reason", cause)
}

// release takes an attachment out. The caller holds mu.
func (h *Hub) release(a *attachment, answer *hubError) {
	a.dead = true
	a.listens = [listens]bool{}
	h.cancel(a.expiry)
	for _, l := range a.lag {
		h.cancel(l)
	}
	for rid, c := range a.calls {
		delete(a.calls, rid)
		c.fail(answer)
	}
	h.noteState(a.r)
	a.r.link = nil
	h.stats.Disconnects++
	h.requeueAll(a)
	a.r.signal()
}

// listen says that the link takes something from now on, or not any more.
// Messages that wait flow at once, before listen returns; so the SUBACK has to be
// queued already.
func (a *attachment) listen(what Listen, on bool) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if a.dead || what < 0 || what >= listens {
		return
	}
	a.h.cancel(a.lag[what])
	if lag := time.Duration(a.h.faults.ListenLag); on && lag > 0 && !a.listens[what] {
		a.lag[what] = a.h.at(time.Now().Add(lag), func() { a.setListening(what, true) })
		return
	}
	a.setListening(what, on)
}

// setListening is listen without a lag. The caller holds mu.
func (a *attachment) setListening(what Listen, on bool) {
	if a.dead {
		return
	}
	a.listens[what] = on
	a.r.signal()
	a.h.flow(a.r)
}

// flow tries again to deliver what waits, after deliver returned false.
func (a *attachment) flow() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if !a.dead {
		a.h.flow(a.r)
	}
}

// active notes that the device said something.
func (a *attachment) active() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if !a.dead {
		a.r.lastActivity = time.Now()
	}
}

// takes says whether the record's link listens. The caller holds mu.
func (r *record) takes(what Listen) bool { return r.link != nil && r.link.listens[what] }

// noteState is for before the connection changes: REST goes on to show the state
// that it shows now, until the lag is over. The caller holds mu.
func (h *Hub) noteState(r *record) {
	r.shown = r.connectionState(h.cfg.ConnectionStateLag)
	r.shownAt = time.Now()
	r.stateUpdated = r.shownAt
}

// connectionState is what REST says; it may be stale. The caller holds mu.
func (r *record) connectionState(lag time.Duration) bool {
	if time.Since(r.shownAt) < lag {
		return r.shown
	}
	return r.link != nil
}

// newRID names a call in flight: unique in the hub, and so on a connection. The
// caller holds mu.
func (h *Hub) newRID() string {
	h.lastRID++
	return strconv.FormatUint(h.lastRID, 16)
}

// Disconnect cuts the connection of a device, or of a module, if it has one.
func (h *Hub) Disconnect(id, module string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, err := h.find(identity{id, module}); err == nil {
		h.cut(r, errTold, errDisconnected())
	}
}
