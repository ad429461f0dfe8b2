package emulator

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestParseTier(t *testing.T) {
	for s, want := range map[string]Tier{"s1": S1, "S2": S2, "S3": S3, "free": Free, "F1": Free, "Basic": Basic, "b1": Basic} {
		if got, err := ParseTier(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
		if again, err := ParseTier(want.String()); err != nil || again != want {
			t.Errorf("%v: %v, %v", want, again, err)
		}
	}
	if _, err := ParseTier("S4"); err == nil {
		t.Error("S4 is a tier")
	}
}

// An S1 unit takes 100 messages a minute: at once, then slower and slower, then
// no more.
func TestShaping(t *testing.T) {
	core(t, Config{Throttle: true, MessageQueue: 1000, RetryAfter: 3 * time.Second}, func(t *testing.T, h *Hub) {
		start := time.Now()
		for i := range 100 {
			send(t, h, fmt.Sprint(i))
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("a minute's worth took %v", d)
		}
		took := make(chan time.Duration, 100)
		for range 100 {
			go func() {
				began := time.Now()
				if err := h.enqueueC2D(context.WithoutCancel(t.Context()), dev, &c2dMessage{}); err == nil {
					took <- time.Since(began)
				} else if err.Code != 429001 || err.RetryAfter != 3*time.Second || err.Condition != "com.microsoft:device-container-throttled" {
					t.Errorf("got %v", err)
				}
			}()
		}
		pass(time.Minute)
		close(took)
		var all []time.Duration
		for d := range took {
			all = append(all, d)
		}
		slices.Sort(all)
		// ten seconds of 100 a minute fit into the queue
		if len(all) != 16 || all[0].Round(time.Millisecond) != 600*time.Millisecond || all[15].Round(time.Millisecond) != 9600*time.Millisecond {
			t.Errorf("%d waited: %v", len(all), all)
		}
		if s := h.Stats(); s.Throttled != 84 || s.MessagesRejected != 84 {
			t.Errorf("stats %+v", s)
		}
		pass(time.Minute)
		send(t, h, "later")
	})
}

func TestRates(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   Config
		op    operation
		want  int // at once, of 20 000
		after int // a second later
	}{
		{"S1 messages", Config{}, opC2D, 100, 1},
		{"two units", Config{Units: 2}, opC2D, 200, 3},
		{"S3 messages", Config{Tier: S3}, opC2D, 5000, 83},
		{"S1 methods", Config{}, opMethod, 2400, 40},
		{"S2 methods", Config{Tier: S2}, opMethod, 7200, 120},
		{"a second's burst", Config{ThrottleBurst: time.Second}, opMethod, 40, 40},
		{"no burst", Config{ThrottleBurst: -1}, opMethod, 1, 1},
		{"S1 connections", Config{}, opConnect, 6000, 100},
		{"20 units' connections", Config{Units: 20}, opConnect, 14400, 240},
		{"registry", Config{}, opRegistry, 100, 1},
		{"queries", Config{}, opQuery, 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Throttle, tt.cfg.ThrottleQueue = true, -1
			core(t, tt.cfg, func(t *testing.T, h *Hub) {
				count := func() (n int) {
					h.mu.Lock()
					defer h.mu.Unlock()
					for n < 20_000 && h.limit(tt.op, 1) == nil {
						n++
					}
					return n
				}
				if got := count(); got < tt.want || got > tt.want+1 {
					t.Errorf("%d at once, want %d", got, tt.want)
				}
				pass(time.Second)
				if got := count(); got < tt.after || got > tt.after+1 {
					t.Errorf("%d a second later, want %d", got, tt.after)
				}
			})
		})
	}
}

// A method of 12 KB takes three times the rate, and connections have a rate.
func TestThrottledOperations(t *testing.T) {
	core(t, Config{Throttle: true, ThrottleBurst: time.Second, ThrottleQueue: -1}, func(t *testing.T, h *Hub) {
		n := 0
		for n < 100 {
			_, err := h.invokeMethod(t.Context(), dev, methodRequest{Name: "x", Payload: make([]byte, 12<<10)})
			if err.Code == 429001 {
				break
			}
			n++
		}
		if n != 13 {
			t.Errorf("%d methods of 12 KB a second", n)
		}
		n = 0
		for n < 1000 {
			if _, err := h.attach(dev, newCoreLink(), time.Time{}); err != nil {
				break
			}
			n++
		}
		if n < 100 || n > 101 {
			t.Errorf("%d connections a second", n)
		}
	})
}

func TestDailyQuota(t *testing.T) {
	core(t, Config{Tier: Free, Throttle: true, ThrottleBurst: 24 * time.Hour, MessageQueue: 100_000, MaxMethodsInFlight: 1}, func(t *testing.T, h *Hub) {
		a, _ := on(t, h, dev)
		for range 1000 { // telemetry of 3 KB is six messages of a free hub
			if err := a.telemetry(Event{Body: make([]byte, 3<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 { // a call to a device that does not listen is two
			if _, err := h.invokeMethod(t.Context(), dev, methodRequest{Name: "x"}); err.Code != 404103 {
				t.Fatal(err)
			}
		}
		for _, err := range []*hubError{
			a.telemetry(Event{}),
			h.enqueueC2D(t.Context(), dev, &c2dMessage{}),
			func() *hubError { _, err := h.invokeMethod(t.Context(), dev, methodRequest{Name: "x"}); return err }(),
		} {
			if err == nil || err.Code != 403002 || err.Condition != "com.microsoft:quota-exceeded" {
				t.Errorf("the 8001st: %v", err)
			}
		}
		pass(24 * time.Hour)
		if err := a.telemetry(Event{}); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}
