package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"websocketbridge/relay/session"
)

// openTimeout is how long a forwarded connection waits for a session and for
// its target: a dial-back on a slow link and a target's own time-out.
const openTimeout = 30 * time.Second

// Forward accepts connections on ln and connects each to target on the device,
// until ctx ends or ln is closed. It closes ln and returns when the last
// connection has ended. A connection that gets no stream is reset; refused, which
// may be nil, is told why, from several goroutines.
func (l *Link) Forward(ctx context.Context, ln net.Listener, target string, refused func(error)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			conns.Go(func() {
				if err := l.forward(ctx, c, target); err != nil && ctx.Err() == nil && refused != nil {
					refused(err)
				}
			})
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("forward %s: %w", target, err)
		default: // out of descriptors, say: others will be given back
			t := time.NewTimer(100 * time.Millisecond)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}

func (l *Link) forward(ctx context.Context, c net.Conn, target string) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	openCtx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
	defer cancel()
	st, err := l.Open(openCtx, target)
	if err != nil {
		reset(c)
		return err
	}
	splice(c, st)
	return nil
}

// splice copies both ways until both have ended, passing each end on alone.
func splice(c net.Conn, st *session.Stream) {
	defer st.Close()
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		if _, err := io.Copy(st, c); err != nil {
			st.Reset("requester_failed", "the requester's connection failed")
			return
		}
		st.CloseWrite()
	})
	if _, err := io.Copy(c, st); err != nil {
		reset(c) // the program must not take a cut for an end
	} else if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// reset closes a TCP connection so that its peer sees a failure, not an end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
