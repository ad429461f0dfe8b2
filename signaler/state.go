package signaler

import (
	"sync"
	"time"
)

// A SourceState is how a source's way to its hub fares. Nothing in it is secret.
type SourceState struct {
	Kind      string    `json:"kind"`         // hub, handoff, fake …
	To        string    `json:"to,omitempty"` // the hub's address, or where signals are handed over
	Listening bool      `json:"listening"`    // signals are heard right now
	Since     time.Time `json:"since"`        // since when that, or the opposite, is so
	Times     uint64    `json:"times"`        // how often it has come to listen
	Error     string    `json:"error,omitempty"`
	ErrorAt   time.Time `json:"errorAt,omitzero"` // of Error, the last one, which may be over
}

// A SourceRecord keeps a source's state for whoever asks. The zero value does not listen.
type SourceRecord struct {
	mu    sync.Mutex // guards both
	state SourceState
	since time.Time // of the listening that a planned reconnect interrupts; zero: none does
}

// Begin says what source it is, and that it runs.
func (r *SourceRecord) Begin(kind, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Kind, r.state.To = kind, to
	r.state.Listening, r.state.Since, r.since = false, time.Now(), time.Time{}
}

// Up says that signals are heard. After a planned end it goes on as if there had been none.
func (r *SourceRecord) Up() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Times++
	r.state.Listening, r.state.Since = true, time.Now()
	if !r.since.IsZero() {
		r.state.Since, r.since = r.since, time.Time{}
	}
}

// Down says that they are not any more, or still not, and why; nil: it was planned.
func (r *SourceRecord) Down(why error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.state.Listening:
	case why == nil:
		r.state.Listening, r.state.Since, r.since = false, now, r.state.Since
	default:
		r.state.Listening, r.state.Since = false, now
	}
	if why != nil {
		r.since = time.Time{}
		r.state.Error, r.state.ErrorAt = why.Error(), now
	}
}

// State is what was said last.
func (r *SourceRecord) State() SourceState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}
