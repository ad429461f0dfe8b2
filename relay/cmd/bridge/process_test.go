package main

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"websocketbridge/test/testlog"
)

var discard = log.New(io.Discard, "", 0)

// process is bridge in the background.
type process struct {
	cmd      *exec.Cmd
	out, err testlog.Buffer
	done     chan struct{}
}

func (l *lab) startProcess(ts *testscript.TestScript, args []string) {
	tty := args[0] == "-tty"
	if tty {
		args = args[1:]
	}
	p := &process{cmd: command(ts, args[1:]), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	closeTTY := func() {}
	if tty {
		closeTTY = p.openTTY(ts)
	} else { // its input stays open until it ends: without one, stdio would end by itself
		_, err := p.cmd.StdinPipe()
		ts.Check(err)
	}
	ts.Check(p.cmd.Start())
	go func() {
		p.cmd.Wait()
		closeTTY()
		close(p.done)
	}()
	if args, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/cmdline"); err == nil && l.key != "" && bytes.Contains(args, []byte(l.key)) {
		ts.Fatalf("the API key is in the process list")
	}
	l.procs[args[0]] = p
}

func (l *lab) process(ts *testscript.TestScript, name string) *process {
	p := l.procs[name]
	if p == nil {
		ts.Fatalf("there is no process %q", name)
	}
	return p
}

// expect waits until an output matches.
func (l *lab) expect(ts *testscript.TestScript, args []string) {
	p := l.process(ts, args[0])
	o := map[string]*testlog.Buffer{"stdout": &p.out, "stderr": &p.err}[args[1]]
	re := regexp.MustCompile("(?m)" + args[2])
	timeout := time.After(patience)
	for ended := false; ; {
		more := o.More() // before the look: nothing is missed between the two
		text := o.String()
		if m := re.FindStringSubmatch(text); m != nil {
			if len(args) > 3 {
				ts.Setenv(args[3], m[1])
			}
			return
		}
		if ended {
			ts.Fatalf("%s ended; %s:\n%s", args[0], args[1], text)
		}
		select {
		case <-more:
		case <-p.done:
			ended = true
		case <-timeout:
			ts.Fatalf("%s of %s is after %v:\n%s", args[1], args[0], patience, text)
		}
	}
}

func (l *lab) signal(ts *testscript.TestScript, args []string) {
	sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]
	ts.Check(l.process(ts, args[1]).cmd.Process.Signal(sig))
}

// finish waits for the end of a process and wants an exit code. Its output can
// then be compared.
func (l *lab) finish(ts *testscript.TestScript, args []string) {
	p := l.process(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s runs on\n[stdout]\n%s[stderr]\n%s", args[0], p.out.String(), p.err.String())
	}
	delete(l.procs, args[0])
	io.WriteString(ts.Stdout(), l.scrub(ts, p.out.String()))
	io.WriteString(ts.Stderr(), l.scrub(ts, p.err.String()))
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("exit code %s, want %s\n[stdout]\n%s[stderr]\n%s", got, args[1], p.out.String(), p.err.String())
	}
}

// asks sends a line to a local port, ends its side, and wants the line back: a
// half-close that crosses the bridge. With "reset" it wants to be cut off.
func (l *lab) asks(ts *testscript.TestScript, args []string) {
	line := strings.Join(args[1:], " ")
	c, err := net.Dial("tcp", args[0])
	if line == "reset" && errors.Is(err, syscall.ECONNRESET) { // it was that quick
		return
	}
	ts.Check(err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if line == "reset" {
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			ts.Fatalf("the connection was not reset: %v", err)
		}
		return
	}
	_, err = io.WriteString(c, line)
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	ts.Check(err)
	if string(got) != line {
		ts.Fatalf("got %q back, want %q", got, line)
	}
}
