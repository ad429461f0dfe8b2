package emulator

import (
	"container/heap"
	"context"
	"time"
)

// An alarm runs a function at a time, with the hub's lock held: expiries, locks,
// batches. All of them are in one heap, and one goroutine, keepTime, runs them:
// a timer each would leave goroutines behind that nobody waits for.
type alarm struct {
	when  time.Time
	run   func()
	index int // in the heap; -1: not in it
}

type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].when.Before(a[j].when) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

func (a *alarms) Push(x any) {
	x.(*alarm).index = len(*a)
	*a = append(*a, x.(*alarm))
}

func (a *alarms) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	last.index = -1
	return last
}

// at runs f at a time. The caller holds mu.
func (h *Hub) at(when time.Time, f func()) *alarm {
	a := &alarm{when: when, run: f}
	heap.Push(&h.alarms, a)
	if a.index == 0 {
		h.wake()
	}
	return a
}

// cancel forgets an alarm; nil and one that has run are fine. The caller holds mu.
func (h *Hub) cancel(a *alarm) {
	if a != nil && a.index >= 0 {
		heap.Remove(&h.alarms, a.index)
	}
}

// wake makes keepTime look again.
func (h *Hub) wake() {
	select {
	case h.awake <- struct{}{}:
	default:
	}
}

// keepTime runs alarms until ctx ends.
func (h *Hub) keepTime(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.mu.Lock()
		for len(h.alarms) > 0 && !h.alarms[0].when.After(time.Now()) {
			heap.Pop(&h.alarms).(*alarm).run()
		}
		if timer.Stop(); len(h.alarms) > 0 {
			timer.Reset(time.Until(h.alarms[0].when))
		}
		h.mu.Unlock()
		select {
		case <-timer.C:
		case <-h.awake:
		case <-ctx.Done():
			return
		}
	}
}
