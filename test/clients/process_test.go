//go:build clients

package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process"
	"websocketbridge/test/process/processtest"
)

// start runs a program until the test is over, and then wants it to end when told to.
func start(t *testing.T, name string, env []string, path string, args ...string) *processtest.Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = env
	p := processtest.Start(t, cmd, processtest.Config{Name: name, Patience: patience, Apart: true})
	t.Cleanup(func() { p.Stop(p.Terminate) })
	return p
}

// startOurs runs relay, deviceagent or bridge. They live to the end of the test,
// end with code 0 when they are told to, and have not seen a data race where
// they were built to look for them.
func startOurs(t *testing.T, name string, env []string, args ...string) *processtest.Process {
	t.Helper()
	p := start(t, name, env, filepath.Join(bin, name), args...)
	p.Lasts(p.Terminate)
	return p
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
		t.Fatalf("%s %s did not end within %v\n%s%s", path, strings.Join(args, " "), most, processtest.Tail(stdout.String()), processtest.Tail(stderr.String()))
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
		t.Fatalf("%s %s: exit code %d\n%s%s", path, strings.Join(args, " "), c.exit, processtest.Tail(c.stdout), processtest.Tail(c.stderr))
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
	what := []string{"websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge", "websocketbridge/deviceagent/cmd/deviceagent"}
	if race {
		what = append([]string{"-race"}, what...)
	}
	if err := process.Build(context.Background(), bin, what...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
