//go:build clients

package azure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen.
const patience = 30 * time.Second

// bin holds our programs, and nodeDir the scripts with the packages they need,
// once TestMain has made them.
var bin, nodeDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "azure")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin, nodeDir = filepath.Join(dir, "bin"), filepath.Join(dir, "node")
	args := []string{"build", "-o", bin + "/"}
	if race {
		args = append(args, "-race")
	}
	programs := []string{"relay/cmd/relay", "deviceagent/cmd/deviceagent", "test/emulator/cmd/emulator"}
	for _, p := range programs {
		args = append(args, "../../../"+p)
	}
	build := exec.Command("go", args...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	if err := installNode(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// installNode copies the scripts, since node_modules goes next to them.
func installNode() error {
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is not installed; on Debian: apt-get install nodejs npm", name)
		}
	}
	if err := os.CopyFS(nodeDir, os.DirFS("node")); err != nil {
		return err
	}
	// The environment stays: it may say where the registry is.
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
	npm.Dir = nodeDir
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", npm, err, out)
	}
	return nil
}

// environ is what a process gets of ours: nothing that could be a setting or a
// proxy.
func environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C.UTF-8", "TMPDIR=" + os.TempDir()}, more...)
}

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

func (o *output) now() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}

func (o *output) String() string {
	s, _ := o.now()
	return s
}

// jsonLines parses the whole lines of what was written, as far as they are JSON.
func jsonLines[T any](o *output) (all []T) {
	s := o.String()
	for line := range strings.Lines(s[:strings.LastIndexByte(s, '\n')+1]) {
		var v T
		if json.Unmarshal([]byte(line), &v) == nil {
			all = append(all, v)
		}
	}
	return all
}

// A process is one that a test started, and ends.
type process struct {
	t        *testing.T
	name     string
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{} // closed when it has ended; waitErr is set then
	waitErr  error
	asked    *atomic.Bool // to end, before the test's end; nil: nobody can
}

// start runs a program until the test is over. It has to be there until then,
// and to end with code 0 on SIGTERM.
func start(t *testing.T, env []string, dir, path string, args ...string) *process {
	t.Helper()
	p := newProcess(t, env, dir, path, args...)
	p.run(func() { p.cmd.Process.Signal(syscall.SIGTERM) })
	t.Cleanup(func() {
		if strings.Contains(p.err.String(), "DATA RACE") {
			t.Errorf("%s has a data race", p.name)
		}
	})
	return p
}

// startPiped is start for a program that ends with code 0 when its input does,
// which the test may close before its end.
func startPiped(t *testing.T, env []string, dir, path string, args ...string) (*process, io.Closer) {
	t.Helper()
	p := newProcess(t, env, dir, path, args...)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.asked = new(atomic.Bool)
	closer := closerFunc(func() error {
		p.asked.Store(true)
		return in.Close()
	})
	p.run(func() { closer.Close() })
	return p, closer
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func newProcess(t *testing.T, env []string, dir, path string, args ...string) *process {
	p := &process{t: t, name: filepath.Base(path), cmd: exec.Command(path, args...), out: newOutput(), err: newOutput(), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = env, dir
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // when the test itself is killed
	return p
}

// run starts the process, and has the test's end ask it to end.
func (p *process) run(ask func()) {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.done)
	}()
	p.t.Cleanup(func() {
		select {
		case <-p.done:
			if p.asked == nil || !p.asked.Load() {
				p.t.Errorf("%s ended by itself: %v", p.name, p.waitErr)
			}
		default:
			ask()
		}
		p.wait()
		if p.t.Failed() {
			p.t.Logf("%s wrote\n%s%s", p.name, tail(p.out.String()), tail(p.err.String()))
		}
	})
}

// wait is for a process that has been asked to end, and fails the test if it does
// not, or not well.
func (p *process) wait() {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.done:
		if p.waitErr != nil {
			p.t.Errorf("%s, asked to end: %v", p.name, p.waitErr)
		}
	case <-late.C:
		p.t.Errorf("%s did not end within %v of being asked to", p.name, patience)
		p.cmd.Process.Signal(syscall.SIGQUIT) // a Go program says where it hangs
		late.Reset(5 * time.Second)
		select {
		case <-p.done:
		case <-late.C:
			p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// mustRun fails the test if the process has ended.
func (p *process) mustRun() {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("%s has ended: %v", p.name, p.waitErr)
	default:
	}
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

// tail keeps a log readable.
func tail(s string) string {
	const most = 8 << 10
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}

// until waits for a state; f is asked again and again until then.
func until(t *testing.T, what string, f func() (bool, error)) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("waited %v until %s: %v", patience, what, err)
		}
	}
}
