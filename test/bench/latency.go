//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

func latencyFigures() []figure {
	var all []figure
	for _, n := range []int{1, 32} {
		all = append(all, figure{
			name: fmt.Sprintf("rtt %d", n), subjects: allChains,
			measure: func(b *bench, ctx context.Context, subject string, add func(string, float64)) error {
				return b.roundTrips(ctx, subject, n, add)
			},
		})
	}
	return append(all, figure{name: "rtt beside bulk", subjects: allChains, measure: (*bench).besideBulk})
}

// roundTrips is of n streams that ping at once, each as soon as its last echo is here.
func (b *bench) roundTrips(ctx context.Context, subject string, n int, add func(string, float64)) error {
	c, err := b.kept(ctx, subject)
	if err != nil {
		return err
	}
	users, err := callAll(ctx, n, c.addr, order(orderEcho, 0), b.length)
	if err != nil {
		return err
	}
	defer closeAll(users)
	if err := together(n, func(i int) error { return ping(users[i]) }); err != nil { // they may have had to be opened
		return err
	}
	end := time.Now().Add(b.length)
	var (
		mu    sync.Mutex // guards times
		times []time.Duration
	)
	err = together(n, func(i int) error {
		mine, err := pings(users[i], end)
		mu.Lock()
		times = append(times, mine...)
		mu.Unlock()
		return err
	})
	addTimes(add, fmt.Sprintf("rtt %d", n), times)
	return err
}

// pings takes the time of each round trip until end.
func pings(u *user, end time.Time) (times []time.Duration, err error) {
	for began := time.Now(); began.Before(end); {
		if err := ping(u); err != nil {
			return times, err
		}
		now := time.Now()
		times = append(times, now.Sub(began))
		began = now
	}
	return times, nil
}

func addTimes(add func(string, float64), metric string, times []time.Duration) {
	for _, p := range []float64{50, 99} {
		add(fmt.Sprintf("%s p%.0f", metric, p), float64(percentile(times, p))/float64(time.Microsecond))
	}
}

// The bulk beside which round trips are measured: it leaves a link half empty, so
// whoever waits does so for no good reason.
const (
	bulkRate  = 32 * mib // bytes a second
	bulkChunk = 64 << 10
)

func (b *bench) besideBulk(ctx context.Context, subject string, add func(string, float64)) error {
	c, err := b.kept(ctx, subject)
	if err != nil {
		return err
	}
	users, err := callAll(ctx, 1, c.addr, order(orderEcho, 0), b.length)
	if err != nil {
		return err
	}
	defer closeAll(users)
	sink, err := call(ctx, c.addr, order(orderSink, 0), b.length)
	if err != nil {
		return err
	}
	defer sink.Close()
	if err := ping(users[0]); err != nil {
		return err
	}
	began := time.Now()
	end := began.Add(b.length)
	var (
		times []time.Duration
		sent  int64
	)
	err = together(2, func(i int) (err error) {
		if i == 0 {
			times, err = pings(users[0], end)
			return err
		}
		if sent, err = paced(sink, end); err != nil {
			return err
		}
		return confirm(sink, sent)
	})
	if err != nil {
		return err
	}
	addTimes(add, "rtt beside bulk", times)
	add("rtt beside bulk, bulk", float64(sent)/mib/time.Since(began).Seconds())
	return nil
}

// paced writes at bulkRate until end.
func paced(u *user, end time.Time) (sent int64, err error) {
	chunk := make([]byte, bulkChunk)
	for began := time.Now(); time.Now().Before(end); {
		due := began.Add(time.Duration(sent * int64(time.Second) / bulkRate))
		time.Sleep(time.Until(due))
		n, err := u.Write(chunk)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
