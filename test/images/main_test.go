//go:build images && linux

// Package images_test builds the Dockerfile and runs infra/compose.yaml with what comes out:
// containers of runc with networks of their own, without a registry and without Docker.
// It wants root, buildah, runc, busybox (static), iproute2, caddy and OpenSSH with its server:
//
//	go test -tags images -count=1 ./test/images
//
// This machine's Go stands in for the image that has one, and this machine's Caddy for
// Caddy's. What the real ones hold is not seen. All of the rest is as the files say.
package images_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"websocketbridge/test/process/processtest"
)

// patience bounds every wait for a state. It measures nothing.
const patience = 60 * time.Second

// store holds the images.
var store string

func TestMain(m *testing.M) {
	os.Exit(processtest.Inside(m, "IMAGES_INSIDE", build, furnish))
}

// The network of the containers, and this process in it.
const (
	network  = "10.77.0."
	hostAddr = network + "1"
)

// furnish makes the network, with a switch that containers are plugged into, and this process
// the one that is told how they end.
func furnish(dir string) error {
	store = dir
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "name", "containers", "type", "bridge"},
		{"addr", "add", hostAddr + "/24", "dev", "containers"},
		{"link", "set", "containers", "up"},
	} {
		if err := command("ip", args...); err != nil {
			return err
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return os.Mkdir("/run/sshd", 0o755) // what an init script does before it starts sshd
}

func command(path string, args ...string) error {
	_, err := output(path, args...)
	return err
}

func output(path string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return string(out), nil
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	processtest.Until(t, patience, what, is)
}

// root is the top of the repository.
var root, _ = filepath.Abs("../..")
