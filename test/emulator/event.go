package emulator

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// An Event is telemetry that a device or a module sent.
type Event struct {
	Seq        uint64 // 1, 2, 3 …
	Time       time.Time
	Device     string
	Module     string
	Properties map[string]string // system ones by their names on the wire, such as $.mid; null as ""
	Body       []byte
}

// maxEventBytes is how much the log keeps, whatever Config.EventLog says.
const maxEventBytes = 32 << 20

// events is the log. Hub.mu guards it.
type events struct {
	log     []Event
	bytes   int
	last    uint64
	changed chan struct{} // closed and replaced when one comes
}

func (e *Event) size() int {
	n := len(e.Body) + 200
	for k, v := range e.Properties {
		n += len(k) + len(v)
	}
	return n
}

// telemetry takes an event; the hub fills in Seq, Time, Device and Module. An
// error is a reason for MQTT to close the connection.
func (a *attachment) telemetry(e Event) *hubError {
	h := a.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.dead {
		return errDisconnected()
	}
	if len(e.Body) > maxEvent {
		return errTooLarge(413, len(e.Body), maxEvent)
	}
	if err := h.charge(len(e.Body)); err != nil {
		return err
	}
	h.addEvent(a.r, e)
	return nil
}

// lastWill is telemetry of a link that ended without a goodbye; the attachment
// may be dead.
func (a *attachment) lastWill(e Event) {
	h := a.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if !a.r.deleted && len(e.Body) <= maxEvent {
		h.addEvent(a.r, e)
	}
}

// addEvent puts an event into the log. The caller holds mu.
func (h *Hub) addEvent(r *record, e Event) {
	l := &h.events
	l.last++
	e.Seq, e.Time, e.Device, e.Module = l.last, time.Now(), r.id.Device, r.id.Module
	r.lastActivity = e.Time
	l.log = append(l.log, e)
	l.bytes += e.size()
	for len(l.log) > h.cfg.EventLog || l.bytes > maxEventBytes {
		l.bytes -= l.log[0].size()
		l.log[0] = Event{} // the array outlives it for a while
		l.log = l.log[1:]
	}
	h.stats.Events++
	close(l.changed)
	l.changed = make(chan struct{})
}

// Events returns the telemetry that is still in the log, the oldest first.
func (h *Hub) Events() []Event {
	out, _ := h.eventsAfter(0)
	return out
}

// FollowEvents calls f for each event in the log and then for each that comes,
// until ctx ends or f returns false. Events that come faster than f takes them
// are lost once they leave the log; their Seq is missing then.
func (h *Hub) FollowEvents(ctx context.Context, f func(Event) bool) {
	for after := uint64(0); ; {
		events, changed := h.eventsAfter(after)
		for _, e := range events {
			if !f(e) {
				return
			}
			after = e.Seq
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// eventsAfter returns the events after one, and what is closed when there are
// more.
func (h *Hub) eventsAfter(seq uint64) ([]Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Event
	for _, e := range h.events.log {
		if e.Seq > seq {
			e.Properties, e.Body = maps.Clone(e.Properties), slices.Clone(e.Body)
			out = append(out, e)
		}
	}
	return out, h.events.changed
}

// MarshalJSON writes the form of the admin API: the body is text if it is one.
func (e Event) MarshalJSON() ([]byte, error) {
	out := struct {
		Seq        uint64            `json:"seq"`
		Time       time.Time         `json:"time"`
		Device     string            `json:"deviceId"`
		Module     string            `json:"moduleId,omitempty"`
		Properties map[string]string `json:"properties,omitempty"`
		Body       *string           `json:"body,omitempty"`
		Base64     []byte            `json:"bodyBase64,omitempty"`
	}{Seq: e.Seq, Time: e.Time.UTC(), Device: e.Device, Module: e.Module, Properties: e.Properties}
	if utf8.Valid(e.Body) {
		out.Body = new(string(e.Body))
	} else {
		out.Base64 = e.Body
	}
	return json.Marshal(out)
}
