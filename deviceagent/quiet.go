package deviceagent

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"websocketbridge/signaler"
)

// How many refusals of one code are logged in how much time: what is refused may come
// from anybody who writes to the hub, and a device's log is on a small disk.
const (
	quietTime  = 10 * time.Second
	quietLines = 10
)

// quietly counts log lines of one kind.
type quietly struct {
	since          time.Time
	lines, dropped int
}

// tell says whether to log now, and how many lines were left out before.
func (q *quietly) tell(now time.Time) (dropped int, ok bool) {
	switch {
	case now.Sub(q.since) >= quietTime:
		dropped = q.dropped
		*q = quietly{since: now, lines: 1}
	case q.lines < quietLines:
		q.lines++
	default:
		q.dropped++
		return 0, false
	}
	return dropped, true
}

// logRefused logs a refusal, unless there were many of its code.
func (a *Agent) logRefused(level slog.Level, text string, no *signaler.Refusal, about ...any) {
	a.mu.Lock()
	q := a.quiet[no.Code]
	if q == nil {
		q = new(quietly)
		a.quiet[no.Code] = q // codes are few
	}
	dropped, ok := q.tell(time.Now())
	a.mu.Unlock()
	if !ok {
		return
	}
	about = slices.Concat(about, []any{"reason", no.Code, "text", no.Message})
	if dropped > 0 {
		about = append(about, "not_logged_before", dropped)
	}
	a.log.Log(context.Background(), level, text, about...)
}
