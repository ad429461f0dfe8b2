package pump

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/relay/ws"
)

// A Leg is the relay's end of one WebSocket.
type Leg struct {
	conn net.Conn
	side Side

	// early is what Watch has read; the pump starts with it.
	early []byte

	start    time.Time
	stuck    atomic.Int64 // when the write of data under way began, in ns since start; -1: none under way
	since    atomic.Int64 // when the read under way began or last got bytes, in ns since start; -1: none under way
	gotClose atomic.Bool  // the peer's close frame has come
	passed   atomic.Int64 // payload bytes written by the pump
	pumped   atomic.Bool  // start is the pump's, and does not change any more

	wmu    ioLock // serializes writes to conn
	closed bool   // our close frame is out, or a frame is torn: nothing may follow; guarded by wmu

	heard chan struct{} // closed when the pump has read its last from here

	pmu     sync.Mutex // guards the three below; never held during I/O
	pending []byte     // control frames waiting for wmu
	bye     bool       // a close frame is among them, or out
	posting bool       // a goroutine is writing them
	posts   sync.WaitGroup
}

// NewLeg takes over a connection on which the peer's handshake has been answered.
func NewLeg(c net.Conn) *Leg {
	l := &Leg{conn: c, start: time.Now(), wmu: newIOLock()}
	l.since.Store(-1)
	l.stuck.Store(-1)
	return l
}

// An ioLock is a mutex that is held during I/O. It is a channel because testing/synctest
// sees who waits for a channel, and not who waits for a sync.Mutex: with one,
// the clock of a test would stand still as soon as two ends wait for each other.
type ioLock chan struct{}

func newIOLock() ioLock  { return make(ioLock, 1) }
func (l ioLock) Lock()   { l <- struct{}{} }
func (l ioLock) Unlock() { <-l }

// maxPending bounds control frames that wait while the peer does not read. One
// more ping would tell such a peer nothing.
const maxPending = 1 << 10

// waiting says since when a read has got nothing.
func (l *Leg) waiting() (since time.Duration, reading bool) {
	s := l.since.Load()
	return time.Duration(s), s >= 0
}

// write sends whole frames with so much payload in them.
func (l *Leg) write(b []byte, payload int64) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.closed {
		return nil
	}
	l.stuck.Store(int64(time.Since(l.start)))
	_, err := ws.Write(l.conn, b)
	l.stuck.Store(-1)
	if l.closed = err != nil; !l.closed {
		l.passed.Add(payload)
	}
	return err
}

// blocked says since when a write waits for the peer to read.
func (l *Leg) blocked() (since time.Duration, writing bool) {
	s := l.stuck.Load()
	return time.Duration(s), s >= 0
}

// Passed is how much payload the pump has written to the peer. Any goroutine may ask at
// any time in the leg's life.
func (l *Leg) Passed() int64 { return l.passed.Load() }

// Stalled is for how long the peer has not read what the pump writes; 0: it does. Any
// goroutine may ask at any time in the leg's life.
func (l *Leg) Stalled() time.Duration {
	if !l.pumped.Load() {
		return 0
	}
	since, writing := l.blocked()
	if !writing {
		return 0
	}
	return time.Since(l.start) - since
}

// post queues a control frame; a goroutine writes it as soon as the frame under
// way is out. Neither a reader nor a timer may block on a write: the peer may be
// waiting for exactly that reader. Only the first close frame counts.
func (l *Leg) post(op byte, payload []byte) {
	l.pmu.Lock()
	defer l.pmu.Unlock()
	if l.bye || op != ws.OpClose && len(l.pending) > maxPending {
		return
	}
	l.bye = op == ws.OpClose
	l.pending = ws.AppendControl(l.pending, op, payload, false, [4]byte{})
	if !l.posting {
		l.posting = true
		l.posts.Go(l.writePending)
	}
}

// Ping sends the peer a ping with a payload, of which a control frame holds 125
// bytes (RFC 6455 section 5.5). Any goroutine may call it at any time in the leg's
// life; it does not block. It does nothing once a close frame is on its way, or
// while the peer leaves too much unread. The peer's pong goes where all pongs go.
func (l *Leg) Ping(payload []byte) { l.post(ws.OpPing, payload[:min(len(payload), ws.MaxControl)]) }

