//go:build linux

package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Config says what to start.
type Config struct {
	Path   string   // of the program
	Args   []string // without its name
	Env    []string // besides CleanEnv
	Output string   // file for its standard output and error; it must not exist
}

// A Process is one program that runs.
type Process struct {
	name   string
	output string
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	stop   sync.Once
}

// Start starts a program. What it prints goes to a file, as it does when a supervisor
// runs it: to read a pipe would cost whoever measures.
func Start(cfg Config) (*Process, error) {
	out, err := os.OpenFile(cfg.Output, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &Process{name: filepath.Base(cfg.Path), output: cfg.Output, cmd: exec.Command(cfg.Path, cfg.Args...), done: make(chan struct{})} // #nosec G204 -- to start programs is what it is for
	Own(p.cmd)
	p.cmd.Env = append(CleanEnv(), cfg.Env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { // ends with the process, for which Stop waits
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// lookEvery is how often Says looks at the file: there is nothing to wait on.
const lookEvery = 5 * time.Millisecond

// Says waits until what was printed matches, and returns the match and its groups.
func (p *Process) Says(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for ended := false; ; {
		said, err := os.ReadFile(p.output)
		if err != nil {
			return nil, err
		}
		if m := re.FindStringSubmatch(string(said)); m != nil {
			return m, nil
		}
		if ended {
			return nil, fmt.Errorf("%s ended with %v instead of saying %q; it said at last:\n%s", p.name, p.cmd.ProcessState, pattern, tail(said))
		}
		select {
		case <-p.done:
			ended = true // once more: it may have said so before it ended
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s to say %q: %w; it said at last:\n%s", p.name, pattern, context.Cause(ctx), tail(said))
		}
	}
}

func tail(b []byte) []byte { return bytes.TrimSpace(b[max(0, len(b)-2000):]) }

// Stop ends the program and its children: with SIGTERM, and with SIGKILL if it is still
// there after grace. It returns when it has ended.
func (p *Process) Stop(grace time.Duration) {
	p.stop.Do(func() {
		group := -p.cmd.Process.Pid
		syscall.Kill(group, syscall.SIGTERM)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
		}
		syscall.Kill(group, syscall.SIGKILL) // children may be left
	})
	<-p.done
}
