package session

import (
	"context"
	"fmt"
	"time"
)

// rttEvery is how old the round-trip time may be when a window is to grow. A
// path changes (Wi-Fi to cellular), but not every second.
const rttEvery = 5 * time.Second

// A ping waits for its PONG. There is one at a time, which all who ask share.
type ping struct {
	id   uint64
	sent time.Time     // guarded by Session.mu; zero until it is on the wire
	done chan struct{} // closed by the PONG, after rtt was set
	rtt  time.Duration
}

// Ping measures the round trip to the other side, through whatever is queued
// on the way.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	p := s.askPing()
	select {
	case <-p.done:
		return p.rtt, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("session: ping: %w", context.Cause(ctx))
	case <-s.done:
		return 0, s.endErr
	}
}

// askPing has a PING sent, again if one is on its way already: that one keeps
// the other side from believing this one dead.
func (s *Session) askPing() *ping {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.kickControl()
	return s.askPingLocked()
}

func (s *Session) askPingLocked() *ping {
	if s.ping == nil {
		s.pingID++
		s.ping = &ping{id: s.pingID, done: make(chan struct{})}
	}
	s.pingDue = true
	return s.ping
}

// wantRTT has the round-trip time measured if it is not known or old.
func (s *Session) wantRTT(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping != nil || s.rtt.Load() != 0 && now-s.rttAsked < rttEvery {
		return
	}
	s.rttAsked = now
	s.askPingLocked()
	s.kickControl()
}

// onPong takes the answer to a PING. An answer to an older one than the last
// is fine: keepalive repeats them.
func (s *Session) onPong(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 0 || id > s.pingID {
		return violation("PONG without a PING")
	}
	p := s.ping
	if p == nil || p.id != id {
		return nil
	}
	if p.sent.IsZero() {
		return violation("PONG before its PING")
	}
	p.rtt = time.Since(p.sent)
	s.ping = nil
	close(p.done)

	// Queues on the way make most samples too long, and a window that grows on
	// those makes the queues longer. So go down at once and up slowly.
	rtt := int64(p.rtt)
	if old := s.rtt.Load(); old != 0 && rtt > old {
		rtt = old + (rtt-old)/8
	}
	s.rtt.Store(rtt)
	return nil
}

// watch pings an idle session and ends a dead one, until the session or ctx ends.
func (s *Session) watch(ctx context.Context) {
	var tick <-chan time.Time // never, if both timers are off
	var timer *time.Timer
	pinged := time.Duration(-1) // when last, since start
	if s.cfg.KeepAlive > 0 || s.cfg.DeadAfter > 0 {
		timer = time.NewTimer(s.checkAlive(&pinged))
		defer timer.Stop()
		tick = timer.C
	}
	for {
		select {
		case <-s.done:
			return
		case <-ctx.Done():
			s.end(context.Cause(ctx), &reason{code: CodeClosed})
			return
		case <-tick:
			timer.Reset(s.checkAlive(&pinged))
		}
	}
}

// checkAlive does what is due and returns how long to wait until the next check.
func (s *Session) checkAlive(pinged *time.Duration) time.Duration {
	now := s.now()
	heard := time.Duration(s.lastHeard.Load())
	next := time.Duration(1<<63 - 1)
	if dead := s.cfg.DeadAfter; dead > 0 {
		if now-heard >= dead {
			s.end(fmt.Errorf("%w: silent for %v", ErrDead, dead), nil)
			return dead
		}
		next = heard + dead - now
	}
	if keep := s.cfg.KeepAlive; keep > 0 {
		from := max(heard, *pinged)
		if now-from >= keep {
			s.askPing()
			*pinged, from = now, now
		}
		next = min(next, from+keep-now)
	}
	return next
}

// hear is the transport's Read. Bytes and not frames prove that the other side
// lives: a long frame may trickle over a slow link for longer than DeadAfter.
func (s *Session) hear(p []byte) (int, error) {
	n, err := s.t.Read(p)
	if n > 0 {
		s.lastHeard.Store(int64(s.now()))
	}
	return n, err
}
