package processtest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Inside runs the tests where nobody else is: by this binary again, with a network and
// mounts of its own. The variable env names the folder that prepare fills outside, before,
// and furnish finds inside. That any of it cannot be is a failure, too: a suite that skips
// itself proves nothing.
func Inside(m *testing.M, env string, prepare, furnish func(dir string) error) int {
	if dir := os.Getenv(env); dir != "" {
		os.Unsetenv(env)
		if err := furnish(dir); err != nil {
			fmt.Fprintln(os.Stderr, "inside:", err)
			return 1
		}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "inside")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	inside := exec.Command("/proc/self/exe", os.Args[1:]...) // #nosec G204 -- it is this binary
	inside.Env = append(os.Environ(), env+"="+dir)
	inside.Stdin, inside.Stdout, inside.Stderr = os.Stdin, os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	err = inside.Run()
	if inside.ProcessState == nil {
		fmt.Fprintf(os.Stderr, "it takes root to make a network and mounts of its own: %v\n", err)
		return 1
	}
	return inside.ProcessState.ExitCode()
}
