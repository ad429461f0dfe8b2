package cluster

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"websocketbridge/relay/calm"
)

const (
	// proofTimeout is for TLS and proof of who dials the node port.
	proofTimeout = 5 * time.Second
	// maxProving is how many may be in that at once. One more throws the oldest out: a
	// node needs a round trip or three, and whoever has taken longest is least likely one.
	maxProving = 256
	// complainEvery is how often strangers get a line in the log.
	complainEvery = time.Minute
	// acceptRetry is how long a lack of descriptors or memory is waited out.
	acceptRetry = 100 * time.Millisecond
)

// Listen makes ln, the node port, hand out only connections of nodes that have proven
// themselves. Strangers never reach HTTP. Close waits for what it has started.
func (n *Node) Listen(ln net.Listener) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{Listener: ln, node: n, ctx: ctx, cancel: cancel, proven: make(chan net.Conn),
		calm: calm.Log{To: n.cfg.Logger, Lines: 1, Per: complainEvery}}
	l.work.Go(l.acceptAll)
	return l
}

type listener struct {
	net.Listener
	node   *Node
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	proven chan net.Conn
	err    error // why acceptAll ended; read after ctx has ended

	calm calm.Log

	mu      sync.Mutex // guards proving
	proving list.List  // of net.Conn, the oldest first
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.proven:
		return c, nil
	case <-l.ctx.Done():
		l.work.Wait()
		if l.err != nil {
			return nil, l.err
		}
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.work.Wait()
	return err
}

func (l *listener) acceptAll() {
	defer l.cancel()
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			leave := l.enter(c)
			l.work.Go(func() {
				defer leave()
				l.admit(c)
			})
		case l.ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed): // by somebody else
			l.err = err
			return
		default:
			l.node.cfg.Logger.Warn("node port: accept", "error", err)
			wait(l.ctx, acceptRetry)
		}
	}
}

// enter counts c among those that prove themselves, until leave is called.
func (l *listener) enter(c net.Conn) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if oldest := l.proving.Front(); l.proving.Len() >= maxProving {
		l.proving.Remove(oldest).(net.Conn).Close()
	}
	e := l.proving.PushBack(c)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.proving.Remove(e) // of no effect on one that was thrown out
	}
}

// admit lets a connection prove itself and hands it out.
func (l *listener) admit(raw net.Conn) {
	stop := context.AfterFunc(l.ctx, func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(proofTimeout))
	if t, ok := raw.(*net.TCPConn); ok {
		t.SetKeepAliveConfig(keepAlive)
	}
	c := raw
	if cfg := l.node.cfg.TLS; cfg != nil {
		c = tls.Server(raw, cfg)
	}
	err := challenge(c, l.node.cfg.Keys, nonce())
	switch stopped := !stop(); { // from here on Close does not close it: who was handed it does
	case stopped:
		raw.Close()
		return
	case err != nil:
		raw.Close()
		if !errors.Is(err, io.EOF) { // a load balancer's or a person's knock is none
			l.calm.Log(slog.LevelWarn, "refused", "node port: refused", "from", raw.RemoteAddr().String(), "error", err)
		}
		return
	}
	c.SetDeadline(time.Time{})
	select {
	case l.proven <- c:
	case <-l.ctx.Done():
		raw.Close()
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
