// Package processtest starts programs for a test, waits for what they print, and ends
// them with it. Who waits is woken when the program prints something or ends.
package processtest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process"
)

// Config says how a test has a program.
type Config struct {
	Name     string        // in messages; empty: the file's
	Patience time.Duration // that bounds every wait for what has to come; 0: 30s
	Apart    bool          // standard error is not among the output
	Quiet    bool          // what it said is logged only if the test failed by it, and not by another program
}

// A Process is a program that runs until the test ends.
type Process struct {
	T        testing.TB
	Name     string
	Cmd      *exec.Cmd
	In       io.WriteCloser // stays open until the program ends
	Out, Err *Output        // one and the same, unless they are apart

	patience time.Duration
	quiet    atomic.Bool
	asked    atomic.Bool // to end
	dumped   atomic.Bool
	done     chan struct{} // closed when it has ended
}

// Start starts a program that nothing but path, arguments, environment and folder is set
// of; without an environment it gets a clean one. With the test it is killed, and on
// Linux its children are, too, also when the test is killed itself.
func Start(t testing.TB, cmd *exec.Cmd, cfg Config) *Process {
	t.Helper()
	p := &Process{T: t, Name: cfg.Name, Cmd: cmd, Out: new(Output), patience: cfg.Patience, done: make(chan struct{})}
	if p.Name == "" {
		p.Name = filepath.Base(cmd.Path)
	}
	if p.patience == 0 {
		p.patience = 30 * time.Second
	}
	p.quiet.Store(cfg.Quiet)
	if p.Err = p.Out; cfg.Apart {
		p.Err = new(Output)
	}
	if cmd.Env == nil {
		cmd.Env = CleanEnv()
	}
	cmd.Stdout, cmd.Stderr = p.Out, p.Err
	process.Own(cmd)
	var err error
	if p.In, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	go func() { // ends with the program, for which the cleanup waits
		cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() && !p.quiet.Load() {
			t.Logf("%s said at last:\n%s", p.Name, p.last())
		}
	})
	return p
}

func (p *Process) end() {
	process.Kill(p.Cmd.Process)
	p.In.Close()
	<-p.done
}

// String is all that it has printed.
func (p *Process) String() string {
	if p.Err == p.Out {
		return p.Out.String()
	}
	return p.Out.String() + p.Err.String()
}

// last is the end of what it has printed of itself.
func (p *Process) last() string {
	text := p.String()
	if p.dumped.Load() {
		text, _, _ = strings.Cut(text, dumpHead)
	}
	return Tail(text)
}

// Tail is the end of a text: a log that can be read.
func Tail(text string) string {
	const most = 16 << 10
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	return text
}

// PID is the number of the process.
func (p *Process) PID() int { return p.Cmd.Process.Pid }

// Done is closed when it has ended and all of its output is there.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended says whether it has.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ExitCode is that of a program that has ended; -1: of a signal.
func (p *Process) ExitCode() int { return p.Cmd.ProcessState.ExitCode() }

// fatalf fails the test by this program.
func (p *Process) fatalf(format string, args ...any) {
	p.T.Helper()
	p.quiet.Store(false)
	p.T.Fatalf(format, args...)
}

// Errorf fails the test by this program, and lets it go on.
func (p *Process) Errorf(format string, args ...any) {
	p.T.Helper()
	p.quiet.Store(false)
	p.T.Errorf(format, args...)
}

// Write sends text to its input.
func (p *Process) Write(text string) {
	p.T.Helper()
	if _, err := io.WriteString(p.In, text); err != nil {
		p.fatalf("to %s: %v", p.Name, err)
	}
}

// Signal sends a signal to a program that has to be there.
func (p *Process) Signal(s os.Signal) {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.fatalf("%v to %s: %v", s, p.Name, err)
	}
}

// Kill is kill -9 of a program that has to be there, and returns when it is gone.
func (p *Process) Kill() {
	p.T.Helper()
	p.Signal(syscall.SIGKILL)
	p.end()
}

// MustRun fails the test if the program has ended.
func (p *Process) MustRun() {
	p.T.Helper()
	if p.Ended() {
		p.fatalf("%s has ended: %v", p.Name, p.Cmd.ProcessState)
	}
}

