package session

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// spliceLinger is how long a connection may go on by itself after its stream has
// ended in good order: to take the last bytes, and to end.
const spliceLinger = 5 * time.Second

// Splice copies both ways between st and c until both directions have ended, and
// closes both. The end of one direction is passed on alone, if c has a CloseWrite
// method: who has finished asking still gets the answer.
//
// A write deadline of c's own does not last: Splice sets and clears it.
//
// A cut never looks like an end. If c fails, the stream is reset with code and
// message; if the stream fails, c is closed as by Local.Reset. Splice returns the
// first failure.
func (st *Stream) Splice(c net.Conn, code, message string) error {
	l, ok := c.(*Local)
	if !ok {
		l = NewLocal(c)
	}
	x := &splice{st: st, c: l, code: code, message: message, fed: make(chan struct{})}
	var up, watch sync.WaitGroup
	finished := make(chan struct{})
	up.Go(x.fromLocal)
	// A stream that is idle needs no goroutine to watch it.
	forget := st.splice(l, func() { watch.Go(func() { x.watch(finished) }) })
	x.fromStream()
	close(x.fed)
	up.Wait()
	forget()
	close(finished)
	watch.Wait()
	c.Close()
	st.Close()
	return load(&x.err)
}

// splice sets where arriving bytes go at once, and what to call when this side sends no more
// or the session has ended. Once forget has returned it is not called.
func (st *Stream) splice(direct *Local, ended func()) (forget func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if direct.try != nil {
		st.direct = direct
	}
	st.onEnd = ended
	if st.sendErr != nil || st.s.ended() {
		st.callOnEnd()
	}
	return func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.onEnd = nil
	}
}

// callOnEnd calls it once. mu is held.
func (st *Stream) callOnEnd() {
	if f := st.onEnd; f != nil {
		st.onEnd = nil
		f()
	}
}

type splice struct {
	st            *Stream
	c             *Local
	code, message string
	fed           chan struct{}         // closed when c gets no more from the stream
	dropped       atomic.Bool           // watch has closed c, which is no failure of c's
	err           atomic.Pointer[error] // the first failure
}

func (x *splice) fail(err error) { x.err.CompareAndSwap(nil, &err) }

// fromLocal copies what the program says to the stream.
func (x *splice) fromLocal() {
	_, err := io.Copy(x.st, x.c)
	switch {
	case err == nil:
		x.st.CloseWrite()
	case x.dropped.Load():
	case x.c.ReadErr() != nil:
		x.fail(x.c.ReadErr())
		x.st.Reset(x.code, x.message)
		x.c.Close() // a write to it may still wait
	case errors.Is(err, ErrStopped):
		io.Copy(io.Discard, x.c) // it may still take what it is sent, and must not block
	default:
		x.fail(err) // fromStream sees the same, after what had arrived before
	}
}

// fromStream copies what the stream brings to the program.
func (x *splice) fromStream() {
	_, err := io.Copy(x.c, x.st)
	switch {
	case err == nil:
		x.c.CloseWrite()
	case x.c.WriteErr() != nil:
		x.st.CloseRead() // a server may say no and close while the question still comes
	default:
		x.fail(err)
		x.c.Reset()
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
	reset, stopped := st.peerReset, st.stopped
	st.mu.Unlock()
	if reset != nil {
		x.fail(reset)
		x.c.Reset()
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
	x.dropped.Store(true)
	select {
	case <-x.fed:
		x.c.Close()
	default:
		x.fail(st.s.endErr)
		x.c.Reset()
	}
}