func (l *Leg) writePending() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.pmu.Lock()
	b, bye := l.pending, l.bye
	l.pending, l.posting = nil, false
	l.pmu.Unlock()
	if l.closed {
		return
	}
	_, err := l.conn.Write(b) // a failure shows in the direction that reads from here
	l.closed = bye || err != nil
}

// said says whether a close frame is out, or on its way.
func (l *Leg) said() bool {
	l.pmu.Lock()
	defer l.pmu.Unlock()
	return l.bye
}

// deadline gives the peer CloseTimeout for everything that is left to do.
func (l *Leg) deadline() { l.conn.SetDeadline(time.Now().Add(CloseTimeout)) }

// finish ends the connection after the last was read from it. It may be called twice.
func (l *Leg) finish() {
	l.post(ws.OpClose, nil)
	l.posts.Wait()
	l.conn.Close()
}

// drain waits for a peer that broke the protocol to go: there are no frames to be
// found any more in what it sends.
func (l *Leg) drain() {
	l.posts.Wait()
	if c, ok := l.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() // a client waits for the server to end the connection (RFC 6455 section 7.1.1)
	}
	b := idleBuffers.Get().(*[]byte)
	defer idleBuffers.Put(b)
	for err := error(nil); err == nil; {
		_, err = l.conn.Read(*b)
	}
}

// untilClose throws away what comes before a close frame.
type untilClose struct{}

func (untilClose) take(_ []byte, _ int64, c *control) error {
	if c != nil && c.op == ws.OpClose {
		return ErrLeft
	}
	return nil
}

// Close sends a close frame and ends the connection, for a leg that never came
// to a pump. It waits at most CloseTimeout for the peer's close frame.
func (l *Leg) Close(code int, reason string) {
	l.deadline()
	l.post(ws.OpClose, ws.AppendClose(nil, code, reason))
	if !l.gotClose.Load() {
		in, err := new(reader), errStill
		for err == errStill { // a grown stack does not matter: this goroutine ends soon
			err = l.frames(in, untilClose{})
		}
		if ws.IsProtocolError(err) {
			l.drain()
		}
	}
	l.finish()
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ErrLeft: the peer closed its WebSocket, or its connection ended.
var ErrLeft = errors.New("the peer left")

// Watch reads ahead on a leg that has no partner yet, so that a peer that leaves
// is noticed. It answers pings and keeps data for the pump. It returns nil when
// ctx ends or there is no room to read further, ErrLeft when the peer left, and
// an error of package ws when it broke the protocol.
func (l *Leg) Watch(ctx context.Context) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.conn.SetReadDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	err := l.watch()
	if !stop() {
		<-interrupted
		l.conn.SetReadDeadline(time.Time{})
		if isTimeout(err) {
			return nil
		}
	}
	return err
}

func (l *Leg) watch() error {
	buf := l.early // of a Watch before
	defer func() { l.early = buf }()
	var at int         // of the first frame not yet looked at
	inMessage := false // which a continuation has to follow
	for {
		for {
			h, n, err := ws.ParseHeader(buf[at:])
			if err != nil {
				return err
			}
			if n > 0 && !h.Masked {
				return ws.ErrMask
			}
			if n > 0 && !h.Control() && (h.Opcode == ws.OpContinuation) != inMessage {
				return ws.ErrContinuation
			}
			if n == 0 || int64(len(buf)-at-n) < h.Len {
				break
			}
			end := at + n + int(h.Len)
			switch h.Opcode {
			case ws.OpClose:
				p := make([]byte, h.Len)
				ws.Mask(p, buf[at+n:end], h.Key, 0)
				if _, _, err := ws.ParseClose(p); err != nil {
					return err
				}
				l.gotClose.Store(true)
				return ErrLeft
			case ws.OpPing:
				p := make([]byte, h.Len)
				ws.Mask(p, buf[at+n:end], h.Key, 0)
				l.post(ws.OpPong, p)
				fallthrough
			case ws.OpPong: // of this leg; the pump need not see it
				buf = append(buf[:at], buf[end:]...)
			default:
				inMessage = !h.Fin
				at = end
			}
		}
		if len(buf) == bufSize {
			return nil // the peer has to wait; its leaving will show later
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(max(512, 4*cap(buf)), bufSize)), buf...)
		}
		m, err := l.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		if m == 0 && err != nil {
			if isTimeout(err) {
				return err
			}
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
	}
}
