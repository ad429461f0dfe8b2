//go:build linux

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

func churnFigures() []figure {
	var all []figure
	for _, n := range []int{16, 64} {
		all = append(all, figure{
			name: fmt.Sprintf("new streams %d", n), subjects: allChains,
			measure: func(b *bench, ctx context.Context, subject string, add func(string, float64)) error {
				return b.newStreams(ctx, subject, n, add)
			},
		})
	}
	return all
}

// newStreams has n users connect, ping once and leave, again and again.
func (b *bench) newStreams(ctx context.Context, subject string, n int, add func(string, float64)) error {
	c, err := b.kept(ctx, subject)
	if err != nil {
		return err
	}
	var count atomic.Int64
	o := order(orderEcho, 0)
	began := time.Now()
	end := began.Add(b.length)
	err = together(n, func(int) error {
		for time.Now().Before(end) {
			u, err := call(ctx, c.addr, o, b.length)
			if err != nil {
				return err
			}
			err = ping(u)
			u.Close()
			if err != nil {
				return err
			}
			count.Add(1)
		}
		return nil
	})
	add(fmt.Sprintf("new streams %d", n), float64(count.Load())/time.Since(began).Seconds())
	return err
}
