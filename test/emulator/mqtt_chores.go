package emulator

import (
	"sync"
	"time"
)

// chores are what a connection does later, in order, in a goroutine of its own:
// PUBACKs that a fault delays, and calls of the hub that a link may not make while
// the hub calls it.
type chores struct {
	wake chan struct{}

	mu   sync.Mutex
	list []chore // guarded by mu
}

type chore struct {
	when time.Time
	do   func()
}

func newChores() *chores { return &chores{wake: make(chan struct{}, 1)} }

// add has f done after a delay, and after every chore that was added before.
func (c *chores) add(delay time.Duration, f func()) {
	c.mu.Lock()
	c.list = append(c.list, chore{time.Now().Add(delay), f})
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run does chores until done is closed; what is left then is not done.
func (c *chores) run(done <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, wait := c.next()
		if next != nil {
			next()
			continue
		}
		if timer.Stop(); wait > 0 {
			timer.Reset(wait)
		}
		select {
		case <-done:
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// next returns what is due, or how long to wait for it; 0: there is nothing.
func (c *chores) next() (func(), time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return nil, 0
	}
	if wait := time.Until(c.list[0].when); wait > 0 {
		return nil, wait
	}
	next := c.list[0].do
	c.list = c.list[1:]
	return next, 0
}
