package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/signaler"
)

// contested is a source whose identity another client has for the first few times.
type contested struct{ losses, runs int }

func (c *contested) Run(ctx context.Context, _ signaler.Handler) error {
	c.runs++
	if c.runs <= c.losses {
		return signaler.ErrTakenOver
	}
	<-ctx.Done()
	return nil
}

// An agent whose identity was taken ends with status 3, or tries again after a while.
func TestRetryTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets, err := deviceagent.ParseTargets(nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := func(src *contested) *life {
			a, err := deviceagent.New(deviceagent.Config{DeviceID: "pump-7", Source: src, RelayHosts: []string{"*"}, Targets: targets})
			if err != nil {
				t.Fatal(err)
			}
			return &life{agent: a, log: slog.New(slog.DiscardHandler)}
		}
		if err := begin(&contested{losses: 1}).run(t.Context(), 0); !errors.Is(err, signaler.ErrTakenOver) || exitStatus(err) != exitTakenOver {
			t.Errorf("without a retry: %v", err)
		}
		src := &contested{losses: 2}
		l := begin(src)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.run(ctx, 10*time.Minute) }()
		synctest.Wait()
		if r := l.report(); r.Connected() || !strings.Contains(r.Line(), "another client has this agent's identity; trying again at 2000-01-01T00:10:00Z") {
			t.Errorf("while it waits: %s", r.Line())
		}
		time.Sleep(20*time.Minute + time.Second)
		synctest.Wait()
		if r := l.report(); !r.Connected() || r.Waiting != "" || src.runs != 3 {
			t.Errorf("when the other is gone: %s, %d runs", r.Line(), src.runs)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		// Told to stop while it waits.
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := begin(&contested{losses: 9}).run(ctx, time.Hour); err != nil {
			t.Errorf("stopped while it waits: %v", err)
		}
	})
}
