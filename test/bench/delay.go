//go:build linux

package main

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// delay describes a path in one direction.
type delay struct {
	Way  time.Duration // a byte's, half of the round trip
	Rate int64         // bytes a second of all connections together
}

const (
	// chunk is what travels together.
	chunk = 64 << 10
	// slack is how far a sender's bytes run ahead of the path, as they do in the queue of
	// a network card.
	slack = 2 * time.Millisecond
	// spare is what the far end holds, on top of what is on its way, for a receiver that
	// does not read, as its socket would.
	spare = 4 << 20
)

// A link is a path in one direction that connections share: it takes bytes at its rate,
// and delivers each after its way. What is on its way is as much as rate times way; a
// connection adds no window of its own, so TCP on both sides fills it whatever the
// way, as TCP with windows large enough would.
type link struct {
	delay

	mu   sync.Mutex // guards free
	free time.Time  // when the last byte that was taken has gone out
}

func newLink(d delay) *link { return &link{delay: d} }

// take says when n bytes have gone out.
func (l *link) take(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.Rate))
	return l.free
}

// parcel is bytes on their way.
type parcel struct {
	b  []byte
	at time.Time // they arrive
}

// A way is what one connection has under way in one direction.
type way struct {
	most int // bytes

	mu      sync.Mutex // guards all below
	changed sync.Cond  // of mu
	parcels []parcel
	bytes   int  // in parcels
	closed  bool // no more is sent
	failed  error
}

// send waits for room. It fails when the receiver has.
func (w *way) send(p parcel) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.bytes > 0 && w.bytes+len(p.b) > w.most && w.failed == nil {
		w.changed.Wait()
	}
	w.parcels = append(w.parcels, p)
	w.bytes += len(p.b)
	w.changed.Broadcast()
	return w.failed
}

// end says that no more is sent.
func (w *way) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}

// next waits for the next parcel; false: there is none any more.
func (w *way) next() (parcel, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.parcels) == 0 && !w.closed {
		w.changed.Wait()
	}
	if len(w.parcels) == 0 {
		return parcel{}, false
	}
	p := w.parcels[0]
	w.parcels = w.parcels[1:]
	return p, true
}

// arrived makes room again, or says that the receiver has failed.
func (w *way) arrived(p parcel, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= len(p.b)
	w.failed = err
	w.changed.Broadcast()
}

// pass moves what src says to dst until src has ended.
func (l *link) pass(dst, src net.Conn) error {
	w := &way{most: int(l.Rate*int64(l.Way)/int64(time.Second)) + spare}
	w.changed.L = &w.mu
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			p, ok := w.next()
			if !ok {
				return
			}
			time.Sleep(time.Until(p.at))
			_, err := dst.Write(p.b)
			w.arrived(p, err)
			if err != nil {
				return
			}
		}
	})
	err := l.send(w, src)
	w.end()
	wg.Wait()
	return errors.Join(err, w.failed)
}

// send puts on w what src says.
func (l *link) send(w *way, src net.Conn) error {
	b := make([]byte, chunk)
	for {
		n, err := src.Read(b)
		if n > 0 {
			gone := l.take(n)
			if w.send(parcel{bytes.Clone(b[:n]), gone.Add(l.Way)}) != nil {
				return nil // pass says why
			}
			time.Sleep(time.Until(gone.Add(-slack)))
		}
		if err != nil {
			return noEOF(err)
		}
	}
}