// Awaits waits until ok, which is asked again when the program has printed something and
// when it has ended. The words are what it then does.
func (p *Process) Awaits(words string, ok func() bool) {
	p.T.Helper()
	p.AwaitsWithin(p.patience, words, ok)
}

// AwaitsWithin is Awaits for what has to come in time.
func (p *Process) AwaitsWithin(limit time.Duration, words string, ok func() bool) {
	p.T.Helper()
	late := time.NewTimer(limit)
	defer late.Stop()
	for ended := false; ; {
		out, err := p.Out.More(), p.Err.More() // before the look: nothing is missed between the two
		if ok() {
			return
		}
		if ended {
			p.fatalf("%s has ended (%v), and not: %s", p.Name, p.Cmd.ProcessState, words)
		}
		select {
		case <-out:
		case <-err:
		case <-p.done:
			ended = true // once more: it may have said so before it ended
		case <-late.C:
			p.fatalf("not within %v: %s %s", limit.Round(time.Millisecond), p.Name, words)
		}
	}
}

// Says waits until it has printed text.
func (p *Process) Says(text string) {
	p.T.Helper()
	p.Awaits(fmt.Sprintf("says %q", text), func() bool { return strings.Contains(p.String(), text) })
}

// SaysTimes waits until it has printed text so often.
func (p *Process) SaysTimes(text string, n int) {
	p.T.Helper()
	p.Awaits(fmt.Sprintf("says %q, %d times", text, n), func() bool { return strings.Count(p.String(), text) >= n })
}

// SaysOn waits until it has printed text on one of its outputs, which are apart.
func (p *Process) SaysOn(o *Output, text string) {
	p.T.Helper()
	p.Awaits(fmt.Sprintf("says %q", text), func() bool { return strings.Contains(o.String(), text) })
}

// Exits waits for the end, and wants one of the exit codes.
func (p *Process) Exits(codes ...int) {
	p.T.Helper()
	p.ExitsWithin(p.patience, codes...)
}

// ExitsWithin is Exits for an end that has to come in time.
func (p *Process) ExitsWithin(limit time.Duration, codes ...int) {
	p.T.Helper()
	p.AwaitsWithin(limit, "exits", p.Ended)
	if got := p.ExitCode(); !slices.Contains(codes, got) {
		p.Errorf("%s exited with %d, want %v", p.Name, got, codes)
	}
}

// Terminate asks the program to end.
func (p *Process) Terminate() {
	p.asked.Store(true)
	p.Cmd.Process.Signal(syscall.SIGTERM)
}

// CloseInput asks a program to end that does when its input does.
func (p *Process) CloseInput() {
	p.asked.Store(true)
	p.In.Close()
}

// Stop asks the program to end, by Terminate or CloseInput, and returns when it has. To
// take a kill is an error, and a Go program then says where it hangs.
func (p *Process) Stop(ask func()) {
	p.T.Helper()
	ask()
	late := time.NewTimer(p.patience)
	defer late.Stop()
	select {
	case <-p.done:
		return
	case <-late.C:
	}
	p.Errorf("%s did not end within %v of being asked to", p.Name, p.patience)
	p.Cmd.Process.Signal(syscall.SIGQUIT)
	late.Reset(5 * time.Second)
	select {
	case <-p.done:
	case <-late.C:
		p.end()
	}
}

// Lasts wants the program to be there until the test ends or has asked it to end, and
// then to end with code 0; and one that was built to look for data races not to see any.
func (p *Process) Lasts(ask func()) {
	p.T.Cleanup(func() {
		if p.Ended() && !p.asked.Load() {
			p.Errorf("%s ended by itself: %v", p.Name, p.Cmd.ProcessState)
		}
		p.Stop(ask)
		if p.ExitCode() != 0 {
			p.Errorf("%s, asked to end: %v", p.Name, p.Cmd.ProcessState)
		}
		if strings.Contains(p.Err.String(), "DATA RACE") {
			p.Errorf("%s has a data race", p.Name)
		}
	})
}

const dumpHead = "SIGQUIT: quit"

// Dump ends a Go program and returns what it then says: all of its goroutines. That is not
// what the test logs of it.
func (p *Process) Dump() string {
	p.T.Helper()
	p.dumped.Store(true)
	p.Signal(syscall.SIGQUIT)
	p.Awaits("ends with a dump", p.Ended)
	_, dump, _ := strings.Cut(p.Err.String(), dumpHead)
	return dump
}
