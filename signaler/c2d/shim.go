package c2d

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/go-amqp"
)

// A shim is the net.Conn that go-amqp talks through: it mends what comes from the
// hub, and ends what would hang.
type shim struct {
	net.Conn          // TLS, or a WebSocket
	raw      net.Conn // the TCP connection below

	writeTimeout time.Duration
	heard        atomic.Int64 // Unix nanoseconds when the hub last sent anything

	// Of the reader.
	chunk   []byte
	partial []byte // the start of a unit
	ready   []byte // mended, to be read
	failed  bool   // no more comes
	mend    rewriter

	out tally // of the writer

	mu    sync.Mutex // guards what follows
	sent  map[uint16]uint32
	begun uint16 // the channel of our last session

	ctx    context.Context         // ends with the connection; its cause says why
	finish context.CancelCauseFunc // of ctx; the first reason stays
}

// newShim wraps a connection whose TCP connection is raw. ended is called by the
// reader, as the rewriter says.
func newShim(conn, raw net.Conn, writeTimeout time.Duration, ended func(code byte, channel uint16, err *amqp.Error)) *shim {
	s := &shim{
		Conn: conn, raw: raw, writeTimeout: writeTimeout, chunk: make([]byte, 4<<10), sent: make(map[uint16]uint32),
	}
	s.ctx, s.finish = context.WithCancelCause(context.Background())
	s.mend = rewriter{ours: make(map[uint16]uint16), next: s.nextTransfer, ended: ended}
	s.out.each = s.wrote
	s.heard.Store(time.Now().UnixNano())
	return s
}

// wrote sees the frames that we write. A BEGIN starts a channel anew: go-amqp
// gives the number of an ended session to the next, and starts each at 0.
func (s *shim) wrote(code byte, channel uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code {
	case codeBegin:
		s.sent[channel], s.begun = 0, channel
	case codeTransfer:
		s.sent[channel]++
	}
}

func (s *shim) nextTransfer(channel uint16) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[channel]
}

// lastBegun returns the channel of the session that was begun last.
func (s *shim) lastBegun() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// Read implements net.Conn. After an error the connection is closed: go-amqp waits
// for its writer first, which may hang on a peer that does not read.
func (s *shim) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		if s.failed {
			return 0, s.reason()
		}
		n, err := s.Conn.Read(s.chunk)
		if n > 0 {
			s.heard.Store(time.Now().UnixNano())
			if e := s.take(s.chunk[:n]); e != nil {
				err = e
			}
		}
		if err != nil {
			s.failed = true
			s.abort(silent(err))
		}
	}
	n := copy(p, s.ready)
	if s.ready = s.ready[n:]; len(s.ready) == 0 {
		s.ready = nil
	}
	return n, nil
}

// take cuts what came into units and makes the whole ones ready.
func (s *shim) take(p []byte) error {
	s.partial = append(s.partial, p...)
	rest := s.partial
	for {
		n, err := unit(rest)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		b, err := s.mend.rewrite(s.ready, rest[:n])
		if err != nil {
			return err // what came before it stays ready
		}
		s.ready, rest = b, rest[n:]
	}
	s.partial = append(s.partial[:0], rest...)
	return nil
}

// Write implements net.Conn. It is bounded: go-amqp sets no deadline.
func (s *shim) Write(p []byte) (int, error) {
	s.out.write(p) // before: the hub's answer may come at once
	s.Conn.SetWriteDeadline(time.Now().Add(s.writeTimeout))
	n, err := s.Conn.Write(p)
	if err != nil {
		s.abort(silent(err))
		err = s.reason()
	}
	return n, err
}

// Close implements net.Conn: with TLS's or the WebSocket's goodbye.
func (s *shim) Close() error {
	s.finish(net.ErrClosed)
	return s.Conn.Close()
}

// abort ends the connection without a goodbye. It does not block, and ends
// whatever waits in a Read, a Write or a Close.
func (s *shim) abort(why error) {
	s.finish(why)
	s.raw.Close()
}

// silent says what a deadline that passed means.
func silent(err error) error {
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return err
}

// reason returns why the connection is over; nil: it is not.
func (s *shim) reason() error { return context.Cause(s.ctx) }

// heardSince says whether the hub sent anything after t, a heartbeat at least.
func (s *shim) heardSince(t time.Time) bool { return s.heard.Load() > t.UnixNano() }
