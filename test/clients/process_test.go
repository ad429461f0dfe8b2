//go:build clients

package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output is what a process has written so far.
type output struct {
	mu      sync.Mutex // guards the two below
	buf     bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.buf.Write(p)
}

func (o *output) String() string {
	s, _ := o.now()
	return s
}

func (o *output) now() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}

// A process is one that the test started, and ends.
type process struct {
	t        *testing.T
	name     string
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{} // closed when it has ended; waitErr is set then
	waitErr  error
	stopOnce sync.Once
}

// start runs a program until the test is over.
func start(t *testing.T, name string, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(path, args...), out: newOutput(), err: newOutput(), done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // when the test itself is killed
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s wrote\n%s%s", name, tail(p.out.String()), tail(p.err.String()))
		}
	})
	return p
}

// stop ends the process politely, and fails the test if that takes a kill.
func (p *process) stop() {
	p.stopOnce.Do(func() {
		select {
		case <-p.done:
			return
		default:
		}
		p.cmd.Process.Signal(syscall.SIGTERM)
		late := time.NewTimer(patience)
		defer late.Stop()
		select {
		case <-p.done:
		case <-late.C:
			p.t.Errorf("%s did not end within %v of SIGTERM", p.name, patience)
			p.cmd.Process.Signal(syscall.SIGQUIT) // a Go program says where it hangs
			late.Reset(5 * time.Second)
			select {
			case <-p.done:
			case <-late.C:
				p.cmd.Process.Kill()
				<-p.done
			}
		}
	})
}

// startOurs runs relay, deviceagent or bridge. They live to the end of the test,
// end with code 0 when they are told to, and have not seen a data race where
// they were built to look for them.
func startOurs(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := start(t, name, env, filepath.Join(bin, name), args...)
	t.Cleanup(func() {
		select {
		case <-p.done:
			t.Errorf("%s ended by itself: %v", name, p.waitErr)
		default:
		}
		p.stop()
		if p.waitErr != nil {
			t.Errorf("%s after SIGTERM: %v", name, p.waitErr)
		}
		if strings.Contains(p.err.String(), "DATA RACE") {
			t.Errorf("%s has a data race", name)
		}
	})
	return p
}

// says waits until the process has written s.
func (p *process) says(o *output, s string) {
	p.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		got, changed := o.now()
		if strings.Contains(got, s) {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			if strings.Contains(o.String(), s) {
				return
			}
			p.t.Fatalf("%s ended before it said %q: %v", p.name, s, p.waitErr)
		case <-late.C:
			p.t.Fatalf("%s did not say %q within %v", p.name, s, patience)
		}
	}
}

// lines parses what was written as JSON lines, as far as it is whole.
func lines(o *output) (all []map[string]any) {
	s := o.String()
	for _, line := range strings.Split(s[:strings.LastIndexByte(s, '\n')+1], "\n") {
		var v map[string]any
		if json.Unmarshal([]byte(line), &v) == nil {
			all = append(all, v)
		}
	}
	return all
}

// tail keeps a log readable.
func tail(s string) string {
	const most = 8 << 10
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}

// tool finds a program that has to be installed.
func tool(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getuid() == 0 { // sbin may not be on the path
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is not installed; on Debian: apt-get install %s", name, debianPackage)
	}
	return path
}

// command is what a run of a program came to.
type command struct {
	stdout, stderr string
	exit           int
}

// run waits for a program that ends by itself.
func run(t *testing.T, env []string, stdin []byte, path string, args ...string) command {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	const most = 3 * time.Minute // scp of 64 MiB between race detectors
	late := time.AfterFunc(most, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%s %s did not end within %v\n%s%s", path, strings.Join(args, " "), most, tail(stdout.String()), tail(stderr.String()))
	}
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%s: %v", path, err)
	}
	return command{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is run for a program that has to end with code 0.
func must(t *testing.T, env []string, path string, args ...string) command {
	t.Helper()
	c := run(t, env, nil, path, args...)
	if c.exit != 0 {
		t.Fatalf("%s %s: exit code %d\n%s%s", path, strings.Join(args, " "), c.exit, tail(c.stdout), tail(c.stderr))
	}
	return c
}

// bin holds relay, deviceagent and bridge once TestMain has built them.
var bin string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "bin")
	nodeDir = filepath.Join(dir, "node")
	args := []string{"build", "-o", bin + "/"}
	if race {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../relay/cmd/relay", "../../relay/cmd/bridge", "../../deviceagent/cmd/deviceagent")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}
