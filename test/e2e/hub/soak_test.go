package hub_test

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/test/emulator"
)

// soakFor is how long the soak takes: SOAK, as 30m, or 5 s.
func soakFor(t *testing.T) time.Duration { return durationEnv(t, "SOAK", 5*time.Second) }

func durationEnv(t *testing.T, name string, def time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%q is not a duration, as 30m", name, text)
	}
	return d
}

// Tokens expire all the time, and the hub cuts who is late: bridges are made
// without a failure, one that is open does not notice, and nothing grows. The life
// of a token is TOKEN_LIFE, as 1m, or 3 s.
func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	life := durationEnv(t, "TOKEN_LIFE", 3*time.Second)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			// The last signals of a connection that is replaced need a moment longer.
			tn := newTown(t, townOptions{way: way, tokenLife: life, hub: emulator.Config{TokenGrace: -1},
				relay: func(c *relay.Config) { c.DialBack = townPatience }})
			open := tn.open("pump-7")
			var (
				made, failed int
				early        uint64
			)
			began := time.Now()
			for total := soakFor(t); time.Since(began) < total; {
				ctx, cancel := context.WithTimeout(t.Context(), townPatience)
				err := tn.bridge(ctx, "pump-7")
				cancel()
				if err != nil {
					failed++
					t.Errorf("after %v and %d bridges: %v", time.Since(began), made, err)
					if failed > 10 {
						t.FailNow()
					}
				}
				made++
				if made == 50 {
					early = heap()
				}
				if made%10 == 0 {
					open.check(t)
				}
				<-time.After(50 * time.Millisecond) // a pace, not a wait for anything
			}
			late := heap()
			s := tn.hub.Stats()
			t.Logf("%d bridges in %v; the agent connected %d times, the relay put %d tokens; live heap %d KiB early, %d KiB now",
				made, time.Since(began).Round(time.Second), s.Connects["pump-7"], s.TokensPut, early>>10, late>>10)
			if min := int(time.Since(began) / life); s.Connects["pump-7"] < min {
				t.Errorf("the agent connected %d times: its token expired %d times", s.Connects["pump-7"], min)
			}
			// Others run beside this one, and it is all of their heaps.
			if made > 1000 && late > early+32<<20 {
				t.Errorf("the heap grew from %d to %d KiB", early>>10, late>>10)
			}
			// On a machine that stands still for a moment the next connection may come
			// before the hub has read the last one's DISCONNECT.
			if s.Takeovers > 2 {
				t.Errorf("%d takeovers: the agent was in its own way", s.Takeovers)
			}
		})
	}
}

// heap is the live heap.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
