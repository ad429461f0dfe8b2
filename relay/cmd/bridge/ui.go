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
	dataOut  bool // standard output is the device's: JSON goes to standard error

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

// detailf prints progress of a command that another program runs, as ssh does:
// its terminal is that program's.
func (u *ui) detailf(format string, args ...any) {
	if u.verbose {
		u.sayf(format, args...)
	}
}

// tellf prints what a person was waiting for.
func (u *ui) tellf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintln(u.err, printable(fmt.Sprintf(format, args...)))
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
	to := u.out
	if u.dataOut {
		to = u.err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	enc := json.NewEncoder(to)
	enc.SetEscapeHTML(false)
	enc.Encode(v) // an error means that nobody reads
}

// exit reports how a command ended and returns its exit code.
func (u *ui) exit(err error) int {
	f := explain(err)
	if err == nil || f.quiet {
		return f.Exit
	}
	if u.json {
		u.event(f)
		return f.Exit
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.err, "bridge: %s\n", printable(f.Detail))
	if f.Hint != "" {
		fmt.Fprintf(u.err, "hint: %s\n", printable(f.Hint))
	}
	if f.BridgeID != "" {
		fmt.Fprintf(u.err, "bridge ID: %s\n", printable(oneLine(f.BridgeID)))
	}
	return f.Exit
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
