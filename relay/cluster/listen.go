package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// proofTimeout is for TLS and proof of who dials the node port.
	proofTimeout = 5 * time.Second
	// maxProving is how many may be in that at once; others wait in the kernel's queue.
	maxProving = 256
	// acceptRetry is how long a lack of descriptors or memory is waited out.
	acceptRetry = 100 * time.Millisecond
)

// keepAlive finds a peer that is gone while nobody has anything to say: 15 s of
// silence and four probes 5 s apart are package ws's 35 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

// Listen makes ln, the node port, hand out only connections of nodes that have proven
// themselves. Strangers never reach HTTP. Close waits for what it has started.
func (n *Node) Listen(ln net.Listener) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{Listener: ln, node: n, ctx: ctx, cancel: cancel, proven: make(chan net.Conn), room: make(chan struct{}, maxProving)}
	l.work.Go(l.acceptAll)
	return l
}

type listener struct {
	net.Listener
	node   *Node
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	room   chan struct{}
	proven chan net.Conn
	err    error // why acceptAll ended; read after ctx has ended
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
		select {
		case l.room <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			l.work.Go(func() { l.admit(c) })
			continue
		case l.ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed): // by somebody else
			l.err = err
			return
		default:
			l.node.cfg.Logger.Warn("node port: accept", "error", err)
			wait(l.ctx, acceptRetry)
		}
		<-l.room
	}
}

// admit lets a connection prove itself and hands it out.
func (l *listener) admit(raw net.Conn) {
	defer func() { <-l.room }()
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
			l.node.cfg.Logger.Warn("node port: refused", "from", raw.RemoteAddr().String(), "error", err)
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
