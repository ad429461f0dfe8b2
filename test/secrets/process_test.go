//go:build linux

package secrets_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

const patience = 30 * time.Second

var binaries = processtest.NewBinaries("websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge",
	"websocketbridge/deviceagent/cmd/deviceagent", "websocketbridge/test/emulator/cmd/emulator")

func TestMain(m *testing.M) { os.Exit(binaries.Run(m)) }

// launch starts a program; name is what the test calls it, its first word the program's.
func launch(t *testing.T, name string, env []string, args ...string) *processtest.Process {
	t.Helper()
	program, _, _ := strings.Cut(name, " ")
	cmd := exec.Command(binaries.Path(t, program), args...)
	cmd.Env = processtest.BareEnv(append(env, "GOTRACEBACK=system")...)
	return processtest.Start(t, cmd, processtest.Config{Name: name, Patience: patience, Apart: true})
}

// fails wants a failure, which one does not matter.
func fails(p *processtest.Process) {
	p.T.Helper()
	p.Awaits("exits", p.Ended)
	if p.ExitCode() == 0 {
		p.Errorf("%s did not fail", p.Name)
	}
}

// listed is what a process list shows of it: to everybody its arguments, to its user its
// environment. One that has ended already was given no others than it was started with.
func listed(p *processtest.Process) string {
	p.T.Helper()
	all := strings.Join(append(slices.Clone(p.Cmd.Args), p.Cmd.Env...), "\n") + "\n"
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/" + file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			p.T.Fatalf("%s of %s: %v", file, p.Name, err)
		}
		all += string(bytes.ReplaceAll(b, []byte{0}, []byte{'\n'}))
	}
	return all
}

// dump ends it with all its goroutines on standard error.
func dump(p *processtest.Process) {
	p.T.Helper()
	if n := strings.Count(p.Dump(), "\ngoroutine "); n < 3 {
		p.Errorf("%s has dumped %d goroutines", p.Name, n)
	}
}
