//go:build proxies && linux

// Package proxies_test puts the proxies of infra, Caddy and nginx, and some of its own
// that mean ill, between the programs, and looks whether tunnels live. Everything
// runs in a network and with mounts of its own, so that configuration files are used
// as they are. It wants root, iproute2, caddy, nginx, and OpenSSH with its server:
//
//	go test -tags proxies -count=1 ./test/proxies
//
// PROXIES_IDLE (3s) is how long an ssh session has nothing to say, PROXIES_BYTES
// (67108864) how much is sent each way, PROXIES_CUT (2s) after which silence a proxy cuts;
// relays ping twice as often, but at 20s and above every 15s, as they do by default.
package proxies_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process"
	"websocketbridge/test/process/processtest"
)

// patience bounds every wait for a state. It measures nothing.
const patience = 60 * time.Second

// bin holds relay, deviceagent, bridge and emulator.
var bin string

func TestMain(m *testing.M) {
	os.Exit(processtest.Inside(m, "PROXIES_INSIDE", build, furnish))
}

func build(dir string) error {
	return process.Build(context.Background(), dir, "websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge",
		"websocketbridge/deviceagent/cmd/deviceagent", "websocketbridge/test/emulator/cmd/emulator")
}

// relayHost is the name in nginx.conf.
const relayHost = "relay.example.com"

// furnish gives this process a loopback interface, names, and folders that the proxies
// may write to.
func furnish(dir string) error {
	bin = dir
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w\n%s", err, out)
	}
	hosts := filepath.Join(bin, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost "+relayHost+"\n::1 localhost\n"), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/hosts: %w", err)
	}
	for _, dir := range []string{"/var/log/nginx", "/run"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return os.Mkdir("/run/sshd", 0o755) // what an init script does before it starts sshd
}

func duration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text, set := os.LookupEnv(name)
	if !set {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

func number(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	text, set := os.LookupEnv(name)
	if !set {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	processtest.Until(t, patience, what, is)
}

// cleanEnv is what a process gets of ours: nothing that could be a setting or a proxy.
func cleanEnv(more ...string) []string {
	return processtest.BareEnv(append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(bin, "home")}, more...)...)
}

// launch starts a program, ours or another, which ends with the test.
func launch(t *testing.T, env []string, path string, args ...string) *processtest.Process {
	t.Helper()
	if slices.Contains([]string{"relay", "deviceagent", "bridge", "emulator"}, path) {
		path = filepath.Join(bin, path)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = cleanEnv(env...)
	return processtest.Start(t, cmd, processtest.Config{Patience: patience})
}

func run(t *testing.T, path string, args ...string) (out, errOut string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = cleanEnv()
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, o.String(), e.String())
	}
	return o.String(), e.String()
}
