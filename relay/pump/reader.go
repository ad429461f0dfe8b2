package pump

import (
	"sync"
	"time"

	"websocketbridge/relay/ws"
)

// A reader is what a leg has read and not looked at. That of a socket holds no buffer while
// it waits. That of TLS holds a small one while its peer has little to say, and a large one
// while a read fills the small one. Idle bridges are many and cheap.
type reader struct {
	w    rewriter
	sock *socket
	pool *sync.Pool // where b is from; nil: nothing has been read
	b    *[]byte    // nil: none is held
	n    int        // (*b)[headroom:n] is not looked at
	// moved: this goroutine has handed out payload, and its stack may have grown.
	moved bool
}

// idleSize is what TLS, and the rest of a frame that has hardly begun, is read into.
const idleSize = 1 << 10

var (
	idleBuffers = newBuffers(headroom + idleSize)
	busyBuffers = newBuffers(headroom + bufSize)
)

func newBuffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// A taker is handed what is to be passed on, rewritten, with the size of the payload in it,
// and then a control frame or nil. Its error ends the reading.
type taker interface {
	take(out []byte, payload int64, c *control) error
}

// frames reads and hands t what is to be passed on until t fails, the connection fails, or
// the peer breaks the protocol. After errStill it is to be called again.
func (l *Leg) frames(in *reader, t taker) error {
	var err error
	if in.pool == nil {
		err = in.begin(l, t)
	}
	for err == nil {
		err = in.next(l, t)
	}
	if in.b != nil && err != errStill {
		in.pool.Put(in.b)
		in.b = nil
	}
	return err
}

// begin looks at what Watch has read.
func (in *reader) begin(l *Leg, t taker) error {
	in.sock, in.pool = newSocket(l.conn), idleBuffers
	if len(l.early) > idleSize || in.sock != nil {
		in.pool = busyBuffers
	}
	in.b = in.pool.Get().(*[]byte)
	in.n = headroom + copy((*in.b)[headroom:], l.early)
	l.early = nil
	if in.n == headroom {
		return nil
	}
	return in.look(t, in.pool)
}

// next reads once.
func (in *reader) next(l *Leg, t taker) error {
	var m int
	var err error
	l.since.Store(int64(time.Since(l.start)))
	if in.sock != nil && in.n == headroom {
		if in.b != nil {
			in.pool.Put(in.b)
		}
		in.pool = busyBuffers
		in.b, m, err = in.sock.read(in.w.want())
	} else {
		room := (*in.b)[in.n:]
		m, err = ws.Read(l.conn, room[:min(len(room), in.w.want())])
	}
	l.since.Store(-1)
	if m == 0 && err != nil {
		return err
	} // an error beside bytes, if it stays, is the next read's
	in.n += m
	fit := in.pool
	switch {
	case in.n == len(*in.b):
		fit = busyBuffers
	case m < idleSize/2:
		fit = idleBuffers
	}
	return in.look(t, fit)
}

// look hands out the frames that have come, and keeps what is less than a header or a
// control frame in a buffer of fit.
func (in *reader) look(t taker, fit *sync.Pool) error {
	buf, still := *in.b, false
	for r := headroom; ; {
		before := in.w.payload
		from, to, next, c, err := in.w.rewrite(buf, r, in.n)
		if to > from || c != nil {
			payload := in.w.payload - before
			in.moved = in.moved || payload > 0
			still = payload == 0
			if err := t.take(buf[from:to], payload, c); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		r = next
		if c != nil {
			continue
		}
		if fit != in.pool && (in.sock == nil || r < in.n) { // a socket's buffer is given back before it waits
			other := fit.Get().(*[]byte)
			in.n = headroom + copy((*other)[headroom:], buf[r:in.n])
			in.pool.Put(in.b)
			in.pool, in.b = fit, other
		} else {
			in.n = headroom + copy(buf[headroom:], buf[r:in.n])
		}
		if still && in.moved && in.sock != nil && in.n == headroom {
			in.moved = false
			return errStill
		}
		return nil
	}
}
