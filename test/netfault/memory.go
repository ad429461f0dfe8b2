// Package netfault is networks for tests: in memory, so that they work inside a
// bubble of testing/synctest, and with faults. Only test files import it.
package netfault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// A Listener hands out connections in memory.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	last   atomic.Pointer[Conn]
	broken atomic.Bool
}

// NewListener returns a listener that nobody has dialled.
func NewListener() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were handed out stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// Dial connects to the listener, whatever the address. It fits ws.Dialer and
// http.Transport.
func (l *Listener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	ours := &Conn{Conn: near}
	if l.broken.CompareAndSwap(true, false) {
		far = cut{far}
	}
	select {
	case l.conns <- far:
		l.last.Store(ours)
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Last is the dialler's end of the newest connection.
func (l *Listener) Last() *Conn { return l.last.Load() }

// BreakNext makes the first write of whoever accepts the next connection fail.
func (l *Listener) BreakNext() { l.broken.Store(true) }

// A Conn is the dialler's end of a connection.
type Conn struct {
	net.Conn
	muted atomic.Bool
}

// Mute makes the network swallow whatever is written from now on.
func (c *Conn) Mute() { c.muted.Store(true) }

func (c *Conn) Write(p []byte) (int, error) {
	if c.muted.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// cut is a connection that breaks at the first write.
type cut struct{ net.Conn }

func (c cut) Write([]byte) (int, error) {
	c.Close()
	return 0, errors.New("broken pipe")
}

// NoProxy is for diallers that must not look at the environment.
func NoProxy(*http.Request) (*url.URL, error) { return nil, nil }
