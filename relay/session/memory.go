package session

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Budget is memory that several sessions share: by how many bytes the windows of all
// their streams together may have grown beyond InitialWindow. When it is used up, streams
// that do not need what they have are asked for it, whichever session they are of.
type Budget struct {
	size int

	mu       sync.Mutex // guards all below; may be taken while a Session's mu is held
	used     int
	asked    time.Time // when sessions were last told to ask
	sessions map[*Session]struct{}
}

// NewBudget returns a budget of so many bytes; with none or fewer no window grows.
func NewBudget(size int) *Budget {
	return &Budget{size: size, sessions: make(map[*Session]struct{})}
}

// Used is by how many bytes windows have grown now.
func (b *Budget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// reclaimEvery is how often streams are asked for memory while it is short: what they have
// comes back in a round trip, if at all.
const reclaimEvery = time.Second

// take takes up to n bytes.
func (b *Budget) take(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := max(0, min(n, b.size-b.used))
	b.used += got
	if now := time.Now(); got < n && now.Sub(b.asked) >= reclaimEvery {
		b.asked = now
		for s := range b.sessions {
			s.wantReclaim()
		}
	}
	return got
}

func (b *Budget) give(n int) {
	b.mu.Lock()
	b.used -= n
	b.mu.Unlock()
}

func (b *Budget) join(s *Session) {
	b.mu.Lock()
	b.sessions[s] = struct{}{}
	b.mu.Unlock()
}

// leave gives back all that s has.
func (b *Budget) leave(s *Session, grown int) {
	b.mu.Lock()
	b.used -= grown
	delete(b.sessions, s)
	b.mu.Unlock()
}

// grow takes up to n bytes of what windows may still grow by. If there are fewer, the
// others are asked for some.
func (s *Session) grow(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := max(0, min(n, s.cfg.MaxBuffered-s.grown))
	if now := s.now(); got < n && (s.reclaimed == 0 || now-s.reclaimed >= reclaimEvery) {
		s.reclaimed = now
		s.wantReclaim()
	}
	if s.budget != nil {
		got = s.budget.take(got)
	}
	s.grown += got
	return got
}

func (s *Session) shrink(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grown -= n
	if s.budget != nil {
		s.budget.give(n)
	}
}

// leaveBudget is for a session that has ended. What its streams give back later is its own.
func (s *Session) leaveBudget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget != nil {
		s.budget.leave(s, s.grown)
		s.budget = nil
	}
}

// wantReclaim has the control loop ask for memory. It takes no lock.
func (s *Session) wantReclaim() {
	s.reclaimDue.Store(true)
	s.kickControl()
}

// reclaim asks all streams for what they do not need.
func (s *Session) reclaim() {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	for _, st := range all {
		st.reclaim()
	}
}

// leastReclaim is what is worth two frames, in bytes.
const leastReclaim = 64 << 10

// reclaim asks the other side for what the stream does not need of its window, unless it
// has been asked already: one that does not know the frame never answers.
func (st *Stream) reclaim() {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := st.window - max(st.s.cfg.InitialWindow, 2*st.needs())
	if st.asked > 0 || n < leastReclaim || st.finRecv || st.recvErr != nil {
		return
	}
	st.asked, st.reclaimDue = n, true
	st.enqueue()
}

// needs is the least window, in bytes, that lasts as long as one should: at the pace of the
// last one, or at that of the time since then if it is slower. mu is held.
func (st *Stream) needs() int {
	took := max(st.lastTook, st.s.now()-st.updated)
	if took <= 0 {
		return st.window
	}
	return int(min(float64(st.window), float64(st.lastRead)*float64(st.s.windowLasts())/float64(took)))
}

// windowLasts is how long a window should last.
func (s *Session) windowLasts() time.Duration {
	return max(quickWindow, 2*time.Duration(s.rtt.Load()))
}

// onReclaim is asked for n bytes and returns what of them has not been sent.
func (st *Stream) onReclaim(n uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case !st.open:
		return violation("RECLAIM on stream %d before OPENED", st.id)
	case st.returnDue:
		return violation("RECLAIM on stream %d before the RETURN of the last one", st.id)
	}
	back := min(int64(n), st.sendCredit)
	st.sendCredit -= back
	st.returnDue, st.returning = true, uint32(back)
	st.enqueue()
	return nil
}

// onReturn gets back n bytes of a window.
func (st *Stream) onReturn(n uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.asked == 0 || int64(n) > min(int64(st.asked), st.recvCredit) {
		return violation("RETURN of %d bytes on stream %d, which was asked for %d and may send %d", n, st.id, st.asked, st.recvCredit)
	}
	st.asked = 0
	st.recvCredit -= int64(n)
	if back := min(int(n), st.window-st.s.cfg.InitialWindow); back > 0 { // else it was given back when the stream ended
		st.window -= back
		st.s.shrink(back)
	}
	st.consume(0) // of a smaller window, what was read may be enough to give back
	return nil
}
