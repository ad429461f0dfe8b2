package session

import (
	"io"
	"sync"
)

// An inbox is what the read loop has read and not yet looked at. Its buffer is small
// while the other side has little to say, as most sessions are idle most of the time,
// and large while reads fill it: then one system call brings many frames.
type inbox struct {
	read func([]byte) (int, error)
	idle func()     // called before each read, which may wait
	pool *sync.Pool // where b is from
	b    *[]byte
	r, w int // b[r:w] is not looked at
}

const (
	idleInbox = 4 << 10  // bytes; any frame but a large DATA fits
	busyInbox = 60 << 10 // what one read brings is written to a program as one TCP segment
)

var (
	idleInboxes = sync.Pool{New: func() any { b := make([]byte, idleInbox); return &b }}
	busyInboxes = sync.Pool{New: func() any { b := make([]byte, busyInbox); return &b }}
)

func newInbox(read func([]byte) (int, error), idle func()) *inbox {
	return &inbox{read: read, idle: idle, pool: &idleInboxes, b: idleInboxes.Get().(*[]byte)}
}

// release gives the buffer back.
func (in *inbox) release() { in.pool.Put(in.b) }

// ready is what there is without reading, until the next call of more or need.
func (in *inbox) ready() []byte { return (*in.b)[in.r:in.w] }

// take returns the first n bytes of ready and is through with them.
func (in *inbox) take(n int) []byte {
	in.r += n
	return (*in.b)[in.r-n : in.r]
}

// need returns the next n bytes, of which there can be idleInbox; take is still to be
// called. The error is io.EOF only where there was nothing.
func (in *inbox) need(n int) ([]byte, error) {
	for len(in.ready()) < n {
		if err := in.more(); err != nil {
			if err == io.EOF && len(in.ready()) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return (*in.b)[in.r : in.r+n], nil
}

// nextHeaders is what comes in front of the next payload: a header, and in most cases the
// WebSocket's.
const nextHeaders = headerSize + 4

// moreOf is more in a payload of which n bytes are to come. Of a large one it reads no more
// than that and the next headers, so that the next payload, another stream's perhaps, comes
// whole and is written whole.
func (in *inbox) moreOf(n int) error {
	if n < busyInbox/2 {
		n = busyInbox
	}
	return in.fill(n + nextHeaders)
}

// more reads once, and returns an error or has bytes.
func (in *inbox) more() error { return in.fill(busyInbox) }

// fill reads once, at most limit bytes.
func (in *inbox) fill(limit int) error {
	in.idle()
	if in.r > 0 {
		in.w = copy(*in.b, in.ready())
		in.r = 0
	}
	room := min(len(*in.b)-in.w, limit)
	n, err := in.read((*in.b)[in.w:][:room])
	in.w += n
	switch {
	case n == room:
		in.move(&busyInboxes)
	case in.w < idleInbox/2:
		in.move(&idleInboxes)
	}
	if n > 0 {
		return nil // the error, if it stays, is the next read's
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// move changes to a buffer of another size, in which what is ready fits.
func (in *inbox) move(to *sync.Pool) {
	if in.pool == to {
		return
	}
	b := to.Get().(*[]byte)
	copy(*b, (*in.b)[:in.w])
	in.pool.Put(in.b)
	in.pool, in.b = to, b
}
