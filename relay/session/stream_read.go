package session

import (
	"io"
	"os"
	"time"
)

// maxRead bounds what one Read copies while it holds the stream's lock, which
// the read loop of the whole session may wait for.
const maxRead = 256 << 10

// Read implements net.Conn. Bytes that had arrived before the session ended
// are still read; after a reset they are not.
func (st *Stream) Read(p []byte) (int, error) {
	st.reading.lock()
	defer st.reading.unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := st.await(); err != nil {
		return 0, err
	}
	defer st.mu.Unlock()
	n := st.queue.read(p[:min(len(p), maxRead)])
	st.consume(n)
	return n, nil
}

// WriteTo implements io.WriterTo: it writes received bytes to w from where
// they are, without a buffer of its own, until the other side writes no more.
func (st *Stream) WriteTo(w io.Writer) (n int64, err error) {
	for {
		c, err := st.take()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(c.b[c.r:c.w])
		if m < 0 || m > c.w-c.r {
			panic("session: WriteTo: invalid Write count")
		}
		if m < c.w-c.r && err == nil {
			err = io.ErrShortWrite
		}
		n += int64(m)
		c.r += m
		st.giveBack(c, m)
		if err != nil {
			return n, err
		}
	}
}

// take waits for bytes and takes the first chunk out of the queue.
func (st *Stream) take() (*chunk, error) {
	st.reading.lock()
	defer st.reading.unlock()
	if err := st.await(); err != nil {
		return nil, err
	}
	defer st.mu.Unlock()
	st.taken = true
	return st.queue.pop(), nil
}

// giveBack returns a chunk of which n bytes were used. Only now the other side
// may send more: a slow destination slows the sender.
func (st *Stream) giveBack(c *chunk, n int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.taken = false
	if c.r < c.w && st.recvErr == nil {
		st.queue.unpop(c)
	} else {
		putChunk(c)
	}
	if st.drained != nil && !st.backed() {
		post(st.drained)
	}
	st.consume(n)
}

// await waits until there are bytes to read and returns nil with mu held, or
// returns why there will be none, with mu not held. reading is held.
func (st *Stream) await() error {
	for {
		passed := st.readDeadline.wait()
		st.mu.Lock()
		err := st.recvErr
		switch {
		case err != nil:
		case expired(passed):
			st.mu.Unlock()
			return os.ErrDeadlineExceeded
		case st.queue.size > 0:
			return nil
		case st.finRecv:
			err = io.EOF
		case st.s.ended():
			err = st.s.endErr
		default:
			st.mu.Unlock()
			select {
			case <-st.readable:
			case <-passed:
			case <-st.s.done:
			}
			continue
		}
		st.readDone = true
		st.settle()
		st.mu.Unlock()
		return err
	}
}

// maxCredit is the most that waits to be given back, in bytes: of a large window all but
// this can be under way. 32 MiB fill 1 Gbit/s at 200 ms then, and not five eighths of it.
const maxCredit = 1 << 20

// quickWindow is how long a window should last: at the pace of a fast network, each WINDOW
// wakes a goroutine at three programs. 4 MiB last as long at 500 MB/s.
const quickWindow = 8 * time.Millisecond

// consume counts n bytes as read and lets the other side send as many more: after three
// eighths of a window, so that of one that comes in a few large parts none is left that
// would wait for the next; or after maxCredit. mu is held.
func (st *Stream) consume(n int) {
	if st.finRecv || st.recvErr != nil {
		st.settle()
		return
	}
	st.consumed += n
	if st.consumed < min(st.window/8*3, maxCredit) {
		return
	}
	s := st.s
	now := s.now()
	credit := st.consumed
	st.lastRead, st.lastTook = st.consumed, now-st.updated
	// A sender that only waits for the window is given all of it once per round
	// trip. If at this pace the reader drains a window in less than two, the
	// window and not the path may be what limits the stream: double it. So does one that
	// is drained at once: giving back less more often would cost more than the memory.
	if st.window < s.cfg.MaxWindow {
		s.wantRTT(now)
		if st.needs() >= st.window {
			grown := s.grow(min(st.window, s.cfg.MaxWindow-st.window))
			st.window += grown
			credit += grown
		}
	}
	st.updated = now
	st.consumed = 0
	st.recvCredit += int64(credit)
	st.creditDue += uint32(credit)
	st.enqueue()
}

// admit counts n arriving bytes and reports whether anybody wants them.
func (st *Stream) admit(n int) (bool, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.answeredFirst(typeData); err != nil {
		return false, err
	}
	if st.finRecv {
		return false, violation("DATA on stream %d after FIN", st.id)
	}
	if int64(n) > st.recvCredit {
		return false, violation("DATA of %d bytes on stream %d, whose window has %d left", n, st.id, st.recvCredit)
	}
	st.recvCredit -= int64(n)
	return st.recvErr == nil, nil
}

// onData takes bytes that have arrived: straight to where Splice writes them, if nothing
// else waits to be written there, and what does not fit there into the queue.
func (st *Stream) onData(p []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.direct != nil {
		p = st.toProgram(p)
	}
	if len(p) > 0 && st.recvErr == nil { // it may have been closed while the payload was on its way
		st.queue.add(p)
		post(st.readable)
	}
}

// aloneWait is how long the read loop waits for the program of a session's only stream to
// take what has come. Nobody else has to wait for that; a stream that is just being opened may,
// while the program takes more than 56 MB/s and less than the path brings.
const aloneWait = time.Millisecond

// toProgram writes to the program what it takes, and returns the rest. mu is held, but not
// while it waits.
func (st *Stream) toProgram(p []byte) []byte {
	if p = st.tryProgram(p); len(p) == 0 || st.recvErr != nil || st.s.NumStreams() > 1 {
		return p
	}
	began := time.Now()
	if st.backed() {
		if st.drained == nil {
			st.drained = make(chan struct{}, 1)
		}
		expired(st.drained) // of a time before
		t := time.NewTimer(aloneWait)
		st.mu.Unlock()
		select {
		case <-st.drained:
		case <-st.s.done:
		case <-t.C:
		}
		t.Stop()
		st.mu.Lock()
		if p = st.tryProgram(p); len(p) == 0 {
			return p
		}
	}
	left := aloneWait - time.Since(began)
	if st.backed() || st.recvErr != nil || left <= 0 {
		return p
	}
	st.taken = true
	st.mu.Unlock()
	n := st.direct.writeFor(p, left)
	st.mu.Lock()
	st.taken = false
	st.consume(n)
	return p[n:]
}

// tryProgram writes what the program takes at once, if nothing is queued in front of it.
func (st *Stream) tryProgram(p []byte) []byte {
	if st.backed() || st.recvErr != nil {
		return p
	}
	n := st.direct.try(p)
	if n > 0 {
		st.consume(n)
	}
	return p[n:]
}

// backed says whether received bytes wait to be read, or WriteTo is writing some. mu is held.
func (st *Stream) backed() bool { return st.queue.size > 0 || st.taken }
