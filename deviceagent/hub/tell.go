package hub

import (
	"fmt"
	"sync"
	"time"
)

// again is how long the log is silent about a state that lasts.
const again = 10 * time.Minute

// An occasion is something that may happen often and is logged now and then.
type occasion struct {
	mu    sync.Mutex // guards both
	last  time.Time
	since int // times that were not logged
}

func (s *Source) occasionally(o *occasion, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since++
	if now := time.Now(); o.last.IsZero() || now.Sub(o.last) >= again {
		s.log.Warn(text, "times", o.since)
		o.last, o.since = now, 0
	}
}

// A teller logs how the connection fares: a change at once, a state that lasts
// now and then. What it leaves out is there at level debug.
type teller struct {
	listened bool // ever
	renewing bool
	since    time.Time // of the trouble; zero: none
	kind     string    // of the trouble that was told last
	last     time.Time // when
}

// up tells that signals are heard.
func (t *teller) up(s *Source) {
	switch {
	case t.listened && !t.since.IsZero():
		s.log.Info("listening for signals again", "after", time.Since(t.since).Round(time.Millisecond))
	case t.listened && t.renewing:
		s.log.Debug("listening for signals with a new token")
	default:
		s.log.Info("listening for signals of the hub", "address", s.cfg.Addr)
	}
	*t = teller{listened: true}
}

// down tells of an end that was not planned.
func (t *teller) down(s *Source, e ending) {
	if e.stage == listening {
		s.stats.losses.Add(1)
	}
	if e.refused {
		s.stats.refusals.Add(1)
	}
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	kind, text, hint := s.words(e, now)
	if kind == t.kind && now.Sub(t.last) < again {
		s.log.Debug(text, "reason", e.err)
		return
	}
	t.kind, t.last = kind, now
	args := []any{"reason", e.err}
	if hint != "" {
		args = append(args, "hint", hint)
	}
	s.log.Warn(text, args...)
}

// words are for a person who looks after the device.
func (s *Source) words(e ending, now time.Time) (kind, text, hint string) {
	switch {
	case e.refused:
		hint = fmt.Sprintf("is the device enabled, and its key or certificate the one that the hub knows? is this device's clock right? it says %s", now.UTC().Format(time.RFC3339))
		return "refused", "the hub refuses this identity; trying now and then", hint
	case e.stage == listening:
		return "lost", "connection to the hub lost; trying until it is back", ""
	case e.stage == signing:
		return "unsigned", "there is no token for the hub; trying until there is", ""
	case e.stage == dialling && !s.cfg.WebSocket && blocked(e.err):
		return "unreached", "the hub is not reached; trying until it is", "where port 8883 is blocked, MQTT over WebSocket goes by port 443"
	case e.stage == dialling:
		return "unreached", "the hub is not reached; trying until it is", ""
	default:
		return "unheard", "the hub does not let this device listen; trying until it does", ""
	}
}
