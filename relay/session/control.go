package session

import (
	"fmt"
	"time"
)

// maxRefusals is how many answers to OPENs beyond the limits may wait to be
// sent. More: the other side opens streams and does not read the answers.
const maxRefusals = 4096

// maxControl is the room that every control frame of a stream at once needs:
// WINDOW, RECLAIM, RETURN, STOP, FIN and RESET.
const maxControl = 3*(headerSize+4) + 2*headerSize + headerSize + maxReason

// kickControl wakes the control loop.
func (s *Session) kickControl() {
	select {
	case s.kick <- struct{}{}:
	default: // it has been woken already
	}
}

// enqueue has the control loop send what is due on st, whose mu is held.
func (s *Session) enqueue(st *Stream) {
	if st.queued {
		return
	}
	st.queued = true
	s.mu.Lock()
	s.due = append(s.due, st)
	s.mu.Unlock()
	s.kickControl()
}

// refuse answers an OPEN for which there is no Stream.
func (s *Session) refuse(id uint32, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refusals) >= maxRefusals {
		return violation("%d refusals wait because they are not read", maxRefusals)
	}
	s.refusals = append(s.refusals, refusal{id, code})
	s.kickControl()
	return nil
}

// controlLoop sends whatever the read loop and readers of streams cause: they
// must not wait for the transport themselves. If the read loops of both sides
// waited to write, neither would read, and nothing would move again.
func (s *Session) controlLoop() {
	for {
		select {
		case <-s.kick:
		case <-s.done:
			s.sayFarewell()
			return
		}
		if s.reclaimDue.Swap(false) {
			s.reclaim()
		}
		for more := true; more; {
			select {
			case s.writeLock <- struct{}{}:
			case <-s.done:
				s.sayFarewell()
				return
			}
			more = s.writeControl(false)
			s.writeLock.unlock()
		}
	}
}

// sayFarewell sends what is still due and the last GOAWAY. It does not wait
// long: Run closes the transport after closeLinger.
func (s *Session) sayFarewell() {
	s.mu.Lock()
	polite := s.farewell != nil
	s.mu.Unlock()
	if !polite {
		return
	}
	s.writeLock.lock() // its holder is writing one frame and then sees that the session has ended
	for s.writeControl(true) {
	}
	s.writeLock.unlock()
}

// writeControl sends one message of control frames, if any is due, and reports
// whether more are. The write lock is held.
func (s *Session) writeControl(last bool) (more bool) {
	f := s.getFrame(dataSize)
	defer s.putFrame(f)
	b := s.appendControl(f.b[:s.headroom], last)
	if len(b) == s.headroom {
		return false
	}
	return s.emit(b) == nil
}

// appendControl appends due frames while there is room for them.
func (s *Session) appendControl(b []byte, last bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pongDue {
		s.pongDue = false
		b = appendPing(b, typePong, s.pongID)
	}
	if s.pingDue && s.ping != nil {
		if s.ping.sent.IsZero() {
			s.ping.sent = time.Now()
		}
		b = appendPing(b, typePing, s.ping.id)
	}
	s.pingDue = false
	for len(s.refusals) > 0 && cap(b)-len(b) >= maxControl {
		r := s.refusals[len(s.refusals)-1]
		s.refusals = s.refusals[:len(s.refusals)-1]
		b = appendReason(b, typeReset, r.stream, reason{code: r.code})
	}
	for s.dueHead < len(s.due) && cap(b)-len(b) >= maxControl {
		st := s.due[s.dueHead]
		s.due[s.dueHead] = nil
		s.dueHead++
		s.mu.Unlock() // a stream's mu comes before the session's
		b = st.appendControl(b)
		s.mu.Lock()
	}
	switch {
	case s.dueHead == len(s.due):
		s.due, s.dueHead = s.due[:0], 0
	case s.dueHead > len(s.due)/2: // never empty under load, but it must not creep through memory
		n := copy(s.due, s.due[s.dueHead:])
		clear(s.due[n:])
		s.due, s.dueHead = s.due[:n], 0
	}
	if cap(b)-len(b) < maxControl {
		return b
	}
	if s.goAwayDue != nil {
		b = appendReason(b, typeGoAway, 0, *s.goAwayDue)
		s.goAwayDue = nil
	}
	if last && s.farewell != nil && len(s.refusals) == 0 && len(s.due) == 0 {
		b = appendReason(b, typeGoAway, 0, *s.farewell)
		s.farewell = nil
	}
	return b
}

// emit sends one message; b starts with the headroom. The write lock is held.
func (s *Session) emit(b []byte) error {
	if err := s.t.WriteFrame(b); err != nil {
		s.end(fmt.Errorf("%w: write: %w", ErrLost, err), nil)
		return s.endErr
	}
	return nil
}
