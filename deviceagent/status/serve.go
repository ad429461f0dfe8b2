package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/socket"
)

const (
	mode       = 0o600
	maxConns   = 8
	answerTime = 5 * time.Second
)

// A Report is what an agent answers.
type Report struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Now     time.Time `json:"now"` // by the agent's clock
	// Waiting says why the agent does not run for the moment.
	Waiting string `json:"waiting,omitempty"`
	deviceagent.Status
}

// Listen listens at address: Off, a path or a name with @. An empty one means the first
// of Defaults that can be had; it makes the folder. A nil listener without an error is
// of Off.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if address != "" {
		return listen(ctx, address)
	}
	var errs []error
	for _, at := range Defaults() {
		if !isAbstract(at) {
			if err := makeDir(filepath.Dir(at)); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		ln, err := listen(ctx, at)
		if err == nil || errors.Is(err, socket.ErrInUse) {
			return ln, err // a second agent at another place would be asked by nobody
		}
		errs = append(errs, err)
	}
	return nil, cmp.Or(errors.Join(errs...), errors.New("this system has no place for it"))
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	switch {
	case address == Off:
		return nil, nil
	case isAbstract(address):
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "unix", address)
		if inUse(err) {
			err = socket.ErrInUse
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		return ln, nil
	}
	ln, err := socket.Listen(ctx, address, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln, nil
}

// Serve answers until ctx ends, and closes ln.
func Serve(ctx context.Context, ln net.Listener, log *slog.Logger, report func() Report) {
	var work sync.WaitGroup
	defer work.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer ln.Close()
	room := make(chan struct{}, maxConns)
	var pause time.Duration
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil && err != nil {
			return
		}
		if err != nil { // no file descriptor is left, as a rule; there may be one soon
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			log.Warn("status: no connection can be accepted; trying again", "error", err, "in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		select {
		case room <- struct{}{}:
		default:
			c.Close()
			continue
		}
		work.Go(func() {
			defer func() { <-room }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			if err := answer(c, report); err != nil {
				log.Debug("status: not answered", "error", err)
			}
		})
	}
}

func answer(c net.Conn, report func() Report) error {
	c.SetDeadline(time.Now().Add(answerTime))
	if u, ok := c.(*net.UnixConn); ok && isAbstract(u.LocalAddr().String()) {
		if err := checkPeer(u); err != nil {
			return err
		}
	}
	b, err := json.Marshal(report())
	if err != nil {
		return err
	}
	_, err = c.Write(append(b, '\n'))
	return err
}
