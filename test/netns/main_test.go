//go:build netns && linux

// Package netns_test runs the programs as separate processes in network namespaces
// with addresses of their own, cuts networks, kills nodes and starts them again. It
// wants root and iproute2:
//
//	go test -tags netns -count=1 ./test/netns
//
// NETNS_IDLE (60) and NETNS_BUSY (6) are how many tunnels live through the rolling
// restart, NETNS_TRANSFER (8s) is how long a busy one's transfer takes.
package netns_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

// patience bounds every wait for a state. It measures nothing.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if set := os.Getenv(frontEnv); set != "" { // this binary in a namespace of its own
		if err := runFront(set); err != nil {
			fmt.Fprintln(os.Stderr, "front:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); !given("test.parallel") {
		f.Value.Set("5") // nearly all of them wait for a timer
	}
	if err := able(); err != nil {
		fmt.Fprintln(os.Stderr, "test/netns:", err)
		os.Exit(1)
	}
	sweep()
	os.Exit(binaries.Run(m))
}

func given(name string) (yes bool) {
	flag.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

// able says why there can be no namespaces here. That is a failure, too: a suite
// that skips itself proves nothing.
func able() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("user %d cannot make network namespaces; run it as root", os.Geteuid())
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("there is no program ip; install iproute2: %w", err)
	}
	name := fmt.Sprintf("%s%d-able", prefix, os.Getpid())
	if err := run(nil, "ip", "netns", "add", name); err != nil {
		return fmt.Errorf("this machine lets root make no network namespace: %w", err)
	}
	defer run(nil, "ip", "netns", "del", name)
	if err := run(nil, "ip", "-n", name, "link", "add", "name", "br", "type", "bridge"); err != nil {
		return fmt.Errorf("this kernel has no Ethernet bridges: %w", err)
	}
	return nil
}

// prefix starts the names of our namespaces. The ID of the test's process follows.
const prefix = "wsbridge-"

// sweep removes the namespaces of a run that was killed. Its processes have ended
// with it.
func sweep() {
	names, _ := os.ReadDir("/run/netns") // missing: there was never one
	for _, n := range names {
		rest, ours := strings.CutPrefix(n.Name(), prefix)
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		if ours && err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			run(nil, "ip", "netns", "del", n.Name())
		}
	}
}

var binaries = processtest.NewBinaries("websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge",
	"websocketbridge/deviceagent/cmd/deviceagent", "websocketbridge/test/emulator/cmd/emulator")

// launch starts a program in a namespace. ip becomes the program, so that signals
// reach it.
func launch(t *testing.T, space string, cfg processtest.Config, env []string, path string, args ...string) *processtest.Process {
	t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", space, path}, args...)...)
	cmd.Env = processtest.CleanEnv(env...)
	cfg.Patience = patience
	return processtest.Start(t, cmd, cfg)
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	processtest.Until(t, patience, what, is)
}

func numberEnv(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number above 0", name, text)
	}
	return n
}

func durationEnv(t *testing.T, name string, def time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%q is not a duration, as 30s", name, text)
	}
	return d
}
