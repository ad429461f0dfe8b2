package policy

import (
	"fmt"
	"strings"
	"time"
)

// hours are open while one of their windows is; no windows are always open.
type hours []window

// A window opens on some days of the week.
type window struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes since midnight; to may be of the next day
	zone     *time.Location
}

const (
	wholeDay = 24 * 60 // minutes
	// horizon is how far ahead hours are looked at: the week begins anew by then.
	horizon = 8 // days
)

// at says whether hours are open at a time, and when that changes; zero: it does not.
func (h hours) at(now time.Time) (open bool, changes time.Time) {
	if len(h) == 0 {
		return true, time.Time{}
	}
	end, ok := h.openUntil(now)
	if !ok {
		return false, h.opensAfter(now)
	}
	// One window may end where another begins: days that touch.
	for last := now.AddDate(0, 0, horizon); end.Before(last); {
		next, ok := h.openUntil(end)
		if !ok {
			return true, end
		}
		end = next
	}
	return true, time.Time{}
}

// openUntil returns the end of a window that holds t; of several the latest.
func (h hours) openUntil(t time.Time) (end time.Time, ok bool) {
	for i := range h {
		h[i].around(t, 1, func(opens, closes time.Time) {
			if !t.Before(opens) && t.Before(closes) && closes.After(end) {
				end, ok = closes, true
			}
		})
	}
	return end, ok
}

// opensAfter returns when the next window opens.
func (h hours) opensAfter(t time.Time) (next time.Time) {
	for i := range h {
		h[i].around(t, horizon, func(opens, closes time.Time) {
			if opens.After(t) && closes.After(opens) {
				next = earlier(next, opens)
			}
		})
	}
	return next
}

// around yields when w opens and closes from the day before t, which may reach into it,
// to some days after it. The next day may begin before this one ends: where clocks go
// back over midnight.
func (w *window) around(t time.Time, days int, yield func(opens, closes time.Time)) {
	y, m, d := t.In(w.zone).Date()
	for i := -1; i <= days; i++ {
		if w.days[time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC).Weekday()] {
			yield(instant(y, m, d+i, w.from, w.zone), instant(y, m, d+i, w.to, w.zone))
		}
	}
}

// instant is the first moment at which the clocks of a zone show a time of a day, or a
// later one if they skip it.
func instant(y int, m time.Month, d, minutes int, zone *time.Location) time.Time {
	want := time.Date(y, m, d, 0, minutes, 0, 0, time.UTC) // what clocks show, as if UTC
	t := time.Date(y, m, d, 0, minutes, 0, 0, zone)
	shown := clocks(t)
	begins, ends := t.ZoneBounds()
	switch {
	case shown.After(want): // skipped, and t is behind the gap
		return begins
	case shown.Before(want): // skipped, and t is before it
		return ends
	}
	// Shown twice, if the zone before had it, too.
	if !begins.IsZero() {
		_, offset := begins.Add(-1).Zone()
		if first := want.Add(-time.Duration(offset) * time.Second); first.Before(begins) {
			return first.In(zone)
		}
	}
	return t
}

// clocks are what they show at t, as if it were UTC.
func clocks(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

var dayNames = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// String is h as explanations have it.
func (h hours) String() string {
	var all []string
	for _, w := range h {
		all = append(all, w.String())
	}
	return strings.Join(all, " or ")
}

func (w window) String() string {
	var parts []string
	if days := w.dayText(); days != "" {
		parts = append(parts, days)
	}
	if w.from != 0 || w.to != wholeDay {
		parts = append(parts, fmt.Sprintf("%s-%s", clockText(w.from), clockText((w.to-1)%wholeDay+1)))
	}
	return strings.Join(append(parts, w.zone.String()), " ")
}

// dayText writes days as ranges from Monday on; empty: every day.
func (w window) dayText() string {
	var runs []string
	for i := 1; i <= 7; i++ {
		if !w.days[i%7] {
			continue
		}
		first := i
		for i < 7 && w.days[(i+1)%7] {
			i++
		}
		run := dayNames[first%7]
		if i > first {
			run += "-" + dayNames[i%7]
		}
		runs = append(runs, run)
	}
	if len(runs) == 1 && runs[0] == "mon-sun" {
		return ""
	}
	return strings.Join(runs, ",")
}

func clockText(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }
