package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// timeline collects what happened when.
type timeline struct {
	mu    sync.Mutex // guards both
	start time.Time
	lines []moment
}

type moment struct {
	at        time.Duration
	who, what string
}

func (t *timeline) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = time.Now()
}

func (t *timeline) mark(who, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, moment{time.Since(t.start), who, what})
}

func (t *timeline) has(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.lines {
		if strings.Contains(m.what, what) {
			return true
		}
	}
	return false
}

// String is a table, in milliseconds since the requester asked.
func (t *timeline) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, m := range t.lines {
		fmt.Fprintf(&b, "  %7.1f ms  %-10s %s\n", float64(m.at.Microseconds())/1000, m.who, m.what)
	}
	return b.String()
}
