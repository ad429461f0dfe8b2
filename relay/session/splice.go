package session

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// spliceLinger is how long a connection may go on by itself after its stream has
// ended in good order: to take the last bytes, and to end.
const spliceLinger = 5 * time.Second

// Splice copies both ways between st and c until both directions have ended, and
// closes both. The end of one direction is passed on alone, if c has a CloseWrite
// method: who has finished asking still gets the answer.
//
// A cut never looks like an end. If c fails, the stream is reset with code and
// message; if the stream fails, c is closed so that its other end sees a failure
// too (TCP; other connections cannot say so). Splice returns the first failure.
func (st *Stream) Splice(c net.Conn, code, message string) error {
	x := &splice{st: st, c: c, code: code, message: message, fed: make(chan struct{})}
	var up, watch sync.WaitGroup
	finished := make(chan struct{})
	up.Go(x.fromConn)
	watch.Go(func() { x.watch(finished) })
	x.fromStream()
	close(x.fed)
	up.Wait()
	close(finished)
	watch.Wait()
	c.Close()
	st.Close()
	if err := x.err.Load(); err != nil {
		return *err
	}
	return nil
}

type splice struct {
	st            *Stream
	c             net.Conn
	code, message string
	fed           chan struct{} // closed when c gets no more from the stream
	broken        atomic.Bool   // c has failed, whatever its Read says
	err           atomic.Pointer[error]
}

func (x *splice) fail(err error) { x.err.CompareAndSwap(nil, &err) }

// fromConn copies what c says to the stream.
func (x *splice) fromConn() {
	r := &errReader{r: x.c}
	_, err := io.Copy(x.st, r)
	switch {
	case err == nil && !x.broken.Load():
		x.st.CloseWrite()
	case err == nil: // fromStream has said why
		x.st.Reset(x.code, x.message)
	case r.err != nil:
		x.fail(r.err)
		x.st.Reset(x.code, x.message)
		x.c.Close() // a write to it may still wait
	case errors.Is(err, ErrStopped):
		io.Copy(io.Discard, x.c) // it may still take what it is sent, and must not block
	default:
		x.fail(err) // fromStream sees the same, after what had arrived before
	}
}

// fromStream copies what the stream brings to c.
func (x *splice) fromStream() {
	w := &errWriter{w: x.c}
	_, err := io.Copy(w, x.st)
	switch {
	case err == nil:
		if h, ok := x.c.(interface{ CloseWrite() error }); ok {
			h.CloseWrite()
		}
	case w.err != nil:
		// It takes no more, but its last words may be an answer: a server says no and
		// closes while the question still comes. Linux tells a reset to one caller
		// only, and the others read an end; EPIPE means that the end came first.
		if !errors.Is(w.err, syscall.EPIPE) && !errors.Is(w.err, io.ErrClosedPipe) {
			x.fail(w.err)
			x.broken.Store(true)
		}
		x.st.CloseRead()
	default:
		x.fail(err)
		ResetConn(x.c)
	}
}

// watch closes c when the stream has ended and c does not end by itself: it
// may have nothing to say, or take nothing.
func (x *splice) watch(finished <-chan struct{}) {
	st, over := x.st, x.st.s.done
	select {
	case <-st.sendDone:
	case <-over:
	case <-finished:
		return
	}
	st.mu.Lock()
	reset, stopped := st.peerReset != nil, st.stopped
	st.mu.Unlock()
	if reset {
		ResetConn(x.c)
		return
	}
	fed := x.fed
	if !stopped {
		fed = nil // what c says is wanted, until the session is over
	}
	select {
	case <-fed:
		fed = nil
	case <-over:
		fed, over = x.fed, nil
	case <-finished:
		return
	}
	t := time.NewTimer(spliceLinger)
	defer t.Stop()
	select {
	case <-fed:
	case <-over:
	case <-t.C:
	case <-finished:
		return
	}
	select {
	case <-x.fed:
		x.c.Close()
	default:
		ResetConn(x.c)
	}
}

// ResetConn closes a connection so that its other end sees a failure, not an end:
// TCP sends a reset. What was written and not yet sent is lost.
func ResetConn(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// errReader and errWriter tell whose error io.Copy returns.
type errReader struct {
	r   io.Reader
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

type errWriter struct {
	w   io.Writer
	err error
}

func (w *errWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
