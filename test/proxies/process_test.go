//go:build proxies && linux

package proxies_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// process is one program.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  output // and its errors
	done chan struct{}
}

// launch starts a program, which ends with the test.
func launch(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(path), cmd: exec.Command(path, args...), done: make(chan struct{})}
	if !strings.Contains(path, "/") {
		if ours := filepath.Join(bin, path); slices.Contains([]string{"relay", "deviceagent", "bridge", "emulator"}, path) {
			p.cmd = exec.Command(ours, args...)
		}
	}
	p.cmd.Env = cleanEnv(env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// Also what it starts itself, and if this process panics.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
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
		p.kill()
		if t.Failed() {
			s := p.out.String()
			t.Logf("%s said at last:\n%s", p.name, s[max(0, len(s)-4000):])
		}
	})
	return p
}

// kill ends the program and what it has started.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.in.Close()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// says waits until the program has printed text.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, p.name+" says "+text, func() bool {
		there := strings.Contains(p.out.String(), text)
		if !there && p.ended() {
			p.t.Fatalf("%s ended instead of saying %q:\n%s", p.name, text, p.out.String())
		}
		return there
	})
}

func (p *process) write(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		p.t.Fatalf("to %s: %v", p.name, err)
	}
}

// events are the lines of bridge --json so far whose event is one of names.
func (p *process) events(names ...string) (events []map[string]any) {
	for _, line := range strings.Split(p.out.String(), "\n") {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		if name, _ := e["event"].(string); slices.Contains(names, name) {
			events = append(events, e)
		}
	}
	return events
}

// output may be written to and read by several goroutines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
