package session

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// A Stream is one byte flow each way inside a session: a net.Conn with
// half-close. All methods may be called by several goroutines at once.
//
// It must be closed, like any net.Conn, even after an error. An open stream
// over which nothing moves holds no goroutine and no buffer.
type Stream struct {
	s      *Session
	id     uint32
	target string
	local  bool // opened by this side

	reading  lock          // held by the one goroutine that waits to read
	readable chan struct{} // holds one token: look at the receiving half again
	writing  lock          // held for one Write, so that writes do not mix
	credited chan struct{} // holds one token: sendCredit has grown
	sendDone chan struct{} // closed when sendErr is set
	answered chan struct{} // of local streams: closed when the other side has answered

	readDeadline, writeDeadline deadline

	mu        sync.Mutex  // guards all below; may be held when Session.mu is taken
	open      bool        // OPENED was received or sent
	peerReset *ResetError // the other side has reset the stream

	// Receiving half.
	recvErr    error // why reading is over, other than by FIN; nothing is queued then
	finRecv    bool  // the other side sends no more
	queue      queue
	taken      bool          // WriteTo is writing the first bytes
	drained    chan struct{} // holds one token: the queue was empty; nil: nobody has waited for that
	direct     *Local        // of Splice: where bytes go that have nothing to wait for
	recvCredit int64         // what the other side may still send
	window     int           // what it may send beyond what was read
	consumed   int           // read, and not yet given back by a WINDOW
	updated    time.Duration // when the last WINDOW was due, since the session's start
	lastRead   int           // what that one gave back
	lastTook   time.Duration // how long it had taken to read that
	asked      int           // bytes of the window that RECLAIM asked for; 0: its RETURN is here
	readDone   bool          // the application knows that there is no more to read

	// Sending half.
	sendErr    error  // why writing is over
	onEnd      func() // of Splice: called when sendErr is set or the session has ended; must not wait
	sendCredit int64  // what this side may still send
	stopped    bool   // STOP was received

	// Frames for the control loop to send.
	queued     bool
	creditDue  uint32
	reclaimDue bool
	returnDue  bool
	returning  uint32 // what that returns
	stopDue    bool
	finDue     bool
	resetDue   *reason

	finSent   bool
	resetSent bool
	removed   bool // no longer in the session's table
	released  bool // no longer counted for MaxStreams
}

var _ net.Conn = (*Stream)(nil)

// A lock is a mutex that is held while its holder waits for the other side. As
// a channel it lets synctest see who waits; a sync.Mutex would look busy.
type lock chan struct{}

func (l lock) lock()   { l <- struct{}{} }
func (l lock) unlock() { <-l }

func newStream(s *Session, id uint32, target string, local bool) *Stream {
	return &Stream{
		s:        s,
		id:       id,
		target:   target,
		local:    local,
		reading:  make(lock, 1),
		readable: make(chan struct{}, 1),
		writing:  make(lock, 1),
		credited: make(chan struct{}, 1),
		sendDone: make(chan struct{}),
		window:   s.cfg.InitialWindow,
		updated:  s.now(),
	}
}

// Target is the name the stream was opened with.
func (st *Stream) Target() string { return st.target }

// CloseWrite says that this side writes no more. The other side reads what was
// written and then io.EOF.
func (st *Stream) CloseWrite() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sendErr == nil && st.s.ended() {
		return st.s.endErr
	}
	st.finish(net.ErrClosed)
	return nil
}

// CloseRead says that this side reads no more and drops what has arrived. The
// other side's writes fail with ErrStopped.
func (st *Stream) CloseRead() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.stop()
	st.settle()
	return nil
}

// Close ends both directions. What was written still arrives, followed by
// io.EOF; what was not read is dropped, and the other side's writes fail with
// ErrStopped. It does not wait.
func (st *Stream) Close() error {
	st.mu.Lock()
	st.finish(net.ErrClosed)
	st.stop()
	st.settle()
	st.mu.Unlock()
	st.readDeadline.stop()
	st.writeDeadline.stop()
	return nil
}

// Reset abandons both directions at once: what was written and not yet read
// by the other side is lost, and its calls fail with a *ResetError.
func (st *Stream) Reset(code, message string) error {
	r := makeReason(code, message)
	st.mu.Lock()
	if !st.wireEnded() && st.resetDue == nil {
		st.resetDue = &r
		st.creditDue, st.stopDue, st.finDue = 0, false, false
		st.enqueue()
	}
	st.closeSend(net.ErrClosed)
	st.closeRecv(net.ErrClosed)
	st.readDone = true
	st.settle()
	st.mu.Unlock()
	st.readDeadline.stop()
	st.writeDeadline.stop()
	return nil
}

// finish ends writing with a FIN, unless it has ended. mu is held.
func (st *Stream) finish(why error) {
	if st.sendErr != nil {
		return
	}
	st.closeSend(why)
	st.finDue = true
	if st.open { // else it waits for OPENED
		st.enqueue()
	}
}

// stop ends reading, with a STOP if the other side may still send. mu is held.
func (st *Stream) stop() {
	st.readDone = true
	if st.recvErr != nil {
		return
	}
	st.closeRecv(net.ErrClosed)
	if !st.finRecv {
		st.creditDue, st.stopDue = 0, true
		st.enqueue()
	}
}

func (st *Stream) enqueue() {
	if !st.s.ended() {
		st.s.enqueue(st)
	}
}

