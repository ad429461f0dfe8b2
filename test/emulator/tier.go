package emulator

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A Tier is what a hub costs, and so what it may do.
type Tier int

// The tiers. Basic stands for B1; B2 and B3 differ from it in rates only.
const (
	S1 Tier = iota
	S2
	S3
	Basic
	Free
)

// tierLimits are those of IoT Hub's pages "quotas and throttling" and "pricing",
// per unit unless it is said otherwise.
type tierLimits struct {
	name    string
	devices bool // cloud-to-device messages, direct methods, twins and modules
	daily   int  // messages
	chunk   int  // bytes that count as one message
	rates   [operations]rate
}

// A rate is perUnit operations a second for each unit, and at least floor.
type rate struct{ perUnit, floor float64 }

// An operation has a rate of its own.
type operation int

const (
	opC2D      operation = iota
	opMethod             // in 4 KB of request
	opConnect            // of devices
	opRegistry           // identities and twins
	opQuery
	operations
)

var tiers = map[Tier]tierLimits{
	Free: {"free", true, 8_000, 512, [operations]rate{
		opC2D: {perUnit: 100. / 60}, opMethod: {perUnit: 40}, opConnect: {floor: 100}, opRegistry: {perUnit: 100. / 60}, opQuery: {perUnit: 20. / 60}}},
	Basic: {"basic", false, 400_000, 4 << 10, [operations]rate{
		opConnect: {perUnit: 12, floor: 100}, opRegistry: {perUnit: 100. / 60}, opQuery: {perUnit: 20. / 60}}},
	S1: {"S1", true, 400_000, 4 << 10, [operations]rate{
		opC2D: {perUnit: 100. / 60}, opMethod: {perUnit: 40}, opConnect: {perUnit: 12, floor: 100}, opRegistry: {perUnit: 100. / 60}, opQuery: {perUnit: 20. / 60}}},
	S2: {"S2", true, 6_000_000, 4 << 10, [operations]rate{
		opC2D: {perUnit: 100. / 60}, opMethod: {perUnit: 120}, opConnect: {perUnit: 120}, opRegistry: {perUnit: 100. / 60}, opQuery: {perUnit: 20. / 60}}},
	S3: {"S3", true, 300_000_000, 4 << 10, [operations]rate{
		opC2D: {perUnit: 5000. / 60}, opMethod: {perUnit: 6000}, opConnect: {perUnit: 6000}, opRegistry: {perUnit: 5000. / 60}, opQuery: {perUnit: 1000. / 60}}},
}

func (t Tier) String() string {
	if l, ok := tiers[t]; ok {
		return l.name
	}
	return fmt.Sprintf("Tier(%d)", int(t))
}

// ParseTier reads free, basic, S1, S2 or S3, in any case.
func ParseTier(s string) (Tier, error) {
	for t, l := range tiers {
		if strings.EqualFold(s, l.name) || t == Basic && strings.EqualFold(s, "B1") || t == Free && strings.EqualFold(s, "F1") {
			return t, nil
		}
	}
	return 0, fmt.Errorf("tier %q is not one of free, basic, S1, S2 and S3", s)
}

func (h *Hub) tier() tierLimits { return tiers[h.cfg.Tier] }

// A meter shapes the traffic of one operation, as the generic cell rate algorithm
// does: a burst passes at once, what is more waits its turn, and what would wait
// too long is refused. IoT Hub describes just that, without numbers.
type meter struct {
	next time.Time // when all that was taken would be done, at the rate
}

// take returns how long the operation has to wait; false: too long.
func (m *meter) take(now time.Time, perSecond float64, n int, burst, queue time.Duration) (time.Duration, bool) {
	one := time.Duration(float64(time.Second) / perSecond)
	if m.next.Before(now) {
		m.next = now
	}
	next := m.next.Add(one * time.Duration(n))
	wait := next.Sub(now) - max(burst, one*time.Duration(n))
	if wait > queue {
		return 0, false
	}
	m.next = next
	return max(wait, 0), true
}

// limit takes n operations, without waiting: nil or throttled. The caller holds
// mu.
func (h *Hub) limit(op operation, n int) *hubError {
	_, err := h.take(op, n)
	return err
}

// take returns how long n operations have to wait. The caller holds mu.
func (h *Hub) take(op operation, n int) (time.Duration, *hubError) {
	if !h.cfg.Throttle {
		return 0, nil
	}
	r := h.tier().rates[op]
	perSecond := max(r.perUnit*float64(h.cfg.Units), r.floor)
	if perSecond == 0 {
		return 0, nil // the tier cannot do it at all
	}
	wait, ok := h.meters[op].take(time.Now(), perSecond, n, h.cfg.ThrottleBurst, h.cfg.ThrottleQueue)
	if !ok {
		h.stats.Throttled++
		return 0, errThrottled(h.cfg.RetryAfter)
	}
	return wait, nil
}

// throttle takes n operations and waits their turn. If ctx ends first, nobody
// will see the answer.
func (h *Hub) throttle(ctx context.Context, op operation, n int) *hubError {
	h.mu.Lock()
	wait, err := h.take(op, n)
	h.mu.Unlock()
	if err == nil && wait > 0 && !sleep(ctx, wait) {
		return errThrottled(h.cfg.RetryAfter)
	}
	return err
}

// units is how many times per fits into n, rounded up, and at least 1.
func units(n, per int) int { return max(1, (n+per-1)/per) }

// charge counts size bytes against the day's messages. The caller holds mu.
func (h *Hub) charge(size int) *hubError {
	if !h.cfg.Throttle {
		return nil
	}
	day := time.Now().UTC().Truncate(24 * time.Hour)
	if day.After(h.day) {
		h.day, h.used = day, 0 // quotas are reset at midnight UTC
	}
	t := h.tier()
	if limit := t.daily * h.cfg.Units; h.used >= limit {
		return errQuota(h.cfg.HostName, limit, h.used)
	}
	h.used += units(size, t.chunk)
	return nil
}
