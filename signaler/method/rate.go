package method

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"websocketbridge/signaler"
)

// perUnit is how many calls a second a unit of each tier allows ("IoT Hub quotas and
// throttling": 160 KB/s in steps of 4 KB for F1 and S1, 480 KB/s for S2, 24 MB/s for S3).
var perUnit = map[string]float64{"F1": 40, "S1": 40, "S2": 120, "S3": 6000}

// RateFor returns what to set as Rate and Burst for a hub of this tier (F1, S1, S2,
// S3) and number of units: 80 % of what it allows, so that others who share the hub get
// through. Relays that share a hub divide it among themselves.
func RateFor(tier string, units int) (perSecond float64, burst int, err error) {
	unit, ok := perUnit[strings.ToUpper(tier)]
	if !ok {
		return 0, 0, fmt.Errorf("tier %q is not one of F1, S1, S2 and S3, which have direct methods", tier)
	}
	if most := maxUnits[strings.ToUpper(tier)]; units < 1 || units > most {
		return 0, 0, fmt.Errorf("a hub of tier %s has 1 to %d units, not %d", strings.ToUpper(tier), most, units)
	}
	perSecond = unit * float64(units) * 0.8
	return perSecond, burstOf(perSecond), nil
}

// maxUnits is how many a hub of each tier can have.
var maxUnits = map[string]int{"F1": 1, "S1": 200, "S2": 200, "S3": 10}

// burstOf is one second's worth: the hub looks at minutes.
func burstOf(perSecond float64) int { return max(1, int(min(perSecond, 1e6))) }

// A gate lets calls pass at a rate, and none while the hub wants to be left alone.
type gate struct {
	limit   *rate.Limiter // nil: any rate
	maxWait time.Duration

	mu    sync.Mutex // guards both, and that a reservation taken back is the last one
	until time.Time
	why   string
}

func newGate(perSecond float64, burst int, maxWait time.Duration) *gate {
	g := &gate{maxWait: maxWait}
	if perSecond > 0 && !math.IsInf(perSecond, 1) {
		if burst < 1 {
			burst = burstOf(perSecond)
		}
		g.limit = rate.NewLimiter(rate.Limit(perSecond), burst)
	}
	return g
}

// shut keeps everybody out for a while.
func (g *gate) shut(d time.Duration, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := time.Now().Add(d); until.After(g.until) {
		g.until, g.why = until, why
	}
}

// pass returns when a call may be made, or why it may not.
func (g *gate) pass(ctx context.Context) error {
	wait, err := g.reserve(ctx)
	if err != nil || wait <= 0 {
		return err
	}
	if err := pause(ctx, wait); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open() // it may have been shut meanwhile
}

func (g *gate) reserve(ctx context.Context) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.open(); err != nil || g.limit == nil {
		return 0, err
	}
	r := g.limit.Reserve()
	wait, most := r.Delay(), g.maxWait
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end))
	}
	if wait > most {
		r.Cancel()
		return 0, fmt.Errorf("this relay stays below %.4g calls/s: %w", float64(g.limit.Limit()), &signaler.ThrottledError{RetryAfter: roundUp(wait)})
	}
	return wait, nil
}

// open says why the gate is shut, or nil. The caller holds mu.
func (g *gate) open() error {
	if left := time.Until(g.until); left > 0 {
		return fmt.Errorf("not asked again yet; %s: %w", g.why, &signaler.ThrottledError{RetryAfter: roundUp(left)})
	}
	return nil
}

// roundUp makes a wait readable.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// pause returns nil after d, or the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