func (st *Stream) closeSend(err error) {
	if st.sendErr == nil {
		st.sendErr = err
		close(st.sendDone)
		st.callOnEnd()
	}
}

func (st *Stream) closeRecv(err error) {
	if st.recvErr == nil {
		st.recvErr = err
		st.queue.drop()
		post(st.readable)
	}
}

// post puts a token where there is none.
func post(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wireEnded reports whether neither side will send anything that matters. mu is held.
func (st *Stream) wireEnded() bool {
	return st.peerReset != nil || st.resetSent || st.finSent && st.finRecv
}

// settle gives back whatever the stream does not need any more. It is called
// with mu held after each change that can end something.
func (st *Stream) settle() {
	if (st.finRecv || st.recvErr != nil) && st.queue.size == 0 {
		if grown := st.window - st.s.cfg.InitialWindow; grown > 0 {
			st.window -= grown
			st.s.shrink(grown)
		}
	}
	if !st.wireEnded() {
		return
	}
	if !st.removed {
		st.removed = true
		st.s.remove(st.id)
	}
	// A stream of the other side counts until this side's application is through
	// with it as well. Else opening and resetting in a loop would pile up work
	// behind the session that no limit sees.
	if !st.local && !st.released && st.readDone {
		st.released = true
		st.s.release()
	}
}

// appendControl appends the frames that are due. The control loop calls it
// with the write lock held, so that no DATA can follow a FIN.
func (st *Stream) appendControl(b []byte) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.queued = false
	if st.wireEnded() {
		return b
	}
	if r := st.resetDue; r != nil {
		st.resetSent = true
		st.settle()
		return appendReason(b, typeReset, st.id, *r)
	}
	if st.creditDue > 0 && !st.finRecv {
		b = appendCredit(b, typeWindow, st.id, st.creditDue)
	}
	st.creditDue = 0
	if st.reclaimDue && !st.finRecv && st.recvErr == nil {
		b = appendCredit(b, typeReclaim, st.id, uint32(st.asked))
	}
	st.reclaimDue = false
	if st.returnDue && !st.finSent {
		b = appendCredit(b, typeReturn, st.id, st.returning)
	}
	st.returnDue = false
	if st.stopDue {
		st.stopDue = false
		b = appendHeader(b, typeStop, 0, st.id)
	}
	if st.finDue {
		st.finDue = false
		st.finSent = true
		b = appendHeader(b, typeFin, 0, st.id)
		st.settle()
	}
	return b
}

// onOpened takes the answer to an OPEN.
func (st *Stream) onOpened(credit uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case !st.local:
		return violation("OPENED on stream %d by its opener", st.id)
	case st.open:
		return violation("second OPENED on stream %d", st.id)
	case credit < EarlyWindow:
		return violation("OPENED on stream %d with a window of %d bytes; at least %d are required", st.id, credit, EarlyWindow)
	}
	st.open = true
	st.sendCredit = int64(credit)
	st.updated = st.s.now()
	close(st.answered)
	return nil
}

// answeredFirst checks that the other side has answered the OPEN before it
// sends anything else. mu is held.
func (st *Stream) answeredFirst(t frameType) error {
	if st.local && !st.open {
		return violation("%s on stream %d before OPENED", shapes[t].name, st.id)
	}
	return nil
}

func (st *Stream) onWindow(n uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.answeredFirst(typeWindow); err != nil {
		return err
	}
	st.sendCredit += int64(n)
	if st.sendCredit > MaxCredit {
		return violation("WINDOW on stream %d makes it %d bytes; %d are allowed", st.id, st.sendCredit, MaxCredit)
	}
	post(st.credited)
	return nil
}

func (st *Stream) onFin() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.answeredFirst(typeFin); err != nil {
		return err
	}
	if st.finRecv {
		return violation("second FIN on stream %d", st.id)
	}
	st.finRecv = true
	post(st.readable)
	st.settle()
	return nil
}

func (st *Stream) onStop() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.answeredFirst(typeStop); err != nil {
		return err
	}
	if st.stopped {
		return violation("second STOP on stream %d", st.id)
	}
	st.stopped = true
	st.finish(ErrStopped)
	return nil
}

func (st *Stream) onReset(r reason) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.wireEnded() {
		return
	}
	st.peerReset = &ResetError{r.code, r.message}
	st.closeSend(st.peerReset)
	st.closeRecv(st.peerReset)
	if st.local && !st.open {
		close(st.answered)
	}
	st.settle()
}

// SetDeadline sets both deadlines.
func (st *Stream) SetDeadline(t time.Time) error {
	st.readDeadline.set(t)
	st.writeDeadline.set(t)
	return nil
}

// SetReadDeadline bounds how long reads wait; the zero time means for ever.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.readDeadline.set(t)
	return nil
}

// SetWriteDeadline bounds how long writes wait for the other side to read and
// for their turn. A frame that the transport has begun to send is not
// recalled: if the transport stalls in it, the write returns late, at the
// latest when the session ends with ErrDead.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.writeDeadline.set(t)
	return nil
}

// LocalAddr names this end of the stream for logs.
func (st *Stream) LocalAddr() net.Addr { return addr{st.s.role, st.id} }

// RemoteAddr names the other end of the stream for logs.
func (st *Stream) RemoteAddr() net.Addr { return addr{Requester + Device - st.s.role, st.id} }

type addr struct {
	role   Role
	stream uint32
}

func (addr) Network() string  { return Protocol }
func (a addr) String() string { return fmt.Sprintf("%v/stream-%d", a.role, a.stream) }
