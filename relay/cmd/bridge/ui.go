package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/term"
)

// ui is what the user sees. Standard output belongs to data: what a tunnel
// listens on, JSON events, the bytes of stdio and raw. Standard error belongs to
// the person: progress if it is a terminal (or with -v), errors always.
type ui struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	verbose  bool

	mu sync.Mutex // one line at a time
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// sayf prints progress.
func (u *ui) sayf(format string, args ...any) {
	if u.json || !u.verbose && !isTerminal(u.err) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.err, format+"\n", args...)
}

// warnf prints what a person should know even in a pipe.
func (u *ui) warnf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.err, "bridge: "+format+"\n", args...)
}

// printf prints data for a program or a person.
func (u *ui) printf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.out, format+"\n", args...)
}

// event prints one JSON line, if JSON is wanted.
func (u *ui) event(v any) {
	if !u.json {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.Write(append(b, '\n'))
}

// exit reports how a command ended and returns its exit code.
func (u *ui) exit(err error) int {
	f := explain(err)
	if err == nil || f.quiet {
		return f.exit
	}
	if u.json {
		u.event(f.json())
		return f.exit
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.err, "bridge: %s\n", printable(f.text))
	if f.hint != "" {
		fmt.Fprintf(u.err, "hint: %s\n", printable(f.hint))
	}
	if f.bridgeID != "" {
		fmt.Fprintf(u.err, "bridge ID: %s\n", printable(f.bridgeID))
	}
	return f.exit
}

// printable keeps words from elsewhere from steering the terminal. Line breaks
// stay: several faults come as several lines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
