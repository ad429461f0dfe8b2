package ws

import (
	"crypto/tls"
	"net"
	"sync"
)

// A batch is the connection below TLS. TLS reads and writes a record of at most 16 KiB
// at a time, each with a system call of its own and, on the other side, a wake-up. A batch
// reads many records at once while they come in large numbers, and holds back those that
// are written until Write has written its last.
type batch struct {
	net.Conn

	// Of the one goroutine that reads.
	in       *[]byte // read, and not handed to TLS yet: (*in)[r:w]; nil: nothing is
	r, w     int
	hungry   bool // the last read brought all it could
	draining bool // what there is without waiting is wanted, and no more

	wmu    ioLock // also held for the writes that TLS makes when it reads, such as alerts
	held   *[]byte
	n      int // bytes of held
	corked bool
}

// batchSize is in bytes: four records of the greatest length, as a pump's buffer holds,
// with room for what TLS adds to each.
const batchSize = 68 << 10

var batches = sync.Pool{New: func() any { b := make([]byte, batchSize); return &b }}

// Batched is for connections that TLS is to run on, a listener's as well as a dialled
// one. Read and Write of this package then make few system calls.
func Batched(c net.Conn) net.Conn { return &batch{Conn: c, wmu: newIOLock()} }

// BatchedListener makes its connections Batched.
func BatchedListener(l net.Listener) net.Listener { return batchedListener{l} }

type batchedListener struct{ net.Listener }

func (l batchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Batched(c), nil
}

// NetConn is the connection below.
func (b *batch) NetConn() net.Conn { return b.Conn }

// errDrained is told to TLS where a read would have to wait. As a temporary error it
// changes nothing about the connection.
type errDrained struct{}

func (errDrained) Error() string   { return "there is no more without waiting" }
func (errDrained) Timeout() bool   { return true }
func (errDrained) Temporary() bool { return true }

// Read implements net.Conn.
func (b *batch) Read(p []byte) (int, error) {
	if b.in == nil {
		if b.draining {
			return 0, errDrained{}
		}
		if !b.hungry {
			n, err := b.Conn.Read(p)
			b.hungry = n == len(p) && n >= 4<<10 // less is the rest of a record
			return n, err
		}
		in := batches.Get().(*[]byte)
		n, err := b.Conn.Read(*in)
		b.hungry = n > len(*in)/2
		if n == 0 {
			batches.Put(in)
			return 0, err
		}
		b.in, b.r, b.w = in, 0, n // the error, if it stays, is the next read's
	}
	n := copy(p, (*b.in)[b.r:b.w])
	if b.r += n; b.r == b.w {
		batches.Put(b.in)
		b.in = nil
	}
	return n, nil
}

// Write implements net.Conn.
func (b *batch) Write(p []byte) (int, error) {
	b.wmu.Lock()
	defer b.wmu.Unlock()
	if !b.corked {
		return b.Conn.Write(p)
	}
	if b.held == nil {
		b.held = batches.Get().(*[]byte)
	}
	if b.n+len(p) > len(*b.held) {
		if err := b.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > len(*b.held) { // no record is
		return b.Conn.Write(p)
	}
	b.n += copy((*b.held)[b.n:], p)
	return len(p), nil
}

// flush writes what is held. wmu is held.
func (b *batch) flush() error {
	if b.n == 0 {
		return nil
	}
	_, err := b.Conn.Write((*b.held)[:b.n])
	b.n = 0
	return err
}

func (b *batch) cork() {
	b.wmu.Lock()
	defer b.wmu.Unlock()
	b.corked = true
}

func (b *batch) uncork() error {
	b.wmu.Lock()
	defer b.wmu.Unlock()
	b.corked = false
	err := b.flush()
	if b.held != nil {
		batches.Put(b.held)
		b.held = nil
	}
	return err
}

// below returns what TLS runs on in c, if that is a batch.
func below(c net.Conn) (*tls.Conn, *batch) {
	if t, ok := c.(*tls.Conn); ok {
		b, _ := t.NetConn().(*batch)
		return t, b
	}
	return nil, nil
}

// oneRecord is the most that TLS writes as one, in bytes (RFC 8446 section 5.1).
const oneRecord = 16 << 10

// Read is c.Read that brings more than one TLS record if more have come.
func Read(c net.Conn, p []byte) (int, error) {
	n, err := c.Read(p)
	t, b := below(c)
	if b == nil {
		return n, err
	}
	b.draining = true
	// After a full record there is more, as a rule: TLS has it, or the batch.
	for m := n; err == nil && n < len(p) && (b.in != nil || m == oneRecord); n += m {
		m, err = t.Read(p[n:])
	}
	b.draining = false
	if n > 0 {
		err = nil // if it is none of ours, the next read gets it again
	}
	return n, err
}

// Write is c.Write with one system call for all TLS records. Only one goroutine may
// call it at a time.
func Write(c net.Conn, p []byte) (int, error) {
	_, b := below(c)
	if b == nil || len(p) <= oneRecord {
		return c.Write(p)
	}
	b.cork()
	n, err := c.Write(p)
	if uerr := b.uncork(); err == nil && uerr != nil {
		return 0, uerr // how much of it has gone nobody knows
	}
	return n, err
}
