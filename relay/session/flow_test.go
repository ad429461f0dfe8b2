package session_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

// A stream that nobody reads holds up no other, and holds no more than its window.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = session.EarlyWindow
		req, dev, stop := pipePair(t, session.Config{InitialWindow: window})
		var wg sync.WaitGroup
		for _, size := range []int{1, 100, 2049, 1 << 20} {
			a, b := open(t, req, dev)
			wg.Go(func() {
				p := make([]byte, size)
				for {
					if _, err := a.Write(p); err != nil {
						return
					}
				}
			})
			synctest.Wait() // it is stuck now
			held, memory := b.Buffered()
			if held != window {
				t.Errorf("writes of %d bytes: %d wait, want the window of %d", size, held, window)
			}
			if limit := 2*window + 20<<10; memory > limit {
				t.Errorf("writes of %d bytes: they take %d bytes of memory, more than %d", size, memory, limit)
			}
		}
		a, b := open(t, req, dev)
		wg.Go(func() { echo(b) })
		go func() { a.Write(make([]byte, 4<<20)); a.CloseWrite() }()
		if n, err := io.Copy(io.Discard, a); n != 4<<20 || err != nil {
			t.Errorf("beside stuck streams: got %d bytes, %v", n, err)
		}
		stop()
		wg.Wait()
	})
}

// Streams take turns frame by frame: while others write without end, a small
// message waits for one frame of each and not longer.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		slow := &gate{Transport: session.NetTransport(a), pass: make(chan struct{})}
		req := start(t, slow, session.Requester, session.Config{})
		dev := start(t, session.NetTransport(b), session.Device, session.Config{})
		const bulk = 4
		var wg sync.WaitGroup
		var writers []*session.Stream
		for range bulk {
			x, y := open(t, req, dev)
			writers = append(writers, x)
			wg.Go(func() { io.Copy(io.Discard, y) })
		}
		x, y := open(t, req, dev)
		wg.Go(func() { echo(y) })
		slow.shut.Store(true)
		for _, w := range writers {
			wg.Go(func() {
				p := make([]byte, 1<<20)
				for {
					if _, err := w.Write(p); err != nil {
						return
					}
				}
			})
		}
		for range 20 {
			synctest.Wait() // all writers wait for their turn
			wg.Go(func() { x.Write(make([]byte, 64)) })
			synctest.Wait()
			frames := 0
			for slow.size.Load() != 8+64 {
				slow.pass <- struct{}{}
				synctest.Wait()
				if frames++; frames > bulk+2 { // and one of the control loop, and the own one
					t.Fatalf("a message waited for more than %d frames of %d other streams", frames, bulk)
				}
			}
			slow.pass <- struct{}{}
		}
		slow.shut.Store(false)
		close(slow.pass)
		req.Close()
		dev.Close()
		wg.Wait()
	})
}

// A gate lets frames pass one at a time while it is shut.
type gate struct {
	session.Transport
	shut atomic.Bool
	pass chan struct{}
	size atomic.Int64 // of the frame that waits, or went last
}

func (g *gate) WriteFrame(b []byte) error {
	g.size.Store(int64(len(b)))
	if g.shut.Load() {
		<-g.pass
	}
	return g.Transport.WriteFrame(b)
}

// A window that is read at once grows even where there is no round trip to fill, so that a
// fast network is not busy with giving back; one that lasts for a while does not.
func TestWindowLasts(t *testing.T) {
	for _, c := range []struct {
		pause time.Duration // between reads of a quarter of the first window
		grows bool
	}{{0, true}, {time.Millisecond, true}, {3 * time.Millisecond, false}} {
		synctest.Test(t, func(t *testing.T) {
			req, dev, stop := pipePair(t, session.Config{})
			defer stop()
			a, b := open(t, req, dev)
			go func() {
				a.Write(make([]byte, 8<<20))
				a.CloseWrite()
			}()
			var err error
			window := 0 // before it is given back
			for buf := make([]byte, session.DefaultInitialWindow/4); err == nil; _, err = io.ReadFull(b, buf) {
				window = max(window, b.Window())
				time.Sleep(c.pause)
			}
			if err != io.EOF || c.grows != (window > session.DefaultInitialWindow) {
				t.Errorf("a pause of %v: %v, the window was %d", c.pause, err, window)
			}
		})
	}
}

