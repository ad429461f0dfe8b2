// Package testlog keeps what the parts of a test log, all into one buffer.
package testlog

import (
	"bytes"
	"sync"
)

// A Buffer may be written and read by several goroutines.
type Buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write never fails.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written so far.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
