//go:build netns && linux

package netns_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one program in a namespace.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser // its standard input
	out  lines          // its standard output and error
	done chan struct{}
}

// launch starts a program in a namespace. ip becomes the program, so that signals
// reach it.
func launch(t *testing.T, space string, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{
		t: t, name: filepath.Base(path), done: make(chan struct{}),
		cmd: exec.Command("ip", append([]string{"netns", "exec", space, path}, args...)...),
	}
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no cleanup runs after a panic
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.in.Close()
		<-p.done
	})
	return p
}

// program is one of ours.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// cleanEnv is the environment without settings of ours and without proxies.
func cleanEnv() (env []string) {
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if slices.ContainsFunc([]string{"RELAY_", "AGENT_", "BRIDGE_", "NETNS_"}, func(p string) bool { return strings.HasPrefix(name, p) }) ||
			strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			continue
		}
		env = append(env, e)
	}
	return env
}

// tells logs the end of what the program said, if the test failed.
func (p *process) tells(label string) {
	if p.t.Failed() {
		s := p.out.String()
		p.t.Logf("%s said at last:\n%s", label, s[max(0, len(s)-6000):])
	}
}

// says waits until the program has printed text.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, p.name+" says "+text, func() bool {
		if p.ended() && !strings.Contains(p.out.String(), text) {
			p.t.Fatalf("%s ended with %d instead of saying %q:\n%s", p.name, p.cmd.ProcessState.ExitCode(), text, p.out.String())
		}
		return strings.Contains(p.out.String(), text)
	})
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// write sends text to the program's input.
func (p *process) write(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		p.t.Fatalf("to %s: %v", p.name, err)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// kill is kill -9, and returns when the program is gone.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// exits waits at most limit for the end and checks the exit code.
func (p *process) exits(limit time.Duration, codes ...int) {
	p.t.Helper()
	untilWithin(p.t, limit, p.name+" exits", p.ended)
	if got := p.cmd.ProcessState.ExitCode(); !slices.Contains(codes, got) {
		p.t.Errorf("%s exited with %d, want %v:\n%s", p.name, got, codes, p.out.String())
	}
}

// event is a line of bridge --json.
type event struct {
	at   time.Time // when it was printed
	data map[string]any
}

func (e event) text(key string) string {
	s, _ := e.data[key].(string)
	return s
}

// events are the lines of bridge --json so far whose event is one of names.
func (p *process) events(names ...string) (events []event) {
	for _, l := range p.out.all() {
		var e map[string]any
		if json.Unmarshal(l.text, &e) == nil {
			if name, _ := e["event"].(string); slices.Contains(names, name) {
				events = append(events, event{l.at, e})
			}
		}
	}
	return events
}

// awaits waits for the first event of a name.
func (p *process) awaits(name string) event {
	p.t.Helper()
	var found []event
	until(p.t, p.name+" has event "+name, func() bool {
		if found = p.events(name); len(found) == 0 && p.ended() {
			p.t.Fatalf("%s ended with %d before it had event %s:\n%s", p.name, p.cmd.ProcessState.ExitCode(), name, p.out.String())
		}
		return len(found) > 0
	})
	return found[0]
}

// lines keeps what a program prints, and when. It may be used by several goroutines.
type lines struct {
	mu      sync.Mutex // guards the two below
	kept    []line
	partial []byte
}

type line struct {
	at   time.Time
	text []byte // without the newline
}

// Write never fails.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.partial = append(l.partial, p...)
	for {
		before, after, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.kept = append(l.kept, line{now, bytes.Clone(before)})
		l.partial = after
	}
}

func (l *lines) all() []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept)
}

// cutFrom takes out the line that starts so, and all behind it.
func (l *lines) cutFrom(start string) (cut []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.kept, func(one line) bool { return bytes.HasPrefix(one.text, []byte(start)) })
	if i < 0 {
		return nil
	}
	for _, one := range l.kept[i:] {
		cut = append(cut, string(one.text))
	}
	l.kept = l.kept[:i]
	return cut
}

func (l *lines) String() string {
	var b strings.Builder
	for _, line := range l.all() {
		fmt.Fprintf(&b, "%s\n", line.text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b.Write(l.partial)
	return b.String()
}
