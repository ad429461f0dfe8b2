package session

import (
	"io"
	"os"
)

// Write implements net.Conn. It returns when the transport has taken the
// bytes, which is not yet the other side's application.
func (st *Stream) Write(p []byte) (n int, err error) {
	st.writing.lock()
	defer st.writing.unlock()
	if len(p) == 0 {
		return 0, st.canWrite()
	}
	for n < len(p) {
		m, err := st.takeTurn(min(len(p)-n, dataSize))
		if err != nil {
			return n, err
		}
		// The frame is built only now: streams that wait for their turn hold no buffer.
		f := st.s.getFrame(dataSize)
		copy(f.b[st.s.headroom+headerSize:], p[n:n+m])
		err = st.sendData(f.b, m)
		st.s.putFrame(f)
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// ReadFrom implements io.ReaderFrom: it reads from r right into the frames it
// sends, until r ends. It reads only when the other side takes more, so a slow
// reader there slows r.
func (st *Stream) ReadFrom(r io.Reader) (n int64, err error) {
	size, empty := idleSize, 0
	for {
		if err := st.awaitCredit(); err != nil {
			return n, err
		}
		f := st.s.getFrame(size)
		m, rerr := r.Read(f.b[st.s.headroom+headerSize:])
		sent, err := st.sendBuffer(f.b, m)
		st.s.putFrame(f)
		n += int64(sent)
		switch {
		case err != nil:
			return n, err
		case rerr == io.EOF:
			return n, nil
		case rerr != nil:
			return n, rerr
		}
		// Busy sources get large frames, and those with little to say do not hold
		// a large buffer while they wait.
		switch {
		case m == idleSize:
			size = dataSize
		case m < idleSize:
			size = idleSize
		}
		if empty++; m > 0 {
			empty = 0
		} else if empty > 100 {
			return n, io.ErrNoProgress
		}
	}
}

// sendBuffer sends n bytes of payload that lie in b behind room for headroom
// and header.
func (st *Stream) sendBuffer(b []byte, n int) (sent int, err error) {
	st.writing.lock()
	defer st.writing.unlock()
	for sent < n {
		m, err := st.takeTurn(n - sent)
		if err != nil {
			return sent, err
		}
		// What was sent is the room for the next frame's header.
		if err := st.sendData(b[sent:], m); err != nil {
			return sent, err
		}
		sent += m
	}
	return sent, nil
}

// sendData sends the frame in b with n bytes of payload and ends the turn.
func (st *Stream) sendData(b []byte, n int) error {
	s := st.s
	end := s.headroom + headerSize + n
	putHeader(b[s.headroom:], typeData, n, st.id)
	err := s.emit(b[:end:end])
	s.writeLock.unlock()
	return err
}

// canWrite returns why nothing can be written, or nil.
func (st *Stream) canWrite() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.writeErr()
}

func (st *Stream) writeErr() error {
	switch {
	case st.sendErr != nil:
		return st.sendErr
	case st.s.ended():
		return st.s.endErr
	case expired(st.writeDeadline.wait()):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// awaitCredit waits until the other side takes more. Like all waits for
// credit it is under writing: there is one token to wait for.
func (st *Stream) awaitCredit() error {
	st.writing.lock()
	defer st.writing.unlock()
	return st.waitCredit()
}

func (st *Stream) waitCredit() error {
	for {
		passed := st.writeDeadline.wait()
		st.mu.Lock()
		err, credit := st.writeErr(), st.sendCredit
		st.mu.Unlock()
		if err != nil || credit > 0 {
			return err
		}
		select {
		case <-st.credited:
		case <-st.sendDone:
		case <-passed:
		case <-st.s.done:
		}
	}
}

// takeTurn waits until the other side takes more and until it is the stream's
// turn to send, and takes up to n bytes of credit. It returns with the write
// lock held, unless it fails. writing is held.
func (st *Stream) takeTurn(n int) (int, error) {
	s := st.s
	for {
		if err := st.waitCredit(); err != nil {
			return 0, err
		}
		select {
		case s.writeLock <- struct{}{}: // full as long as anybody waits, so nobody is overtaken
		default:
			select {
			case s.writeLock <- struct{}{}:
			case <-st.sendDone:
				continue
			case <-st.writeDeadline.wait():
				continue
			case <-s.done:
				continue
			}
		}
		st.mu.Lock()
		err := st.writeErr()
		if err != nil {
			st.mu.Unlock()
			s.writeLock.unlock()
			return 0, err
		}
		m := int(min(int64(n), st.sendCredit))
		st.sendCredit -= int64(m)
		st.mu.Unlock()
		if m > 0 {
			return m, nil
		}
		s.writeLock.unlock() // it was returned while this waited
	}
}
