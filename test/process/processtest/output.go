package processtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"websocketbridge/test/testlog"
)

// An Output is what a program has printed, and when.
type Output struct {
	testlog.Buffer

	mu    sync.Mutex // guards both
	lines []Line
	begun []byte // a line that has not ended
}

// A Line is one that has ended.
type Line struct {
	At   time.Time // it came
	Text string    // without the newline
}

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = append(o.begun, p...)
	for now := time.Now(); ; {
		line, rest, whole := bytes.Cut(o.begun, []byte("\n"))
		if !whole {
			return o.Buffer.Write(p) // wakes who waits for the lines
		}
		o.lines = append(o.lines, Line{now, string(line)})
		o.begun = rest
	}
}

// Lines are all so far.
func (o *Output) Lines() []Line {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.lines)
}

// JSON parses those lines that are JSON.
func JSON[T any](o *Output) (all []T) {
	for _, l := range o.Lines() {
		var v T
		if json.Unmarshal([]byte(l.Text), &v) == nil {
			all = append(all, v)
		}
	}
	return all
}

// An Event is a line of bridge --json.
type Event struct {
	At   time.Time // it came
	Data map[string]any
}

// Text is a field of text; empty: there is none.
func (e Event) Text(key string) string {
	s, _ := e.Data[key].(string)
	return s
}

// Events are those so far of the names.
func (p *Process) Events(names ...string) (all []Event) {
	lines := p.Out.Lines()
	if p.Err != p.Out {
		lines = append(lines, p.Err.Lines()...)
	}
	for _, l := range lines {
		e := Event{At: l.At}
		if json.Unmarshal([]byte(l.Text), &e.Data) == nil && slices.Contains(names, e.Text("event")) {
			all = append(all, e)
		}
	}
	return all
}

// Event waits for the nth of a name, and returns it.
func (p *Process) Event(name string, n int) Event {
	p.T.Helper()
	var found []Event
	p.Awaits(fmt.Sprintf("has event %s, number %d", name, n), func() bool {
		found = p.Events(name)
		return len(found) >= n
	})
	return found[n-1]
}

// Fails waits for the end, and wants this exit code, and of the one error event a
// sentence and one of the codes: some ways to notice race each other.
func (p *Process) Fails(exit int, codes ...string) {
	p.T.Helper()
	p.FailsWithin(p.patience, exit, codes...)
}

// FailsWithin is Fails for an end that has to come in time.
func (p *Process) FailsWithin(limit time.Duration, exit int, codes ...string) {
	p.T.Helper()
	p.ExitsWithin(limit, exit)
	errors := p.Events("error")
	if len(errors) != 1 || !slices.Contains(codes, errors[0].Text("code")) || errors[0].Text("detail") == "" {
		p.Errorf("%s said %v, want code %v", p.Name, errors, codes)
	}
}
