package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// readLoop takes frames from the transport until it ends. It never waits for
// a write to the transport, see controlLoop, and for an application at most aloneWait.
//
// After a polite end it reads on until the other side hangs up, so that
// nothing the other side still writes makes TCP discard our last words.
func (s *Session) readLoop() {
	var r run
	in := newInbox(s.hear, r.flush)
	defer in.release()
	defer r.flush()
	for {
		err := s.readFrame(in, &r)
		if err == nil {
			continue
		}
		r.flush() // what has arrived before the end can still be read
		switch {
		case errors.Is(err, errHungUp):
			return
		case errors.Is(err, ErrProtocol):
			if s.ended() {
				return
			}
			s.log.Debug("protocol violation", "role", s.role, "error", err)
			r := makeReason(CodeProtocol, err.Error())
			s.end(err, &r)
			// What follows cannot be parsed; it only keeps the transport open.
			for err = nil; err == nil; {
				in.take(len(in.ready()))
				err = in.more()
			}
			return
		default:
			s.onLost(err)
			return
		}
	}
}

// errHungUp: the other side has ended the session and sends no more.
var errHungUp = errors.New("hung up")

// onLost ends the session because the transport has ended.
func (s *Session) onLost(err error) {
	s.mu.Lock()
	gone := s.goneAway
	s.mu.Unlock()
	if gone != nil && errors.Is(err, io.EOF) {
		s.end(fmt.Errorf("%w, and hung up", gone), nil)
		return
	}
	s.end(fmt.Errorf("%w: read: %w", ErrLost, err), nil)
}

// A run is payload of one stream that lies together: of several frames, whose headers have
// been taken out, so that a program gets with one system call what came with one.
type run struct {
	st *Stream
	p  []byte
}

// add takes p, which lies in the same buffer as the run, behind it.
func (r *run) add(st *Stream, p []byte) {
	if r.st != st {
		r.flush()
		r.st, r.p = st, p
		return
	}
	n := len(r.p)
	r.p = r.p[:n+len(p)]
	copy(r.p[n:], p) // to the left, if at all
}

// flush hands the run to its stream.
func (r *run) flush() {
	if r.st != nil {
		r.st.onData(r.p)
		r.st, r.p = nil, nil
	}
}

// readFrame reads and handles one frame.
func (s *Session) readFrame(in *inbox, r *run) error {
	b, err := in.need(headerSize)
	if err != nil {
		return err
	}
	h := parseHeader(b)
	if err := h.check(); err != nil {
		return err
	}
	in.take(headerSize)
	if h.typ.skipped() || s.ended() && h.typ != typeGoAway {
		return s.readPayload(in, int(h.length), nil, r)
	}
	if h.typ == typeData {
		return s.readData(in, h, r)
	}
	r.flush() // it came before this frame
	p, err := in.need(int(h.length))
	if err != nil {
		return midFrame(err)
	}
	in.take(len(p))
	return s.handle(h, p)
}

// midFrame corrects the error of a read that ended inside of a frame.
func midFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readData hands a payload to its stream, each part as soon as it is here.
func (s *Session) readData(in *inbox, h header, r *run) error {
	st, err := s.lookup(h)
	if err != nil {
		return err
	}
	if st != nil {
		wanted, err := st.admit(int(h.length))
		if err != nil {
			return err
		}
		if !wanted { // it was just closed here
			st = nil
		}
	}
	return s.readPayload(in, int(h.length), st, r)
}

// readPayload hands n bytes to st; nil: nobody wants them.
func (s *Session) readPayload(in *inbox, n int, st *Stream, r *run) error {
	for n > 0 {
		if len(in.ready()) == 0 {
			if err := in.moreOf(n); err != nil {
				return midFrame(err)
			}
		}
		p := in.take(min(n, len(in.ready())))
		n -= len(p)
		if st != nil {
			r.add(st, p)
		}
	}
	return nil
}

// handle takes a frame other than DATA, whole and of the right size.
func (s *Session) handle(h header, p []byte) error {
	switch h.typ {
	case typePing:
		s.mu.Lock()
		// One answer is enough for any number of pings: the last one.
		s.pongDue, s.pongID = true, binary.BigEndian.Uint64(p)
		s.mu.Unlock()
		s.kickControl()
		return nil
	case typePong:
		return s.onPong(binary.BigEndian.Uint64(p))
	case typeGoAway:
		r, err := parseReason(p)
		if err != nil {
			return err
		}
		return s.onGoAway(r)
	case typeOpen:
		o, err := parseOpen(p)
		if err != nil {
			return err
		}
		return s.onOpen(h.stream, o)
	}

	st, err := s.lookup(h)
	if err != nil {
		return err
	}
	// Even for a stream that is gone, the payload has to make sense.
	switch h.typ {
	case typeOpened, typeWindow, typeReclaim, typeReturn:
		n, err := parseCredit(h.typ, p)
		if err != nil || st == nil {
			return err
		}
		switch h.typ {
		case typeOpened:
			return st.onOpened(n)
		case typeWindow:
			return st.onWindow(n)
		case typeReclaim:
			return st.onReclaim(n)
		}
		return st.onReturn(n)
	case typeReset:
		r, err := parseReason(p)
		if err != nil || st == nil {
			return err
		}
		st.onReset(r)
		return nil
	case typeFin:
		if st != nil {
			return st.onFin()
		}
	case typeStop:
		if st != nil {
			return st.onStop()
		}
	}
	return nil
}

// lookup finds a frame's stream. It is nil if the stream once was: IDs only
// rise, so every ID up to the highest one opened has been used or skipped, and
// no memory of closed streams is needed to tell late frames from wrong ones.
func (s *Session) lookup(h header) (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[h.stream]; st != nil {
		return st, nil
	}
	if s.ours(h.stream) && h.stream < s.nextID || !s.ours(h.stream) && h.stream <= s.peerID {
		return nil, nil
	}
	return nil, violation("%s on stream %d, which was never opened", shapes[h.typ].name, h.stream)
}

// ours reports whether this side opens the stream with this ID.
func (s *Session) ours(id uint32) bool { return id%2 == s.nextID%2 }

func (s *Session) onGoAway(r reason) error {
	gone := &GoAwayError{r.code, r.message}
	s.mu.Lock()
	s.goneAway = gone
	s.mu.Unlock()
	s.log.Debug("other side goes away", "role", s.role, "reason", gone)
	if r.final() {
		s.end(gone, nil)
		return errHungUp
	}
	return nil
}

// onOpen takes a stream that the other side opens.
func (s *Session) onOpen(id uint32, o openPayload) error {
	s.mu.Lock()
	if s.ours(id) {
		s.mu.Unlock()
		return violation("OPEN of stream %d by the %v's other side", id, s.role)
	}
	if id <= s.peerID {
		s.mu.Unlock()
		return violation("OPEN of stream %d after stream %d", id, s.peerID)
	}
	s.peerID = id
	code := ""
	switch {
	case s.leaving:
		code = CodeGoingAway
	case s.held >= s.cfg.MaxStreams || len(s.backlog) == cap(s.backlog):
		code = CodeLimitReached
	}
	if s.cause != nil {
		s.mu.Unlock()
		return nil
	}
	if code != "" {
		s.mu.Unlock()
		return s.refuse(id, code)
	}
	st := newStream(s, id, string(o.target), false)
	st.recvCredit = EarlyWindow
	st.sendCredit = int64(o.window)
	s.streams[id] = st
	s.held++
	s.mu.Unlock()
	s.backlog <- &Incoming{st: st} // has room: only this goroutine puts in
	return nil
}
