package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// writeGrace is how long the end of a connection waits for a write to it that is
// under way. A write to a dead socket returns at once; this is for a busy scheduler.
const writeGrace = 50 * time.Millisecond

// A Local is the connection to a program at one end of a bridge. One goroutine
// may read while another writes.
//
// Its Read never passes a failure for an end. On Linux only one caller is told
// that TCP was reset: after a Write was, a Read sees io.EOF.
type Local struct {
	net.Conn
	writing           lock // held for one Write
	readErr, writeErr atomic.Pointer[error]

	// try writes what the connection takes at once, and says how much. Nil: it cannot.
	try func(p []byte) int
}

// A Wrapper is a connection around a socket, NetConn, that Splice may write to past it.
// It is told how many bytes those were.
type Wrapper interface {
	NetConn() net.Conn
	Wrote(n int)
}

// NewLocal takes over c.
func NewLocal(c net.Conn) *Local {
	l := &Local{Conn: c, writing: make(lock, 1)}
	l.try = newTry(l)
	return l
}

// Read implements net.Conn.
func (l *Local) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err == io.EOF {
		l.awaitWrite()
		// The two others mean that the program had ended before it was written to.
		if w := l.WriteErr(); w != nil && !errors.Is(w, syscall.EPIPE) && !errors.Is(w, io.ErrClosedPipe) {
			err = w
		}
	}
	if err != nil && err != io.EOF {
		keep(&l.readErr, err)
	}
	return n, err
}

// awaitWrite gives a Write that is under way the time to fail.
func (l *Local) awaitWrite() {
	t := time.NewTimer(writeGrace)
	defer t.Stop()
	select {
	case l.writing <- struct{}{}:
		l.writing.unlock()
	case <-t.C:
	}
}

// Write implements net.Conn.
func (l *Local) Write(p []byte) (int, error) {
	l.writing.lock()
	defer l.writing.unlock()
	n, err := l.Conn.Write(p)
	if err != nil {
		keep(&l.writeErr, err)
	}
	return n, err
}

// writeFor writes what the connection takes within d, and says how much. The connection's
// write deadline is gone afterwards.
func (l *Local) writeFor(p []byte, d time.Duration) int {
	select {
	case l.writing <- struct{}{}:
	default:
		return 0
	}
	defer l.writing.unlock()
	l.Conn.SetWriteDeadline(time.Now().Add(d))
	n, err := l.Conn.Write(p)
	l.Conn.SetWriteDeadline(time.Time{})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		keep(&l.writeErr, err)
	}
	return n
}

// CloseWrite ends what the program reads, if the connection can do that.
func (l *Local) CloseWrite() error {
	if h, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// ReadErr is the error of the first Read that failed. The program's end is none.
func (l *Local) ReadErr() error { return load(&l.readErr) }

// WriteErr is the error of the first Write that failed: the program takes no
// more, but what it says may still be an answer.
func (l *Local) WriteErr() error { return load(&l.writeErr) }

// keep keeps the first error. As a function of its own it costs memory only where there is one.
func keep(p *atomic.Pointer[error], err error) { p.CompareAndSwap(nil, &err) }

func load(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

// Reset closes the connection so that the program sees a failure, not an end:
// TCP sends a reset, other connections cannot say so. What was written and not
// yet sent is lost.
func (l *Local) Reset() {
	if t, ok := l.Conn.(interface{ SetLinger(sec int) error }); ok {
		t.SetLinger(0)
	}
	l.Close()
}
