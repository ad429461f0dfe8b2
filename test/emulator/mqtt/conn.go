package mqtt

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A Conn is a connection that Serve runs. Its methods may be called from any
// goroutine, and do not wait.
type Conn struct {
	cfg Config
	nc  net.Conn
	in  *bufio.Reader
	out *outbox

	ended   chan struct{} // closed by end
	silence time.Duration // the client's, set once

	mu      sync.Mutex
	ready   bool              // guarded by mu, as are those below; the CONNACK is written
	cause   error             // of the end
	over    bool              // ended is closed
	hard    bool              // end without the goodbye of TLS
	frozen  bool              // Freeze
	lastID  uint16            // of a PUBLISH
	flights map[uint16][]byte // PUBLISH packets without PUBACK
}

// Serve runs a connection until it ends, or ctx does, and has then closed nc. It
// returns why it ended; nil: the client sent DISCONNECT.
func Serve(ctx context.Context, nc net.Conn, cfg Config, h Handler) error {
	cfg = cfg.withDefaults()
	c := &Conn{cfg: cfg, nc: nc, in: bufio.NewReader(nc), out: newOutbox(cfg.Backlog),
		ended: make(chan struct{}), flights: make(map[uint16][]byte)}
	defer nc.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	hung := make(chan struct{})
	wg.Go(func() {
		defer close(hung)
		c.hangUp(ctx)
	})

	connect, err := c.handshake(h)
	if err != nil {
		c.end(err)
		c.linger(ctx, hung)
		return c.reason()
	}
	wg.Go(c.writePackets)
	h.OnReady()
	err = c.readPackets(h)
	c.end(err)
	cause := c.reason()
	e := End{Cause: cause, Graceful: cause == nil}
	if !e.Graceful {
		e.Will = connect.Will
	}
	h.OnClose(e)
	c.linger(ctx, hung)
	return cause
}

// Close ends the connection without a word. The cause goes to OnClose.
func (c *Conn) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	c.end(cause)
}

// Freeze makes the connection half-open: from now on the network swallows what
// either end sends. The server notices by the client's silence, the client must
// by itself: its socket lives until it closes it, or Serve's ctx ends.
func (c *Conn) Freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
}

func (c *Conn) state() (frozen, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frozen, c.over
}

func (c *Conn) isFrozen() bool {
	frozen, _ := c.state()
	return frozen
}

// end notes the first cause; nil: DISCONNECT.
func (c *Conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over, c.cause = true, cause
	close(c.ended)
	c.out.close()
}

func (c *Conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// hangUp closes the socket once the connection has ended, which also frees who
// reads from it or writes to it. It has a goroutine, for closing TLS may take a
// while and Close must not.
func (c *Conn) hangUp(ctx context.Context) {
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.end(context.Cause(ctx))
	}
	c.mu.Lock()
	hard, frozen := c.hard, c.frozen
	c.mu.Unlock()
	switch {
	case frozen && ctx.Err() == nil:
		c.nc.SetReadDeadline(time.Unix(1, 0)) // frees the reader only
	case hard:
		drop(c.nc)
	default:
		c.nc.Close()
	}
}

// drop closes the socket below TLS and WebSocket, so that neither says goodbye,
// and by a reset where there is TCP.
func drop(nc net.Conn) {
	for {
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = inner.NetConn()
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	nc.Close()
}

// linger keeps the socket of a frozen connection until the client closes it. It
// waits for hangUp, whose deadline comes first.
func (c *Conn) linger(ctx context.Context, hung <-chan struct{}) {
	if !c.isFrozen() {
		return
	}
	<-hung
	stop := context.AfterFunc(ctx, func() { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c.nc.SetReadDeadline(time.Time{})
	if ctx.Err() != nil {
		return
	}
	if _, err := io.Copy(io.Discard, c.nc); timedOut(err) {
		<-ctx.Done() // a WebSocket cannot be read again after its deadline has passed once
	}
}

// deadline gives the client until d from now for its next packet. One that has
// ended, or is frozen, keeps the deadline it has.
func (c *Conn) deadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && !c.frozen {
		c.nc.SetReadDeadline(time.Now().Add(d))
	}
}
