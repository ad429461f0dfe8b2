package hub

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The waits between tries grow, and are anything up to their limit.
func TestBackoff(t *testing.T) {
	c := Config{}.withDefaults()
	for tries, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 40: time.Minute, 1 << 20: time.Minute} {
		var low, high time.Duration = time.Hour, 0
		for range 2000 {
			d := c.backoff(tries)
			low, high = min(low, d), max(high, d)
		}
		if low > most/10 || high > most || high < most*9/10 {
			t.Errorf("try %d: from %v to %v, want 0 to %v", tries, low, high, most)
		}
	}
	odd := Config{RetryFirst: time.Hour, RetryMost: time.Second}.withDefaults()
	if d := odd.backoff(3); d > time.Second {
		t.Errorf("waits %v", d)
	}
}

// A connection that was good for a minute starts the waits anew; a shorter one does
// not.
func TestBackoffStartsAnew(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lived time.Duration
		anew  bool
	}{{"good", resetAfter, true}, {"short", rivalLife, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil).run()
				for range 10 {
					l.accept().close()
				}
				var waited time.Duration
				for range 5 {
					c := l.welcome()
					time.Sleep(tt.lived)
					c.close()
					start := time.Now()
					l.accept().close() // so that it is no rival
					waited += time.Since(start)
				}
				// Five times up to 1 s, or five times up to 60 s: less than 5 s all in
				// all is once in thirty million runs.
				if anew := waited <= 5*time.Second; anew != tt.anew {
					t.Errorf("waited %v in all", waited)
				}
				l.welcome()
				l.stop()
			})
		})
	}
}

// A hub that is down is dialled for ever, and that is told once, and then now and
// then.
func TestHubDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
		}).run()
		time.Sleep(again - time.Second)
		l.wantLog(1, "level=WARN")
		time.Sleep(2 * time.Minute)
		l.wantLog(2, "level=WARN")
		l.stop()
		if n := l.logged("level=DEBUG"); n < 15 || n > 60 {
			t.Errorf("%d tries in 12 minutes", n)
		}
	})
}
