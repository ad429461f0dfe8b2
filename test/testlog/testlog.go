// Package testlog keeps what the parts of a test log, all in one buffer, and waits for it.
package testlog

import (
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Buffer may be written and read by several goroutines.
type Buffer struct {
	Keep int // bytes at least, of what was written last; 0: all

	mu   sync.Mutex // guards both
	b    strings.Builder
	more chan struct{} // closed by the next Write; nil: nobody waits
}

// Write never fails.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.b.Len(); l.Keep > 0 && n > 2*l.Keep {
		kept := l.b.String()[n-l.Keep:]
		l.b.Reset()
		l.b.WriteString(kept)
	}
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.b.Write(p)
}

// String is what was written so far, and is kept.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Reset forgets all of it.
func (l *Buffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// More is closed when something is written after this call.
func (l *Buffer) More() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.more
}

// Wait waits until what was written matches, and returns the match and its groups.
func (l *Buffer) Wait(t testing.TB, limit time.Duration, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		more := l.More() // before the look: nothing is missed between the two
		if m := re.FindStringSubmatch(l.String()); m != nil {
			return m
		}
		select {
		case <-more:
		case <-late.C:
			t.Fatalf("not within %v: %q in\n%s", limit, pattern, l)
		}
	}
}
