package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"websocketbridge/relay/session"
)

const (
	// openTimeout is how long a forwarded connection waits for a session and for
	// its target: a dial-back on a slow link and a target's own time-out.
	openTimeout = 30 * time.Second
	// acceptRetry is how long a lack of descriptors or memory is waited out.
	acceptRetry = 100 * time.Millisecond
)

// Forward accepts connections on ln and connects each to target on the device,
// until ctx ends or ln is closed or fails, which is an error. It closes ln and
// returns when the last connection has ended; when ctx ends they are cut. A
// connection that gets no stream is reset; refused, which may be nil, is told why,
// from several goroutines.
func (l *Link) Forward(ctx context.Context, ln net.Listener, target string, refused func(error)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer ln.Close()
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
		case !shortage(err):
			return fmt.Errorf("forward %s: %w", target, err)
		default:
			t := time.NewTimer(acceptRetry)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}

// shortage says whether Accept may work again by itself.
func shortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// forward serves one connection. It returns why it got no stream.
func (l *Link) forward(ctx context.Context, c net.Conn, target string) error {
	local := session.NewLocal(c)
	defer local.Close()
	defer context.AfterFunc(ctx, local.Reset)()
	openCtx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
	defer cancel()
	st, s, err := l.open(openCtx, target)
	if err != nil {
		local.Reset()
		return err
	}
	defer l.release(s) // only then: the last bytes may take their time

	st.Splice(local, "requester_failed", "the requester's connection failed") // each end has been told of a failure
	return nil
}
