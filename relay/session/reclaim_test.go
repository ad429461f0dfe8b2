package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// opens opens a stream, which the session accepts.
func (p *rawPeer) opens(s *Session, id uint32) *Stream {
	p.t.Helper()
	p.send(opening(id))
	in, err := s.Accept(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	st, err := in.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

// What a side is asked for it returns, as far as it has not sent it; it then waits for a
// WINDOW, also where it had its turn already.
func TestReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, ran := newRawPeer(t, Config{InitialWindow: 64 << 10})
		st := p.opens(s, 1)
		st.Write(make([]byte, 24))
		p.want(appendCredit(nil, typeOpened, 1, 64<<10), data(1, 24))
		p.send(appendCredit(nil, typeReclaim, 1, 1000))
		p.want(appendCredit(nil, typeReturn, 1, 1000))

		s.writeLock.lock()
		go func() { st.Write(make([]byte, 10)); st.Close() }()
		synctest.Wait() // it has credit, and waits for its turn
		p.send(appendCredit(nil, typeReclaim, 1, MaxCredit))
		s.writeLock.unlock()
		p.want(appendCredit(nil, typeReturn, 1, 1<<20-24-1000))
		p.send(appendCredit(nil, typeReclaim, 1, 1))
		p.want(appendCredit(nil, typeReturn, 1, 0))
		p.send(appendCredit(nil, typeWindow, 1, 10))
		p.want(data(1, 10), bare(typeStop, 1), bare(typeFin, 1))
		p.send(appendCredit(nil, typeReclaim, 1, 1)) // crosses the FIN
		p.want()
		s.Close()
		<-ran
	})
}

// A side that is short of memory asks once, and takes what was asked for and no more.
func TestReclaim(t *testing.T) {
	const first = 64 << 10
	cfg := Config{InitialWindow: first, MaxBuffered: first, KeepAlive: -1, DeadAfter: -1}
	for name, c := range map[string]struct {
		answers [][]byte
		fails   bool
	}{
		"all":            {[][]byte{appendCredit(nil, typeReturn, 1, first)}, false},
		"nothing":        {[][]byte{appendCredit(nil, typeReturn, 1, 0)}, false},
		"does not know":  {nil, false},
		"more":           {[][]byte{appendCredit(nil, typeReturn, 1, first+1)}, true},
		"twice":          {[][]byte{appendCredit(nil, typeReturn, 1, 1), appendCredit(nil, typeReturn, 1, 1)}, true},
		"more than left": {[][]byte{data(1, first), data(1, first/2), appendCredit(nil, typeReturn, 1, first/2+1)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s, ran := newRawPeer(t, cfg)
				var streams [2]*Stream
				for i := range streams {
					streams[i] = p.opens(s, uint32(1+2*i))
				}
				// fill sends a first window and reads it at once: the stream wants another.
				fill := func(i int) {
					p.send(data(uint32(1+2*i), first))
					streams[i].Read(make([]byte, first))
				}
				fill(0)
				if streams[0].window != 2*first {
					t.Fatalf("the window is %d", streams[0].window)
				}
				time.Sleep(10 * time.Second)
				for range 3 { // it is asked for once, and not before there is an answer
					fill(1)
					fill(1) // at once, so the window did not last
					time.Sleep(reclaimEvery)
				}
				synctest.Wait()
				asked := 0
				for range len(p.got) {
					f := <-p.got
					if h := parseHeader(f); h.typ == typeReclaim {
						if n, _ := parseCredit(h.typ, f[headerSize:]); h.stream != 1 || n != first {
							t.Errorf("asked for %d of stream %d", n, h.stream)
						}
						asked++
					}
				}
				if asked != 1 {
					t.Errorf("asked %d times", asked)
				}
				p.send(c.answers...)
				if c.fails {
					if err := <-ran; !errors.Is(err, ErrProtocol) {
						t.Errorf("got %v", err)
					}
					return
				}
				left := first
				if name == "all" {
					left = 0
				}
				if got := streams[0].window - first; got != left || s.grown != left {
					t.Errorf("the window has %d more than at first, all have %d; want %d", got, s.grown, left)
				}
				fill(1)
				fill(1)
				if grew := streams[1].window > first; grew != (left == 0) {
					t.Errorf("the other window is %d now", streams[1].window)
				}
				s.Close()
				<-ran
			})
		})
	}
}

// A window that has become smaller than twice what was read of it is given back: the other
// side may have nothing left to send.
func TestReturnGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, ran := newRawPeer(t, Config{InitialWindow: 64 << 10})
		st := p.opens(s, 1)
		st.mu.Lock()
		st.window, st.recvCredit, st.asked = 256<<10, 256<<10, 192<<10 // as if it had grown
		s.grow(192 << 10)
		st.mu.Unlock()
		p.send(data(1, 60<<10))
		time.Sleep(time.Second)
		st.Read(make([]byte, 60<<10)) // less than three eighths
		p.want(appendCredit(nil, typeOpened, 1, 64<<10))
		p.send(appendCredit(nil, typeReturn, 1, 192<<10))
		p.want(pingFrame(1), appendCredit(nil, typeWindow, 1, 60<<10)) // the window might grow
		if s.grown != 0 || st.recvCredit != 64<<10 {
			t.Errorf("windows have grown by %d, and %d may be sent", s.grown, st.recvCredit)
		}
		s.Close()
		<-ran
	})
}

// A side that asks again before it was answered is cut off: the answers would add up.
func TestReclaimTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, ran := newRawPeer(t, Config{})
		st := p.opens(s, 1)
		s.writeLock.lock() // no answer goes out
		p.send(appendCredit(nil, typeReclaim, 1, 1), appendCredit(nil, typeReclaim, 1, 1))
		s.writeLock.unlock()
		if err := <-ran; !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
		st.Close()
	})
}
