package c2d

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
)

func TestRunConnects(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, _ *bytes.Buffer) {
		if err := signal(t, s); err != nil { // comes before the connection does
			t.Error(err)
		}
		if up, _, err := s.State(); !up || err != nil || h.count() != 1 {
			t.Errorf("up %t, %v, %d dials", up, err, h.count())
		}
		if err := s.Run(t.Context()); err == nil {
			t.Error("a second Run is fine")
		}
	})
}

// TestRunReconnects: for ever, with full jitter between 1 s and 1 min, and it says
// so once.
func TestRunReconnects(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		synctest.Wait()
		sleep(time.Hour) // a good connection
		h.set(nil)
		lost := time.Now()
		h.cut()
		synctest.Wait()
		sleep(9 * time.Minute)
		if up, since, err := s.State(); up || since != lost || !errors.Is(err, signaler.ErrUnavailable) {
			t.Errorf("up %t since %v (lost at %v), %v", up, since, lost, err)
		}
		h.mu.Lock()
		dials := h.dials[1:]
		h.mu.Unlock()
		if first := dials[0].Sub(lost); first > 1100*time.Millisecond {
			t.Errorf("the first attempt came after %v", first)
		}
		if n := len(dials); n < 10 || n > 60 {
			t.Errorf("%d attempts in 9 min", n)
		}
		for i := range dials[1:] {
			if d := dials[i+1].Sub(dials[i]); d > time.Minute+time.Second {
				t.Errorf("a wait of %v", d)
			}
		}
		h.set(func() *peer { return &peer{} })
		sleep(2 * time.Minute)
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
		if got := strings.Count(log.String(), "\n"); got != 3 {
			t.Errorf("%d lines:\n%s", got, log)
		}
		for _, want := range []string{"connected to the hub", "the hub is lost", "the hub is back"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("not once %q in\n%s", want, log)
			}
		}
	})
}

// TestSignalWaitsForTheHub: a signal in an outage succeeds if the hub is back in
// time, however long the wait for the next attempt was to be.
func TestSignalWaitsForTheHub(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, _ *bytes.Buffer) {
		synctest.Wait()
		h.set(nil)
		h.cut()
		sleep(time.Hour) // waits are up to a minute now
		time.AfterFunc(5*time.Second, func() { h.set(func() *peer { return &peer{} }) })
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
	})
}

// TestSignalGivesUp: with the reason, and before the relay does.
func TestSignalGivesUp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, _ *bytes.Buffer) {
		synctest.Wait()
		h.set(nil)
		h.cut()
		start := time.Now()
		err := signal(t, s)
		if !errors.Is(err, signaler.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") || time.Since(start) != 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		cause := errors.New("requester left")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := s.Signal(ctx, testSignal()); !errors.Is(err, signaler.ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
}

// TestUnauthorizedAtOnce: nothing is to be hoped from waiting, until somebody
// corrects the key.
func TestUnauthorizedAtOnce(t *testing.T) {
	var status atomic.Int32
	status.Store(401)
	peers := func() *peer { return &peer{put: func(string) int32 { return status.Load() }} }
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(peers)
		h.cut0()
		synctest.Wait()
		sleep(time.Hour)
		start := time.Now()
		if err := signal(t, s); !errors.Is(err, signaler.ErrUnauthorized) || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		sleep(10 * time.Second)
		status.Store(200)
		signal(t, s) // says that somebody wants it
		sleep(3 * time.Second)
		if err := signal(t, s); err != nil {
			t.Errorf("corrected: %v", err)
		}
	})
}

// TestLostWhileSent: a message whose fate is unknown is sent again on the next
// connection, but not for ever.
func TestLostWhileSent(t *testing.T) {
	cuts, sent := 3, 0
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer {
			return &peer{transfer: func(p *peer, hub uint16, id uint32) {
				sent++
				if sent <= cuts {
					p.conn.Close()
				} else {
					p.settle(hub, id, unhex(stateAccepted))
				}
			}}
		})
		h.cut0()
		if err := signal(t, s); err != nil || sent != attempts {
			t.Errorf("got %v after %d times", err, sent)
		}
		cuts, sent = 100, 0
		if err := signal(t, s); !errors.Is(err, signaler.ErrUnavailable) || sent != attempts {
			t.Errorf("got %v after %d times", err, sent)
		}
	})
}

// TestHubFailsByItself: what passes is tried again, what does not is not.
func TestHubFailsByItself(t *testing.T) {
	for condition, want := range map[string]int{"amqp:internal-error": attempts, "com.microsoft:timeout": attempts, "com.microsoft:device-container-throttled": 1, "amqp:not-found": 1} {
		sent := 0
		bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
			h.set(func() *peer {
				return &peer{transfer: func(p *peer, hub uint16, id uint32) {
					sent++
					p.settle(hub, id, rejected(condition, ""))
				}}
			})
			h.cut0()
			if err := signal(t, s); err == nil || sent != want {
				t.Errorf("%s: got %v after %d times, want %d", condition, err, sent, want)
			}
		})
	}
}

