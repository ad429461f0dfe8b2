package c2d

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"websocketbridge/signaler"
)

const (
	// flapping is how long after one line of a loss the next loss is only counted.
	flapping = 5 * time.Minute
	// reminding is how often a trouble that stays is said again.
	reminding = 10 * time.Minute
)

// A reporter says once what would otherwise fill the log.
type reporter struct {
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	was      bool       // connected once
	lost     time.Time  // when the connection was lost; zero: it is there
	said     time.Time  // when a loss was last logged
	kind     error      // the sentinel of what was logged
	shown    bool       // the loss under way was logged
	unsaid   int        // losses since then that were not
	token    time.Time  // when a failed renewal was last logged; zero: it works
	feedbk   time.Time  // the same for feedback
	feedbkUp bool
}

// up: the hub is connected.
func (r *reporter) up() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.was && r.lost.IsZero():
		r.log.Info("connected to the hub")
	case r.shown:
		r.log.Info("the hub is back", "after", time.Since(r.lost).Round(time.Millisecond))
	}
	r.was, r.lost, r.shown, r.token = true, time.Time{}, false, time.Time{}
}

// down: it is not, or a further attempt to connect has failed.
func (r *reporter) down(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, kind := time.Now(), sentinel(err)
	first := r.lost.IsZero()
	if first {
		r.lost = now
	}
	silence := flapping
	if r.shown {
		silence = reminding
	}
	if now.Sub(r.said) < silence && kind == r.kind && !r.said.IsZero() {
		if first {
			r.unsaid++
		}
		return
	}
	text := "the hub is lost; connecting until it is back"
	if !r.was || !first {
		text = "the hub cannot be connected; trying until it can"
	}
	args := []any{"reason", err}
	if r.unsaid > 0 {
		args = append(args, "more losses before", r.unsaid)
	}
	r.log.Warn(text, args...)
	r.said, r.kind, r.shown, r.unsaid = now, kind, true, 0
}

// renewed: the hub took a new token.
func (r *reporter) renewed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.token.IsZero() {
		r.log.Info("the token is renewed")
	}
	r.token = time.Time{}
}

// notRenewed: it did not; the old one is good until then.
func (r *reporter) notRenewed(err error, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.token) >= reminding {
		r.log.Warn("the token cannot be renewed; trying until it can", "reason", err, "until", until)
		r.token = now
	}
}

// feedback: its link is attached.
func (r *reporter) feedback() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.feedbkUp {
		r.log.Info("reading the hub's feedback")
	}
	r.feedbkUp, r.feedbk = true, time.Time{}
}

// noFeedback: it is not, or brings what is no feedback.
func (r *reporter) noFeedback(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.feedbk) >= reminding {
		r.log.Warn("the hub's feedback cannot be read; trying until it can", "reason", err)
		r.feedbkUp, r.feedbk = false, now
	}
}

// sentinel returns which of package signaler's an error of ours is.
func sentinel(err error) error {
	for _, s := range []error{signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrThrottled, signaler.ErrUnavailable} {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}
