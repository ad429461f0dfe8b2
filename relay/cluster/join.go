package cluster

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Linger is how long one direction of a forward may go on after the other has ended:
// package pump's time for a close frame, and some for the way.
const Linger = 6 * time.Second

// Join copies bytes both ways between the connection of an upgrade and c, the device's,
// of which head was read already, until both directions have ended or ctx has. It
// closes both, and returns how many bytes went each way.
func (a *Answer) Join(ctx context.Context, c net.Conn, head []byte) (toDevice, toOwner int64) {
	if t, ok := below(c).(*net.TCPConn); ok {
		t.SetKeepAliveConfig(keepAlive)
	}
	f := &forward{ends: [2]net.Conn{c, a.conn}}
	defer context.AfterFunc(ctx, f.cut)()
	var wg sync.WaitGroup
	wg.Go(func() { toDevice = f.copy(c, a.conn, a.head) })
	toOwner = f.copy(a.conn, c, head)
	wg.Wait()
	f.lingers.Stop()
	c.Close()
	a.conn.Close()
	return toDevice, toOwner
}

type forward struct {
	ends [2]net.Conn

	ended   sync.Once // a direction has
	lingers *time.Timer
}

// copy passes head and then all of src on to dst, and its end.
func (f *forward) copy(dst, src net.Conn, head []byte) (passed int64) {
	var err error
	if len(head) > 0 {
		var n int
		n, err = dst.Write(head)
		passed = int64(n)
	}
	if err == nil {
		n, _ := copyBytes(dst, src) // a failure is an end: each side learns from the other's
		passed += n
	}
	// First, because CloseWrite of TLS has to write, and may have to wait for that. Not a
	// deadline, because it sets its own.
	f.ended.Do(func() { f.lingers = time.AfterFunc(Linger, f.cut) })
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	} else {
		dst.Close()
	}
	return passed
}

// cut ends both directions now.
func (f *forward) cut() {
	for _, c := range f.ends {
		below(c).Close()
	}
}

// A direction holds a small buffer while there is little to pass on, and a large one
// while a read fills the small one. The large one is what fits the processor's cache: see
// BenchmarkJoin, and doc.go on why the kernel does not do it.
const (
	idleSize = 4 << 10
	busySize = 128 << 10
)

var (
	idleBuffers = newBuffers(idleSize)
	busyBuffers = newBuffers(busySize)
)

func newBuffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// copyBytes passes all of src on to dst.
func copyBytes(dst io.Writer, src io.Reader) (passed int64, err error) {
	pool := idleBuffers
	b := pool.Get().(*[]byte)
	defer func() { pool.Put(b) }()
	for {
		n, err := src.Read(*b)
		if n > 0 {
			m, err := dst.Write((*b)[:n])
			if passed += int64(m); err != nil {
				return passed, err
			}
		}
		switch {
		case err == io.EOF:
			return passed, nil
		case err != nil:
			return passed, err
		}
		fit := pool
		switch {
		case n == len(*b):
			fit = busyBuffers
		case n < idleSize/2:
			fit = idleBuffers
		}
		if fit != pool {
			pool.Put(b)
			pool, b = fit, fit.Get().(*[]byte)
		}
	}
}
