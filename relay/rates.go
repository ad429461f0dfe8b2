package relay

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRated is how many keys one kind of rate remembers, about 3 MB. Who is forgotten
// has a full minute again, so a stranger with more addresses than that is held by the
// limits of the whole node only.
const maxRated = 16 << 10

// rates are token buckets by key. Each holds one minute's worth, which may be spent at
// once.
type rates struct {
	perMinute int // 0: no limit

	mu     sync.Mutex               // guards the two below
	by     map[string]*list.Element // of order
	recent list.List                // of *rated, the one used last at the back
}

type rated struct {
	key     string
	limiter *rate.Limiter
}

func newRates(perMinute int) *rates {
	return &rates{perMinute: perMinute, by: make(map[string]*list.Element)}
}

// take spends one of key's, or says how long it takes until there is one.
func (r *rates) take(key string, now time.Time) (wait time.Duration, limit int) {
	l := r.limiter(key)
	if l == nil || l.AllowN(now, 1) {
		return 0, r.perMinute
	}
	return r.until(l, now), r.perMinute
}

// spent is take without taking.
func (r *rates) spent(key string, now time.Time) (wait time.Duration, limit int) {
	r.mu.Lock()
	e := r.by[key]
	r.mu.Unlock()
	if e == nil {
		return 0, r.perMinute
	}
	l := e.Value.(*rated).limiter
	if l.TokensAt(now) >= 1 {
		return 0, r.perMinute
	}
	return r.until(l, now), r.perMinute
}

func (r *rates) until(l *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - l.TokensAt(now)
	return max(time.Duration(missing*float64(time.Minute)/float64(r.perMinute)), time.Millisecond)
}

// limiter returns key's bucket; nil: there is no limit.
func (r *rates) limiter(key string) *rate.Limiter {
	if r.perMinute == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.by[key]; e != nil {
		r.recent.MoveToBack(e)
		return e.Value.(*rated).limiter
	}
	if len(r.by) >= maxRated {
		delete(r.by, r.recent.Remove(r.recent.Front()).(*rated).key)
	}
	l := rate.NewLimiter(rate.Limit(float64(r.perMinute)/60), r.perMinute)
	r.by[key] = r.recent.PushBack(&rated{key, l})
	return l
}

// source is what counts as one address: of IPv6, where everybody has a /64 at least,
// that. It is invalid for what is no address, as with a unix socket: nobody can be told
// from anybody there.
func source(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// sourceName is how a refusal calls it.
func sourceName(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
