package deviceagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"websocketbridge/signaler"
)

// switchPoll is between looks at the kill switch: with the goodbye of a bridge, within
// a second nothing is open.
const switchPoll = 500 * time.Millisecond

var errSwitchedOff = errors.New("the device's owner has switched remote access off")

// FileSwitch is a Config.KillSwitch: remote access is off while there is anything at
// path. It is off, too, while nobody can tell, because the folder is gone or may not be
// searched: whoever wants to switch off must not be thwarted by that.
func FileSwitch(path string) func() error {
	return func() error {
		_, err := os.Lstat(path)
		switch {
		case err == nil:
			return fmt.Errorf("%s is there", path)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("cannot tell whether it is there: %w", err)
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("cannot tell whether it is there: %w", err)
		}
		return nil
	}
}

// beginBridges makes what bridges live under, and has the kill switch looked at, until
// ctx ends.
func (a *Agent) beginBridges(ctx context.Context) {
	a.mu.Lock()
	a.running, a.since = true, time.Now()
	a.off, a.offWhy, a.offSince = false, "", time.Time{}
	a.live, a.cut = context.WithCancelCause(ctx)
	a.mu.Unlock()
	if a.cfg.KillSwitch != nil {
		a.switchedOff() // before the first signal
		a.work.Go(func() { a.pollSwitch(ctx) })
	}
}

func (a *Agent) pollSwitch(ctx context.Context) {
	t := time.NewTicker(switchPoll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			a.switchedOff()
		case <-ctx.Done():
			return
		}
	}
}

// switchedOff asks the kill switch. When it was on and is off, all bridges end.
func (a *Agent) switchedOff() bool {
	if a.cfg.KillSwitch == nil {
		return false
	}
	a.asking.Lock()
	defer a.asking.Unlock()
	why := a.cfg.KillSwitch()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch off := why != nil; {
	case off == a.off:
	case off:
		a.off, a.offWhy, a.offSince = true, why.Error(), time.Now()
		a.cut(errSwitchedOff)
		a.log.Warn("remote access is switched off; no bridge is open, and signals are refused", "reason", why)
	default:
		a.off, a.offWhy, a.offSince = false, "", time.Time{}
		a.log.Info("remote access is on again")
	}
	return a.off
}

// bridgesContext is what bridges that begin now live under. Of ctx, which is Run's, they
// begin anew after the kill switch was off.
func (a *Agent) bridgesContext(ctx context.Context) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.off && a.live.Err() != nil && ctx.Err() == nil {
		a.live, a.cut = context.WithCancelCause(ctx)
	}
	return a.live
}

// stopped says why ctx, of bridges, has ended.
func stopped(ctx context.Context) *signaler.Refusal {
	if errors.Is(context.Cause(ctx), errSwitchedOff) {
		return refuse("disabled", "%v", errSwitchedOff)
	}
	return refuse("stopping", "the agent stops")
}
