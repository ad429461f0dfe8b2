//go:build linux

package main

import (
	"context"
	"sync"
	"time"
)

func bridgeFigures() []figure {
	return []figure{{name: "bridges", subjects: []string{ours, oursTLS}, measure: (*bench).newBridges}}
}

// bridgesAtOnce is how many requesters there are.
const bridgesAtOnce = 64

// newBridges has requesters connect, and close as soon as the bridge is there, again and
// again. The time of one is from the first packet to the 101 that says so.
func (b *bench) newBridges(ctx context.Context, subject string, add func(string, float64)) error {
	_, open, err := b.rawWorld(ctx, subject)
	if err != nil {
		return err
	}
	var (
		mu    sync.Mutex // guards times
		times []time.Duration
	)
	began := time.Now()
	end := began.Add(b.length)
	err = together(bridgesAtOnce, func(int) error {
		for time.Now().Before(end) {
			began := time.Now()
			requester, device, err := open(ctx)
			if err != nil {
				return err
			}
			took := time.Since(began)
			if err := closeBridge(requester, device); err != nil {
				return err
			}
			mu.Lock()
			times = append(times, took)
			mu.Unlock()
		}
		return nil
	})
	add("bridges", float64(len(times))/time.Since(began).Seconds())
	add("bridges p50", percentile(times, 50).Seconds()*1000)
	add("bridges p99", percentile(times, 99).Seconds()*1000)
	return err
}

// closeBridge closes politely: the requester says so, the device answers, and each hears it.
func closeBridge(requester, device *peer) error {
	defer requester.Close()
	defer device.Close()
	requester.SetDeadline(time.Now().Add(patience))
	device.SetDeadline(time.Now().Add(patience))
	if _, err := requester.Write(closeFrame()); err != nil {
		return err
	}
	var b [512]byte
	nothing := func(header, []byte) error { return nil }
	if err := device.frames(b[:], nothing); err != nil {
		return err
	}
	if _, err := device.Write(closeFrame()); err != nil {
		return err
	}
	return requester.frames(b[:], nothing)
}
