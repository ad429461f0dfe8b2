//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// piped joins two ends by a link there and one back, and says when both have ended.
func piped(d delay) (near, far net.Conn, wait func()) {
	near, in := net.Pipe()
	out, far := net.Pipe()
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{out, in}, {in, out}} {
		wg.Go(func() {
			newLink(d).pass(p[0], p[1])
			p[0].Close()
		})
	}
	return near, far, wg.Wait
}

func TestDelayRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, wait := piped(delay{50 * time.Millisecond, 125_000_000})
		go io.Copy(far, far)
		began := time.Now()
		for range 10 {
			near.Write([]byte("ping"))
			io.ReadFull(near, make([]byte, 4))
		}
		if got := time.Since(began); got < time.Second || got > time.Second+time.Millisecond {
			t.Errorf("10 round trips took %v, want 1s", got)
		}
		near.Close()
		far.Close()
		wait()
	})
}

// The rate is reached whatever the delay: what is on its way is as much as it takes.
func TestDelayRate(t *testing.T) {
	for _, way := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(way.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate, size = 125_000_000, 20 << 20
				near, far, wait := piped(delay{way, rate})
				sent := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, size/7)
				began := time.Now()
				go func() {
					near.Write(sent)
					near.Close()
				}()
				got, _ := io.ReadAll(far)
				if !bytes.Equal(got, sent) {
					t.Errorf("%d of %d bytes arrived, or others", len(got), len(sent))
				}
				want := way + time.Duration(float64(size)/rate*float64(time.Second))
				if took := time.Since(began); took < want*99/100 || took > want*101/100 {
					t.Errorf("took %v, want %v", took, want)
				}
				far.Close()
				wait()
			})
		})
	}
}

// Two connections share the rate.
func TestDelayShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(delay{time.Millisecond, 10_000_000})
		began := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			near, in := net.Pipe()
			out, far := net.Pipe()
			wg.Go(func() {
				l.pass(out, in)
				out.Close()
			})
			wg.Go(func() {
				near.Write(make([]byte, 5_000_000))
				near.Close()
			})
			wg.Go(func() { io.Copy(io.Discard, far) })
		}
		wg.Wait()
		if got := time.Since(began); got < 990*time.Millisecond || got > 1010*time.Millisecond {
			t.Errorf("10 MB at 10 MB/s took %v", got)
		}
	})
}

// A receiver that does not read holds the sender up, and one that fails ends it.
func TestDelayBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, in := net.Pipe()
		out, far := net.Pipe()
		ended := make(chan error)
		go func() { ended <- newLink(delay{0, 1 << 40}).pass(out, in) }()
		near.SetDeadline(time.Now().Add(time.Hour))
		n, err := near.Write(make([]byte, 64<<20))
		if err == nil || n < spare/2 || n > spare+2*chunk {
			t.Errorf("%d bytes were taken, %v", n, err)
		}
		far.Close()
		near.Close()
		if err := <-ended; err == nil {
			t.Error("nobody reads, and nothing failed")
		}
	})
}
