package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"websocketbridge/signaler"
)

// See the package comment, "Takeover".
const (
	rivalEnds   = 3
	rivalWindow = 5 * time.Minute
	// rivalLife: another client that was evicted is back within this. The longest first
	// waits of Microsoft's SDKs are 10 s, and amenzhinsky's and paho's 1 s.
	rivalLife = 30 * time.Second
	// rivalKeepAlive is for the connections after a suspect end.
	rivalKeepAlive = 10 * time.Second
)

// A stage is how far a try to listen came.
type stage int

const (
	signing stage = iota // no token could be made
	dialling
	connecting
	subscribing
	listening // the hub had taken the subscriptions
)

// An ending is how one try to listen ended.
type ending struct {
	stage   stage
	err     error         // why; nil: planned, to renew the token
	lived   time.Duration // while listening
	byPeer  bool          // the hub closed it, between two packets and without a reason
	refused bool          // the hub does not want these credentials
}

// why is for a person who asks how the connection fares; nil: it was planned.
func (e ending) why() error {
	if errors.Is(e.err, context.Canceled) {
		return nil
	}
	return e.err
}

// A rivalry remembers the endings that look like another client's work.
type rivalry struct{ ends []time.Time }

// see takes note of an ending and says whether it was one too many.
func (r *rivalry) see(e ending, now time.Time) bool {
	r.forget(now)
	switch {
	case e.err == nil: // we did it
	case e.stage != listening || !e.byPeer:
		r.ends = nil // a hub or a network in trouble; a rival does not keep us from connecting
	case e.lived < rivalLife:
		r.ends = append(r.ends, now)
	}
	return len(r.ends) >= rivalEnds
}

func (r *rivalry) forget(now time.Time) {
	for len(r.ends) > 0 && now.Sub(r.ends[0]) >= rivalWindow {
		r.ends = r.ends[1:]
	}
}

// suspected says whether the next connection should show that it is no idle one.
func (r *rivalry) suspected(now time.Time) bool {
	r.forget(now)
	return len(r.ends) > 0
}

// takenOver is the final error.
func takenOver(name string) error {
	return fmt.Errorf("hub: %s: %w: %d connections within %v were closed by the hub, each less than %v after it was made and without a reason, "+
		"which is what it does when another client connects with the same identity; stop that client, or give this agent a module identity of its own, "+
		"or let the other client lend its connection or hand the signals over",
		name, signaler.ErrTakenOver, rivalEnds, rivalWindow, rivalLife)
}
