// Package testlog keeps what the parts of a test log, all in one buffer.
package testlog

import (
	"bytes"
	"sync"
)

// A Buffer may be written and read by several goroutines.
type Buffer struct {
	Keep int // bytes at least, of what was written last; 0: all

	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write never fails.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Keep > 0 && l.b.Len() > 2*l.Keep {
		l.b.Next(l.b.Len() - l.Keep)
	}
	return l.b.Write(p)
}

// String is what was written so far, and is kept.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
