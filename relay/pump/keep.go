package pump

import (
	"fmt"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// keep runs on a timer: it pings, and ends the pump when a leg is dead or a cap
// is reached. An idle bridge has no goroutine for this.
func (p *pump) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Since(p.start)
	if p.decided {
		return
	}
	if res, over := p.overdue(now); over {
		p.endLocked(res)
		return
	}
	if p.cfg.Ping > 0 && now-p.pinged >= p.cfg.Ping {
		p.pinged = now
		for _, leg := range p.legs {
			leg.post(ws.OpPing, nil)
		}
	}
	p.schedule(now)
}

func (p *pump) overdue(now time.Duration) (Result, bool) {
	for _, leg := range p.legs {
		if since, reading := leg.waiting(); p.cfg.Dead > 0 && reading && now-since >= p.cfg.Dead {
			return Result{Reason: wire.PeerDead, By: leg.side, Text: fmt.Sprintf("no frame for %v", p.cfg.Dead)}, true
		}
	}
	if since, stuck := p.stalled(); stuck && now-since >= stallTimeout {
		return Result{Reason: wire.IdleTimeout, By: Relay, Text: "neither side reads what the other sends"}, true
	}
	if p.cfg.Idle > 0 && now-time.Duration(p.lastData.Load()) >= p.cfg.Idle {
		return Result{Reason: wire.IdleTimeout, By: Relay, Text: fmt.Sprintf("no data for %v", p.cfg.Idle)}, true
	}
	if p.cfg.MaxDuration > 0 && now >= p.cfg.MaxDuration {
		return Result{Reason: wire.MaxDuration, By: Relay, Text: fmt.Sprintf("open for %v", p.cfg.MaxDuration)}, true
	}
	return Result{}, false
}

// stallTimeout is how long both sides may refuse to read. The pump then reads
// from neither, so it cannot see whether one of them is dead; it is much longer
// than Config.Dead because both may be alive and slow.
const stallTimeout = 5 * time.Minute

// stalled says since when both directions are blocked in a write.
func (p *pump) stalled() (since time.Duration, stuck bool) {
	a, first := p.legs[0].blocked()
	b, second := p.legs[1].blocked()
	return max(a, b), first && second
}

// schedule sets the timer for whatever can come due first. The caller holds mu.
func (p *pump) schedule(now time.Duration) {
	next := time.Hour
	due := func(at time.Duration) { next = min(next, at-now) }
	if p.cfg.Ping > 0 {
		due(p.pinged + p.cfg.Ping)
	}
	if p.cfg.Dead > 0 {
		for _, leg := range p.legs {
			since, reading := leg.waiting()
			if !reading {
				since = now
			}
			due(since + p.cfg.Dead)
		}
	}
	if since, stuck := p.stalled(); stuck {
		due(since + stallTimeout)
	} else {
		due(now + stallTimeout)
	}
	if p.cfg.Idle > 0 {
		due(time.Duration(p.lastData.Load()) + p.cfg.Idle)
	}
	if p.cfg.MaxDuration > 0 {
		due(p.cfg.MaxDuration)
	}
	p.timer.Reset(max(next, time.Millisecond))
}
