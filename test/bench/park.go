//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func parkFigures() []figure {
	return []figure{{name: "idle bridges", subjects: []string{ours, oursTLS}, rounds: 1, cold: true, measure: (*bench).idleBridges}}
}

// warmBridges stay while others come, so that what the relay needs once is not counted for each.
const warmBridges = 32

// idleBridges is what a raw bridge costs a relay that has no other work than to ping it,
// and whether all of them answer.
func (b *bench) idleBridges(ctx context.Context, subject string, add func(string, float64)) error {
	n, short := roomFor(b.idle)
	if short != "" {
		b.book.note(short)
	}
	c, y, err := b.freshYard(ctx, subject)
	if err != nil {
		return err
	}
	defer c.stop()
	defer y.close()
	lot := &lot{yard: y}
	defer lot.close()
	if err := lot.park(ctx, warmBridges); err != nil {
		return err
	}
	before, err := c.settled(ctx, b.settle)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := lot.park(ctx, n); err != nil {
		return fmt.Errorf("after %d bridges: %w", len(lot.parked), err)
	}
	add("idle bridges opened", float64(n)/time.Since(began).Seconds())
	after, err := c.settled(ctx, 4*b.settle) // by default each has been pinged once
	if err != nil {
		return err
	}
	add("idle bridge", float64(after[partRelay]-before[partRelay])/1024/float64(n))
	answer, err := lot.ask(ctx)
	add("idle bridges that answer", float64(answer))
	return err
}

// roomFor says how many of n bridges the limit of descriptors allows: two each, here and
// in the relay, which gets this process's limit.
func roomFor(n int) (room int, short string) {
	const others = 400 // here: chains, their targets, the programs' files
	need := uint64(2*(n+warmBridges) + others)
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return n, ""
	}
	if l.Cur < need { // the second is for those who may raise the hard limit
		for _, wider := range []syscall.Rlimit{{Cur: min(need, l.Max), Max: l.Max}, {Cur: need, Max: max(need, l.Max)}} {
			if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &wider) == nil {
				l = wider
			}
		}
	}
	if l.Cur >= need {
		return n, ""
	}
	room = max(1, (int(l.Cur)-others)/2-warmBridges)
	return room, fmt.Sprintf("%d idle bridges of %d: RLIMIT_NOFILE is %d and may not be raised here, and each bridge needs two descriptors; ulimit -n %d is enough", room, n, l.Cur, need)
}

// A lot holds parked bridges.
type lot struct {
	yard *yard
	wg   sync.WaitGroup

	mu     sync.Mutex // guards parked
	parked []*parkedBridge
}

// A parkedBridge answers pings, as any client does. Its device sends back what comes.
type parkedBridge struct {
	requester, device *peer
	heard             chan struct{} // the requester has got a message
}

// openers is how many bridges are opened at once.
const openers = 32

// park opens n more.
func (l *lot) park(ctx context.Context, n int) error {
	var begun atomic.Int64
	return together(openers, func(int) error {
		for begun.Add(1) <= int64(n) {
			r, d, err := l.yard.open(ctx)
			if err != nil {
				return err
			}
			b := &parkedBridge{r, d, make(chan struct{}, 1)}
			l.mu.Lock()
			l.parked = append(l.parked, b)
			l.mu.Unlock()
			l.wg.Go(func() {
				listenFor(r, func() error {
					select {
					case b.heard <- struct{}{}:
					default:
					}
					return nil
				})
			})
			l.wg.Go(func() {
				listenFor(d, func() error {
					_, err := d.Write(frame(finBit|opBinary, []byte("here")))
					return err
				})
			})
		}
		return nil
	})
}

// listenFor answers pings, and tells of messages, until the peer's end.
func listenFor(p *peer, message func() error) {
	var b [256]byte
	p.frames(b[:], func(h header, payload []byte) error {
		switch op := h.first & 0xf; {
		case op < opClose:
			return message()
		case op == opPing:
			_, err := p.Write(frame(finBit|opPong, payload))
			return err
		}
		return nil
	})
}

// ask sends a message through each bridge and counts the answers.
func (l *lot) ask(ctx context.Context) (answers int, err error) {
	hello := frame(finBit|opBinary, []byte("still there?"))
	t := time.NewTimer(patience)
	defer t.Stop()
	for _, b := range l.parked {
		if _, err := b.requester.Write(hello); err != nil {
			return answers, fmt.Errorf("bridge %d of %d: %w", answers, len(l.parked), err)
		}
		t.Reset(patience)
		select {
		case <-b.heard:
			answers++
		case <-t.C:
			return answers, fmt.Errorf("bridge %d of %d does not answer", answers, len(l.parked))
		case <-ctx.Done():
			return answers, context.Cause(ctx)
		}
	}
	if answers == 0 {
		return 0, errors.New("there are no bridges")
	}
	return answers, nil
}

func (l *lot) close() {
	for _, b := range l.parked {
		b.requester.Close()
		b.device.Close()
	}
	l.wg.Wait()
}