// One stream fills a path of 100 ms: its window grows. What all windows may
// grow by is bounded, and given back when a stream ends.
func TestWindowGrows(t *testing.T) {
	for name, c := range map[string]struct{ initial, roundTrips int }{
		// A window that does not grow would take 128 and 2048 round trips.
		"default":  {session.DefaultInitialWindow, 16},
		"smallest": {session.EarlyWindow, 24},
	} {
		t.Run(name, func(t *testing.T) { testWindowGrows(t, c.initial, c.roundTrips) })
	}
}

func testWindowGrows(t *testing.T, initial, roundTrips int) {
	synctest.Test(t, func(t *testing.T) {
		const bytes, rtt = 32 << 20, 100 * time.Millisecond
		x, y := longPath(rtt / 2)
		cfg := session.Config{InitialWindow: initial, MaxBuffered: 4 << 20}
		req := start(t, x, session.Requester, cfg)
		dev := start(t, y, session.Device, cfg)
		a, b := open(t, req, dev)
		go func() {
			p := make([]byte, 1<<20)
			for range bytes / len(p) {
				a.Write(p)
			}
			a.CloseWrite()
		}()
		began := time.Now()
		n, err := io.Copy(io.Discard, b)
		took := time.Since(began)
		if n != bytes || err != nil {
			t.Fatalf("got %d bytes, %v", n, err)
		}
		if took > time.Duration(roundTrips)*rtt {
			t.Errorf("32 MiB took %v, which is %d round trips", took, took/rtt)
		}
		if n := dev.Grown(); n != 0 {
			t.Errorf("%d bytes of growth were not given back", n)
		}
		if d, err := req.Ping(context.Background()); d != rtt || err != nil {
			t.Errorf("ping: got %v, %v", d, err)
		}

		var wg sync.WaitGroup
		var most atomic.Int64
		for range 4 {
			a, b := open(t, req, dev)
			wg.Go(func() { a.Write(make([]byte, 8<<20)); a.Close() })
			wg.Go(func() {
				p := make([]byte, 256<<10)
				for {
					if _, err := b.Read(p); err != nil {
						b.Close()
						return
					}
					if n := int64(dev.Grown()); n > most.Load() {
						most.Store(n)
					}
					if b.Window() > session.DefaultMaxWindow {
						t.Error("window above its limit")
					}
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if most := int(most.Load()); most > cfg.MaxBuffered || most < cfg.MaxBuffered/2 {
			t.Errorf("windows grew by %d bytes, want up to %d", most, cfg.MaxBuffered)
		}
		if n := dev.Grown(); n != 0 {
			t.Errorf("%d bytes of growth were not given back", n)
		}
		req.Close()
		dev.Close()
	})
}

// longPath joins two transports by a path of any bandwidth and this delay.
func longPath(delay time.Duration) (x, y session.Transport) {
	a, b := make(chan parcel, 1<<16), make(chan parcel, 1<<16)
	done := make(chan struct{})
	hangUp := sync.OnceFunc(func() { close(done) })
	return &path{in: a, out: b, delay: delay, done: done, hangUp: hangUp}, &path{in: b, out: a, delay: delay, done: done, hangUp: hangUp}
}

type parcel struct {
	at time.Time
	p  []byte
}

type path struct {
	in, out chan parcel
	delay   time.Duration
	done    chan struct{}
	hangUp  func()
	rest    []byte
}

func (c *path) Headroom() int { return 0 }
func (c *path) Close() error  { c.hangUp(); return nil }

func (c *path) WriteFrame(b []byte) error {
	select {
	case c.out <- parcel{time.Now().Add(c.delay), append([]byte(nil), b...)}:
		return nil
	case <-c.done:
		return net.ErrClosed
	}
}

func (c *path) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case x := <-c.in:
			time.Sleep(time.Until(x.at))
			c.rest = x.p
		case <-c.done:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
