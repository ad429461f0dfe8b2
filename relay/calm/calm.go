// Package calm writes log lines that strangers can cause: a few of each kind in a
// while, and how many it left out.
package calm

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Log lets Lines lines of a kind through in each Per. The next one that comes
// through says how many did not, as suppressed; so does Flush. The zero value of Lines
// and Per is twenty a second.
type Log struct {
	To    *slog.Logger
	Lines int
	Per   time.Duration

	mu    sync.Mutex // guards kinds and what they point to
	kinds map[string]*kind
}

// kind is what happened to one kind of line since began.
type kind struct {
	level      slog.Level
	began      time.Time
	lines      int
	suppressed int // since the last line that came through
}

// maxKinds bounds what a caller can do wrong: kinds are constants, not what a stranger
// has sent. All above share one.
const maxKinds = 100

// Log writes a line, or counts it.
func (l *Log) Log(level slog.Level, kind, text string, args ...any) {
	if !l.To.Enabled(context.Background(), level) {
		return
	}
	suppressed, ok := l.take(level, kind)
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args[:len(args):len(args)], "suppressed", suppressed)
	}
	l.To.Log(context.Background(), level, text, args...)
}

func (l *Log) take(level slog.Level, name string) (suppressed int, ok bool) {
	lines, per := l.Lines, l.Per
	if lines == 0 {
		lines = 20
	}
	if per == 0 {
		per = time.Second
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[name]
	if k == nil {
		if l.kinds == nil {
			l.kinds = make(map[string]*kind)
		}
		if len(l.kinds) >= maxKinds {
			name = "other"
		}
		if k = l.kinds[name]; k == nil {
			k = &kind{began: now}
			l.kinds[name] = k
		}
	}
	k.level = level
	if now.Sub(k.began) >= per {
		k.began, k.lines = now, 0
	}
	if k.lines >= lines {
		k.suppressed++
		return 0, false
	}
	k.lines++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}

// Flush writes one line for each kind of which some were left out since its last.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, k := range l.kinds {
		if k.suppressed > 0 {
			l.To.Log(context.Background(), k.level, "lines were left out", "kind", name, "suppressed", k.suppressed)
			k.suppressed = 0
		}
	}
}
