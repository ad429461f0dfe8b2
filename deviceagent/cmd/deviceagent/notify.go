package main

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// readyWithin is when systemd is told READY=1 at the latest. Before that it hears of it
// when signals are heard, so that systemctl start returns when the agent works. A hub
// that is not reached must not hold up the boot, nor have the agent killed for being late.
const readyWithin = 20 * time.Second

// Looks at the agent's state, to tell systemd of it: the first while systemctl waits.
const (
	lookSoon = 250 * time.Millisecond
	lookOn   = 5 * time.Second
)

// notify tells systemd how the agent fares until ctx ends (sd_notify(3)): READY, STATUS
// with a line for people, STOPPING, and WATCHDOG as long as the agent can be asked. It
// does nothing where no service manager wants to hear it.
func (l *life) notify(ctx context.Context) {
	if ok, err := daemon.SdNotify(false, "STATUS=starting"); !ok {
		if err != nil {
			l.log.Warn("the service manager cannot be told", "error", err)
		}
		return
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		l.log.Warn("the watchdog is not served", "error", err)
	}
	every := lookOn
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	latest := time.Now().Add(readyWithin)
	ready, said := false, ""
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping+"\nSTATUS=stopping")
			return
		case now := <-t.C:
			r := l.report() // does not return if the agent hangs, and then there is no WATCHDOG
			tell := ""
			if !ready && (r.Connected() || !now.Before(latest)) {
				ready = true
				tell += daemon.SdNotifyReady + "\n"
			}
			if line := r.Line(); line != said {
				said = line
				tell += "STATUS=" + line + "\n"
			}
			if watchdog > 0 {
				tell += daemon.SdNotifyWatchdog + "\n"
			}
			if tell != "" {
				daemon.SdNotify(false, tell) // the next one may get through
			}
			if ready {
				t.Reset(every)
			} else {
				t.Reset(min(lookSoon, every))
			}
		}
	}
}
