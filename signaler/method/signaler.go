package method

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

const (
	// defaultTimeout is for a caller without a deadline; the hub's own default.
	defaultTimeout = 30 * time.Second
	// What the hub takes as responseTimeoutInSeconds.
	minResponse, maxResponse = 5 * time.Second, 300 * time.Second
	// overhead is how much longer than it was asked to a hub may take, after which it is
	// taken for dead; that of Microsoft's .NET SDK.
	overhead = 15 * time.Second

	// reconnectPause and reconnectWait are for a device that may be on its way back:
	// before the second call, and how long the hub then waits for it. Together with the
	// two calls they stay below 1.5 s.
	reconnectPause, reconnectWait = 250 * time.Millisecond, time.Second
	// unseenPause is before a second call that follows one which nobody saw.
	unseenPause = 200 * time.Millisecond
	// leastTime has to be left of a deadline for a second try to make sense.
	leastTime = 500 * time.Millisecond
)

// Signal implements signaler.Signaler. It returns nil if the device accepted.
func (s *Signaler) Signal(ctx context.Context, sig *signaler.Signal) error {
	start := time.Now()
	err := s.signal(ctx, sig)
	if err != nil {
		err = fmt.Errorf("direct method on %s: %w", s.name(sig.DeviceID), err)
	}
	s.log.Debug("signal", "device", sig.DeviceID, "bridge", sig.BridgeID, "took", time.Since(start), "err", err)
	return err
}

func (s *Signaler) name(device string) string {
	if s.cfg.Module == "" {
		return fmt.Sprintf("%q", device)
	}
	return fmt.Sprintf("%q, module %q", device, s.cfg.Module)
}

func (s *Signaler) signal(ctx context.Context, sig *signaler.Signal) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	payload, err := sig.Encode()
	if err != nil {
		return err
	}
	if err := checkID(sig.DeviceID); err != nil {
		return fmt.Errorf("the device ID %w: %w", err, signaler.ErrDeviceNotFound)
	}
	c := &call{Signaler: s, sig: sig, payload: payload, connect: s.cfg.ConnectTimeout}
	tried := make(map[again]bool)
	var first error // why there is a second try
	for {
		err := s.ready(ctx, c)
		if err != nil && first != nil && ctx.Err() == nil {
			return first // it says more
		}
		if err == nil {
			err = c.do(ctx)
		}
		if no := (*signaler.RefusedError)(nil); errors.As(err, &no) && no.Code == codeReplayed && first != nil {
			return nil // it has the first one
		}
		var f *failure
		if !errors.As(err, &f) || f.again == never || tried[f.again] {
			return err
		}
		tried[f.again] = true
		if !s.prepare(ctx, c, f.again) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		s.log.Debug("second try", "device", sig.DeviceID, "bridge", sig.BridgeID, "reason", err)
		first = err
	}
}

// ready returns when the call may be made, with a token.
func (s *Signaler) ready(ctx context.Context, c *call) (err error) {
	if c.token, err = s.token(ctx); err != nil {
		return err
	}
	return s.gate.pass(ctx)
}

// prepare makes ready for the second try, and says whether there is to be one.
func (s *Signaler) prepare(ctx context.Context, c *call, why again) bool {
	wait := unseenPause
	switch {
	case why == token:
		return s.freshToken(ctx, c.token)
	case why == reconnect && s.cfg.AskOnce:
		return false
	case why == reconnect:
		wait = reconnectPause
	}
	wait = wait*3/4 + rand.N(wait/2) // of many that failed in one moment
	left := timeLeft(ctx)
	if left < wait+leastTime || pause(ctx, wait) != nil {
		return false
	}
	if why == reconnect && left-wait > reconnectWait+leastTime {
		c.connect = max(c.connect, reconnectWait)
	}
	return true
}

// timeLeft is until ctx's deadline; defaultTimeout if it has none.
func timeLeft(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return time.Until(end)
	}
	return defaultTimeout
}

// A forgetter is a credential.Source that can be told that the hub refused a token.
type forgetter interface {
	Forget(credential.Token)
}

// freshToken says whether there is another token than the one that was refused.
func (s *Signaler) freshToken(ctx context.Context, refused credential.Token) bool {
	if f, ok := s.cfg.Credential.(forgetter); ok {
		f.Forget(refused)
	}
	t, err := s.cfg.Credential.Token(ctx)
	return err == nil && t.Text != refused.Text
}

// token asks the source for a token.
func (s *Signaler) token(ctx context.Context) (credential.Token, error) {
	t, err := s.cfg.Credential.Token(ctx)
	switch {
	case err == nil:
		return t, nil
	case ctx.Err() != nil:
		return t, fmt.Errorf("get a token: %w", context.Cause(ctx))
	}
	is := signaler.ErrUnauthorized
	var u interface{ Unavailable() bool } // package entra's: nobody could be asked
	if errors.As(err, &u) && u.Unavailable() {
		is = signaler.ErrUnavailable
	}
	return t, fmt.Errorf("get a token: %v: %w", err, is) // %v: whatever else err is, the hub did not say it
}

// A failure is an error that is one of signaler's, and whether to try again.
type failure struct {
	err   error
	again again
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }
