package ws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPongs(t *testing.T) {
	for _, reading := range []bool{false, true} {
		t.Run(fmt.Sprintf("reading=%v", reading), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, Config{Dead: -1})
				if reading {
					go readAll(c, 10)
				}
				start := time.Now()
				for i := range 10 {
					p.want(OpPong, "")
					if got, want := time.Since(start), time.Duration(i+1)*DefaultPing; got != want {
						t.Errorf("pong %d came after %v, want %v", i, got, want)
					}
				}
				c.CloseNow()
			})
		})
	}
}

// With both timers, one must not pull the other.
func TestPongsAndDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		go io.Copy(io.Discard, p)
		start := time.Now()
		_, err := c.Read(make([]byte, 1))
		if got := time.Since(start); err != ErrDead || got != DefaultDead {
			t.Errorf("Read returned %v after %v, want ErrDead after %v", err, got, DefaultDead)
		}
		if _, err := c.Write([]byte("x")); err != ErrDead {
			t.Errorf("Write returned %v, want ErrDead", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		go io.Copy(io.Discard, p)
		// A user who does not read is no sign of death.
		time.Sleep(time.Hour)
		go func() {
			for range 10 { // one byte of a frame now and then is a sign of life
				for _, b := range server(0x89, "x") {
					time.Sleep(DefaultDead - time.Second)
					p.Write([]byte{b})
				}
			}
			p.Write(server(0x82, "x"))
		}()
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		go func() {
			time.Sleep(DefaultDead - 1)
			p.Write(server(0x82, "y"))
		}()
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		c.CloseNow()
	})
}

func TestCloseHandshake(t *testing.T) {
	for _, reading := range []bool{false, true} {
		for _, data := range []bool{false, true} {
			t.Run(fmt.Sprintf("reading=%v,data=%v", reading, data), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, p := pipe(t, Config{})
					var readErr error
					var wg sync.WaitGroup
					if reading {
						wg.Go(func() { _, readErr = readAll(c, 10) })
					}
					start := time.Now()
					wg.Go(func() {
						if data { // on its way when Close comes
							p.send(server(0x02, strings.Repeat("x", 100000)))
						}
						p.want(OpClose, "\x0f\xa0why")
						time.Sleep(time.Second)
						p.send(server(0x89, "last ping"))
						p.send(closeFrame(4000, ""))
						if f, err := p.next(); err != io.EOF {
							t.Errorf("after the handshake: %v, %v", f, err)
						}
					})
					synctest.Wait()
					if err := c.CloseWith(4000, "why"); err != nil {
						t.Errorf("Close: %v", err)
					}
					if got := time.Since(start); got != time.Second {
						t.Errorf("Close took %v, want 1s", got)
					}
					wg.Wait()
					if reading && !errors.Is(readErr, net.ErrClosed) {
						t.Errorf("Read returned %v, want net.ErrClosed", readErr)
					}
					if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Write returned %v, want net.ErrClosed", err)
					}
					if _, err := c.Read([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Read returned %v, want net.ErrClosed", err)
					}
					if err := c.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
						t.Errorf("SetReadDeadline returned %v, want net.ErrClosed", err)
					}
				})
			})
		}
	}
}

func TestCloseIsBounded(t *testing.T) {
	for _, test := range []struct {
		name  string
		peer  func(p *peer)
		user  func(c *Conn)
		close func(c *Conn) error
		want  time.Duration
	}{
		{name: "silent", want: CloseTimeout},
		{name: "Read is blocked", user: func(c *Conn) { readAll(c, 10) }, want: CloseTimeout},
		{name: "Write is blocked", user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }, want: CloseTimeout},
		{name: "Write is blocked, CloseNow", user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }, close: (*Conn).CloseNow},
		{name: "Read is blocked, CloseNow", user: func(c *Conn) { readAll(c, 10) }, close: (*Conn).CloseNow},
		{name: "endless data", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write(server(0x82, "x")); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, want: CloseTimeout},
		{name: "endless garbage", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write([]byte{0xff}); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, user: func(c *Conn) { readAll(c, 10) }, want: CloseTimeout},
		{name: "gone", peer: func(p *peer) { p.Close() }},
		{name: "gone, and its user knows", peer: func(p *peer) { p.Close() }, user: func(c *Conn) { readAll(c, 10) }},
		{name: "closed by the other end", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			p.Write(closeFrame(1000, ""))
		}, user: func(c *Conn) { readAll(c, 10) }},
		{name: "closed by the other end, unread", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			p.Write(closeFrame(1000, ""))
		}},
		{name: "blocked in both directions", peer: func(p *peer) { // would deadlock if Close wrote before it read
			p.Write(server(0x82, strings.Repeat("x", 1<<20)))
			p.Write(closeFrame(1000, ""))
			io.Copy(io.Discard, p)
		}, user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, Config{Ping: time.Second})
				var wg sync.WaitGroup
				if test.peer != nil {
					wg.Go(func() { test.peer(p) })
				}
				if test.user != nil {
					wg.Go(func() { test.user(c) })
				}
				if test.name == "blocked in both directions" || test.name == "endless garbage" {
					time.Sleep(time.Millisecond / 2)
				}
				synctest.Wait()
				if test.close == nil {
					test.close = (*Conn).Close
				}
				start := time.Now()
				var closers sync.WaitGroup
				for range 3 {
					closers.Go(func() { test.close(c) })
				}
				closers.Wait()
				if got := time.Since(start); got != test.want {
					t.Errorf("Close took %v, want %v", got, test.want)
				}
				wg.Wait()
				p.Close()
				if err := c.Close(); err != nil {
					t.Errorf("Close again: %v", err)
				}
				c.CloseNow()
			})
		})
	}
}

func TestCloseNowCutsCloseShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		defer p.Close()
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			c.CloseNow()
		}()
		c.Close()
		if got := time.Since(start); got != time.Second {
			t.Errorf("Close took %v, want 1s", got)
		}
	})
}

// A peer that floods us with pings and reads nothing costs a kilobyte, and is
// still told goodbye when it reads again.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, never)
		go readAll(c, 10)
		for range 10000 {
			p.send(server(0x89, strings.Repeat("x", 125)))
		}
		synctest.Wait()
		c.pmu.Lock()
		size := cap(c.pending)
		c.pmu.Unlock()
		if size > 4<<10 {
			t.Errorf("%d bytes are pending", size)
		}
		go c.Close()
		synctest.Wait()
		frames := 0
		for {
			f, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Opcode == OpClose {
				break
			}
			frames++
		}
		if frames > 20 {
			t.Errorf("%d pongs were kept", frames)
		}
		p.send(closeFrame(1000, ""))
	})
}

// After a write that failed in the middle of a frame nothing may follow.
func TestNothingFollowsATornFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		f := &faulty{Conn: a, tear: 1}
		c := NewClient(f, nil, never)
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = io.ReadAll(b) })
		_, err := c.Write([]byte("hello"))
		if !errors.Is(err, errFault) {
			t.Errorf("Write returned %v", err)
		}
		if _, err := c.Write([]byte("again")); !errors.Is(err, errFault) {
			t.Errorf("the next Write returned %v", err)
		}
		c.Close()
		wg.Wait()
		if len(got) != 1 {
			t.Errorf("the other end got %x, want one byte", got)
		}
	})
}

// A failed write must not hide the close frame that says why.
func TestReadAfterFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c := NewClient(&faulty{Conn: a, tear: 1}, nil, never)
		go io.Copy(io.Discard, b)
		if _, err := c.Write([]byte("hello")); !errors.Is(err, errFault) {
			t.Errorf("Write returned %v", err)
		}
		go b.Write(append(server(0x82, "data"), closeFrame(1012, "draining")...))
		got, err := readAll(c, 10)
		if e := (*CloseError)(nil); string(got) != "data" || !errors.As(err, &e) || e.Code != 1012 {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := c.Write([]byte("x")); !errors.As(err, new(*CloseError)) {
			t.Errorf("Write returned %v, want the close frame", err)
		}
		c.Close()
	})
}
