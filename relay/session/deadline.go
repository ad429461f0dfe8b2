package session

import (
	"sync"
	"time"
)

// A deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu     sync.Mutex // guards all below
	timer  *time.Timer
	passed chan struct{} // closed once the deadline has passed; nil until somebody asks
	moves  uint          // how often it was set
	closed bool          // no timer is armed any more
}

// wait returns the channel that is closed when the deadline passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

// set moves the deadline; the zero time means never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.moves++
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	if expired(d.passed) {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.passed)
		return
	}
	move := d.moves
	d.timer = time.AfterFunc(wait, func() { d.fire(move) })
}

// fire runs on the timer's goroutine. A timer that was stopped too late finds
// that the deadline has moved since.
func (d *deadline) fire(move uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moves == move {
		close(d.passed)
	}
}

// stop disarms the deadline for good.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.moves++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func expired(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
