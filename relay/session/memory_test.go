package session_test

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

// transfer sends n bytes from a to b and reads them as they come.
func transfer(t *testing.T, a, b *session.Stream, n int) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Write(make([]byte, n)); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.CopyN(io.Discard, b, int64(n)); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// Streams that have grown and fallen silent give back what others need: in one session, as
// its own bound is reached, and across sessions that share a Budget.
func TestIdleWindowsShrink(t *testing.T) {
	const (
		rtt   = 100 * time.Millisecond
		room  = 4 << 20
		first = session.DefaultInitialWindow
	)
	for name, shared := range map[string]bool{"one session": false, "two sessions": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reqs, devs [2]*side
				budget, cfg, other := session.NewBudget(room), session.Config{MaxBuffered: room}, 0
				if shared {
					cfg, other = session.Config{Budget: budget}, 1
				}
				for i := range reqs {
					x, y := longPath(rtt / 2)
					reqs[i], devs[i] = start(t, x, session.Requester, session.Config{}), start(t, y, session.Device, cfg)
				}
				a, b := open(t, reqs[0], devs[0])
				transfer(t, a, b, 16<<20)
				if b.Window() != room+first {
					t.Fatalf("the window grew to %d of %d", b.Window(), room+first)
				}
				time.Sleep(10 * time.Second)
				c, d := open(t, reqs[other], devs[other])
				began := time.Now()
				transfer(t, c, d, 16<<20)
				// First windows would take 64 round trips.
				if took := time.Since(began); took > 12*rtt || d.Window() < room/2 {
					t.Errorf("16 MiB took %v, and the window grew to %d", took, d.Window())
				}
				if b.Window() != first {
					t.Errorf("the idle stream kept a window of %d", b.Window())
				}
				if grown := devs[0].Grown() + devs[1].Grown(); grown > room {
					t.Errorf("windows have grown by %d, more than %d", grown, room)
				}
				transfer(t, a, b, 16<<20) // it grows again, and the other gives back
				synctest.Wait()
				if b.Window() < room/2 {
					t.Errorf("the first stream's window is %d", b.Window())
				}
				for i := range reqs {
					reqs[i].Close()
					devs[i].Close()
				}
				if n := budget.Used(); n != 0 {
					t.Errorf("%d bytes are lost to the budget", n)
				}
			})
		})
	}
}
