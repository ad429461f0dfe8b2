//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

func idleFigures() []figure {
	return []figure{{name: "idle streams", subjects: allChains, rounds: 1, cold: true, measure: (*bench).idleStreams}}
}

// warmStreams come and go before memory is looked at, so that what a program needs
// once is not counted for each stream.
const warmStreams = 16

// idleStreams is what a stream costs that has said something once, in a fresh chain.
func (b *bench) idleStreams(ctx context.Context, subject string, add func(string, float64)) error {
	c, err := b.fresh(ctx, subject)
	if err != nil {
		return err
	}
	defer c.stop()
	o := order(orderEcho, 0)
	open := func(n int) (users []*user, err error) {
		for range n {
			u, err := call(ctx, c.addr, o, time.Hour)
			if err == nil {
				users = append(users, u)
				err = ping(u)
			}
			if err != nil {
				closeAll(users)
				return nil, fmt.Errorf("stream %d: %w", len(users), err)
			}
		}
		return users, nil
	}
	warm, err := open(warmStreams)
	if err != nil {
		return err
	}
	defer closeAll(warm)
	before, err := c.settled(ctx, b.settle)
	if err != nil {
		return err
	}
	users, err := open(b.streams)
	defer closeAll(users)
	if err != nil {
		return err
	}
	after, err := c.settled(ctx, b.settle)
	if err != nil {
		return err
	}
	for i, u := range users {
		if err := ping(u); err != nil {
			return fmt.Errorf("idle stream %d of %d does not answer: %w", i, len(users), err)
		}
	}
	for part := range after {
		add("idle stream "+part, float64(after[part]-before[part])/1024/float64(len(users)))
	}
	return nil
}

// settled is the memory of each program after a while.
func (c *chain) settled(ctx context.Context, d time.Duration) (map[string]int64, error) {
	if err := sleep(ctx, d); err != nil {
		return nil, err
	}
	held := make(map[string]int64)
	for part, p := range c.parts {
		var err error
		if held[part], _, err = p.Memory(); err != nil {
			return nil, err
		}
	}
	return held, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
