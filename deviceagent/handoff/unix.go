package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"websocketbridge/deviceagent/socket"
	"websocketbridge/signaler"
)

// socketMode is the agent's user and group.
const socketMode = 0o660

// acceptPause is the first one after a failure, as net/http's.
const acceptPause = 5 * time.Millisecond

// runUnix serves connections until ctx ends or the listener fails.
func (s *Source) runUnix(ctx context.Context, ask func([]byte) *signaler.Refusal) error {
	ln, err := socket.Listen(ctx, s.cfg.Address.At, socketMode)
	if err != nil {
		return fmt.Errorf("handoff: listen on %s: %w", s.cfg.Address.At, err)
	}
	s.listening(s.cfg.Address.At)
	return s.serveUnix(ctx, ln, ask)
}

// serveUnix closes ln.
func (s *Source) serveUnix(ctx context.Context, ln net.Listener, ask func([]byte) *signaler.Refusal) error {
	conns := &limited{Listener: ln, room: make(chan struct{}, s.cfg.MaxConns), over: func(c net.Conn) {
		s.log.Warn("signals: too many connections", "most", s.cfg.MaxConns)
		c.Write(Answer(busy)) // to an empty buffer; a writer that has gone does not matter
	}}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conns.Close() })
	defer stop()
	var pause time.Duration
	for {
		c, err := conns.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil && err != nil {
			return fmt.Errorf("handoff: %w", err)
		}
		if err != nil { // no file descriptor is left, as a rule; there may be one soon
			pause = min(max(2*pause, acceptPause), time.Second)
			s.log.Warn("signals: no connection can be accepted; trying again", "error", err, "in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		work.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			s.talk(ctx, c, ask)
		})
	}
}

// talk answers the signals of one connection.
func (s *Source) talk(ctx context.Context, c net.Conn, ask func([]byte) *signaler.Refusal) {
	r := newReader(c, false)
	for ctx.Err() == nil {
		began := false
		within(ctx, c, s.idleTime)
		payload, err := r.next(func() {
			began = true
			within(ctx, c, s.signalTime)
		})
		var garbage errGarbage
		switch {
		case err == nil:
			within(ctx, c, s.signalTime) // the handler took none of it
			if _, err := c.Write(Answer(ask(payload))); err != nil {
				s.log.Debug("signals: answer was not taken", "error", err)
				return
			}
			continue
		case errors.As(err, &garbage):
		case errors.Is(err, os.ErrDeadlineExceeded) && began && ctx.Err() == nil:
			within(ctx, c, s.signalTime)
			garbage = errGarbage(fmt.Sprintf("did not end within %v", s.signalTime))
		default: // io.EOF: it has what it wanted
			return
		}
		s.log.Warn("signals: garbage", "reason", garbage)
		c.Write(Answer(badSignal(garbage.Error())))
		linger(c)
		return
	}
}

// within is a deadline that does not undo the one at ctx's end.
func within(ctx context.Context, c net.Conn, d time.Duration) {
	c.SetDeadline(time.Now().Add(d))
	if ctx.Err() != nil {
		c.SetDeadline(time.Unix(1, 0))
	}
}

// linger lets the other end read the answer: closed with bytes unread, the
// connection would be reset.
func linger(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, 1<<20)
}
