//go:build linux

package secrets_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/testlog"
)

const patience = 30 * time.Second

// binaries builds the four programs.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "secrets")
	if err != nil {
		return "", err
	}
	built = dir
	cmd := exec.Command("go", "build", "-o", dir, "./relay/cmd/relay", "./relay/cmd/bridge", "./deviceagent/cmd/deviceagent", "./test/emulator/cmd/emulator")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

// built is where binaries has put them; empty: nobody asked.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// process is one program that a test started.
type process struct {
	t        *testing.T
	name     string
	cmd      *exec.Cmd
	in       io.WriteCloser
	out, err testlog.Buffer
	done     chan struct{}
}

// launch starts a program; name is what the test calls it, its first word the program's.
func launch(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	program, _, _ := strings.Cut(name, " ")
	p := &process{t: t, name: name, cmd: exec.Command(filepath.Join(dir, program), args...), done: make(chan struct{})}
	p.cmd.Env = append(cleanEnv(), append(env, "GOTRACEBACK=system")...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if p.in, err = p.cmd.StdinPipe(); err != nil { // its input stays open until it ends
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
		p.in.Close()
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			text := p.out.String() + p.err.String()
			t.Logf("%s has said last:\n%s", name, text[max(len(text)-4000, 0):])
		}
	})
	return p
}

// cleanEnv is the environment without settings of ours, proxies and whatever this machine
// has in it.
func cleanEnv() (env []string) {
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// says waits until the program has printed text n times.
func (p *process) says(text string, n int) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s says %q, %d times", p.name, text, n), func() bool {
		if strings.Count(p.out.String()+p.err.String(), text) >= n {
			return true
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s has ended before it said %q", p.name, text)
		default:
		}
		return false
	})
}

// ends waits for the end, and wants a failure where it said so.
func (p *process) ends(fails bool) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s goes on", p.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code == 0 == fails {
		p.t.Errorf("%s exited with %d", p.name, code)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// listed is what a process list shows of it: to everybody its arguments, to its user its
// environment. One that has ended already was given no others than it was started with.
func (p *process) listed() string {
	p.t.Helper()
	all := strings.Join(append(slices.Clone(p.cmd.Args), p.cmd.Env...), "\n") + "\n"
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/" + file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			p.t.Fatalf("%s of %s: %v", file, p.name, err)
		}
		all += string(bytes.ReplaceAll(b, []byte{0}, []byte{'\n'}))
	}
	return all
}

// dump ends it with all its goroutines on standard error.
func (p *process) dump() {
	p.t.Helper()
	p.signal(syscall.SIGQUIT)
	<-p.done
	if n := strings.Count(p.err.String(), "\ngoroutine "); n < 3 {
		p.t.Errorf("%s has dumped %d goroutines", p.name, n)
	}
}

// event waits for a line of bridge --json.
func (p *process) event(name string) map[string]any {
	p.t.Helper()
	var found map[string]any
	until(p.t, p.name+" has the event "+name, func() bool {
		for line := range strings.Lines(p.out.String() + p.err.String()) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil && e["event"] == name {
				found = e
			}
		}
		return found != nil
	})
	return found
}