// TestFullQueue: a device that takes its messages makes room; for one that does not
// the answer comes soon.
func TestFullQueue(t *testing.T) {
	for full, want := range map[int]error{3: nil, 1000: signaler.ErrThrottled} {
		sent := 0
		bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
			h.set(func() *peer {
				return &peer{transfer: func(p *peer, hub uint16, id uint32) {
					if sent++; sent <= full {
						p.settle(hub, id, rejected("amqp:resource-limit-exceeded", ""))
					} else {
						p.settle(hub, id, []byte{0, 0x53, codeAccepted, 0x45})
					}
				}}
			})
			h.cut0()
			began := time.Now()
			err := signal(t, s)
			if took := time.Since(began); !errors.Is(err, want) || took < 300*time.Millisecond || took > fullWait+time.Second {
				t.Errorf("full %d times: got %v after %v", full, err, took)
			}
			if sent > 10 {
				t.Errorf("it was sent %d times", sent)
			}
		})
	}
}

// TestFlapping: a hub that lets us in and then throws us out is not dialled in a
// circle, and does not fill the log.
func TestFlapping(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer {
			return &peer{attach: func(_ []byte, address string) []byte {
				if address != devicebound {
					return nil
				}
				return append([]byte{0, 0x53, codeError}, appendList(nil, appendText(nil, 0xb3, "amqp:link:detach-forced"))...)
			}}
		})
		h.cut0()
		start := h.count()
		sleep(time.Hour)
		if n := h.count() - start; n > 300 {
			t.Errorf("%d attempts in an hour", n)
		}
		if n := strings.Count(log.String(), "\n"); n > 30 {
			t.Errorf("%d lines in an hour", n)
		}
	})
}

// TestHalfOpen: a hub that is silent is gone after IdleTimeout, and hears from us
// in time.
func TestHalfOpen(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer { return &peer{mute: true} })
		h.cut0()
		up := time.Time{}
		for n := h.count(); h.count() < n+2; sleep(10 * time.Millisecond) {
			if is, since, _ := s.State(); is && since.After(up) {
				up = since
			}
			if time.Since(up) > 2*time.Minute && !up.IsZero() {
				t.Error("nobody noticed")
				return
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if d := h.dials[len(h.dials)-1].Sub(h.dials[len(h.dials)-2]); d < time.Minute || d > 62*time.Second {
			t.Errorf("dialled again after %v", d)
		}
	})
}

// TestDeafLink: a hub that takes messages and never answers them, but is well
// otherwise, is connected anew.
func TestDeafLink(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer {
			deaf := len(h.dials) == 2 // dial has the lock
			return &peer{transfer: func(p *peer, hub uint16, id uint32) {
				if !deaf {
					p.settle(hub, id, unhex(stateAccepted))
				}
			}}
		})
		h.cut0()
		before, start := h.count(), time.Now()
		for range 100 { // requesters in a hurry prove nothing
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			s.Signal(ctx, testSignal())
			cancel()
		}
		if n := h.count() - before; n != 0 {
			t.Errorf("%d connections more after %v", n, time.Since(start))
		}
		for start = time.Now(); signal(t, s) != nil; {
			if time.Since(start) > 2*time.Minute {
				t.Errorf("still deaf after %v", time.Since(start))
				return
			}
		}
		if n := h.count() - before; n != 1 || time.Since(start) < time.Minute {
			t.Errorf("%d connections more after %v", n, time.Since(start))
		}
	})
}

// TestGoodbye: a hub is told that we go.
func TestGoodbye(t *testing.T) {
	var last *peer
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		synctest.Wait()
		last = h.last
	})
	if !last.closed.Load() {
		t.Error("no CLOSE came")
	}
}

// TestStopsWhileSending: Run does not wait for a hub that does not answer.
func TestStopsWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &site{t: t, peer: func() *peer { return &peer{transfer: func(*peer, uint16, uint32) {}} }}
		s := testSignaler(t, nil)
		s.dial = h.dial
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		result := make(chan error)
		go func() { result <- s.Signal(t.Context(), testSignal()) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-done; err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if err := <-result; !errors.Is(err, signaler.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// TestExpired: a dead signal is not sent.
func TestExpired(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		sig := testSignal()
		sig.Version, sig.ExpiresAt = 1, time.Now().Add(-time.Second)
		if err := s.Signal(t.Context(), sig); !errors.Is(err, signaler.ErrTimedOut) {
			t.Errorf("got %v", err)
		}
	})
}
