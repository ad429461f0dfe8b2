package session

import (
	"context"
	"fmt"
	"sync/atomic"
)

// Open asks the other side for a stream to a target and waits for the answer.
// A refusal is an *OpenError. If ctx ends first, the stream is reset and the
// error wraps the cause of ctx.
func (s *Session) Open(ctx context.Context, target string) (*Stream, error) {
	if len(target) > MaxTarget {
		return nil, fmt.Errorf("session: target has %d bytes; %d are allowed", len(target), MaxTarget)
	}
	fail := func(err error) (*Stream, error) {
		return nil, fmt.Errorf("session: open %q: %w", target, err)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	select {
	case s.writeLock <- struct{}{}:
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	case <-s.done:
		return fail(s.endErr)
	}
	// IDs are taken in the order in which they reach the wire, under the write lock.
	st, err := s.newOpen(target)
	if err == nil {
		f := s.getFrame(idleSize)
		err = s.emit(appendOpen(f.b[:s.headroom], st.id, openPayload{
			window: uint32(s.cfg.InitialWindow),
			target: []byte(target),
		}))
		s.putFrame(f)
	}
	s.writeLock.unlock()
	if err != nil {
		return fail(err)
	}

	select {
	case <-st.answered:
	case <-ctx.Done():
		st.Reset(CodeCancelled, "")
		return fail(context.Cause(ctx))
	case <-s.done:
		// The answer may have come just before the end; its reason says more.
		select {
		case <-st.answered:
		default:
			return fail(s.endErr)
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.open {
		return nil, &OpenError{target, st.peerReset.Code, st.peerReset.Message}
	}
	return st, nil
}

// newOpen enters a stream of this side into the table.
func (s *Session) newOpen(target string) (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != nil:
		return nil, s.endErr
	case s.leaving:
		return nil, ErrGoingAway
	case s.goneAway != nil:
		return nil, s.goneAway
	case s.nextID > maxStreamID:
		return nil, ErrSpent
	}
	st := newStream(s, s.nextID, target, true)
	st.recvCredit = int64(s.cfg.InitialWindow)
	st.answered = make(chan struct{})
	s.streams[st.id] = st
	s.nextID += 2
	return st, nil
}

// Accept waits for the next stream that the other side opens. The stream waits
// for its answer meanwhile: dial its target in another goroutine, and call
// Accept again at once.
func (s *Session) Accept(ctx context.Context) (*Incoming, error) {
	for {
		if s.ended() {
			return nil, fmt.Errorf("session: accept: %w", s.endErr)
		}
		select {
		case in := <-s.backlog:
			if in.gone() {
				continue // the opener gave up
			}
			return in, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("session: accept: %w", context.Cause(ctx))
		case <-s.done:
		}
	}
}

// An Incoming is a stream that the other side wants opened. It counts as open
// until it is answered, by exactly one of Accept and Refuse.
type Incoming struct {
	st       *Stream
	answered atomic.Bool
}

// Target is what the opener wants to reach: arbitrary bytes of the other side.
func (in *Incoming) Target() string { return in.st.target }

// gone drops the stream if its opener has given up already.
func (in *Incoming) gone() bool {
	st := in.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.peerReset == nil {
		return false
	}
	st.readDone = true
	st.settle()
	return true
}

// Accept opens the stream. It fails with a *ResetError if the opener has given
// up meanwhile.
func (in *Incoming) Accept() (*Stream, error) {
	if in.answered.Swap(true) {
		return nil, ErrAnswered
	}
	st := in.st
	if err := in.accept(); err != nil {
		st.mu.Lock()
		st.readDone = true
		st.settle()
		st.mu.Unlock()
		return nil, fmt.Errorf("session: accept %q: %w", st.target, err)
	}
	return st, nil
}

func (in *Incoming) accept() error {
	st := in.st
	s := st.s
	select {
	case s.writeLock <- struct{}{}:
	case <-s.done:
		return s.endErr
	}
	defer s.writeLock.unlock()
	if s.ended() {
		return s.endErr
	}
	st.mu.Lock()
	if st.peerReset != nil {
		st.mu.Unlock()
		return st.peerReset
	}
	st.open = true
	// OPENED states the whole window, of which the early part was known before.
	st.recvCredit += int64(s.cfg.InitialWindow - EarlyWindow)
	st.updated = s.now()
	if st.finDue { // STOP came already; its answer had to wait for OPENED
		s.enqueue(st)
	}
	st.mu.Unlock()
	f := s.getFrame(idleSize)
	defer s.putFrame(f)
	return s.emit(appendCredit(f.b[:s.headroom], typeOpened, st.id, uint32(s.cfg.InitialWindow)))
}

// Refuse answers with a RESET; the opener's Open fails with an *OpenError that
// holds code and message.
func (in *Incoming) Refuse(code, message string) error {
	if in.answered.Swap(true) {
		return ErrAnswered
	}
	s := in.st.s
	if s.ended() {
		return s.endErr
	}
	in.st.Reset(code, message)
	return nil
}
