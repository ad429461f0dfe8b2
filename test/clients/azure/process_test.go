//go:build clients

package azure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"websocketbridge/test/process"
	"websocketbridge/test/process/processtest"
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
	what := []string{"websocketbridge/relay/cmd/relay", "websocketbridge/deviceagent/cmd/deviceagent", "websocketbridge/test/emulator/cmd/emulator"}
	if race {
		what = append([]string{"-race"}, what...)
	}
	if err := process.Build(context.Background(), bin, what...); err != nil {
		fmt.Fprintln(os.Stderr, err)
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

// start runs a program until the test is over. It has to be there until then,
// and to end with code 0 on SIGTERM.
func start(t *testing.T, env []string, dir, path string, args ...string) *processtest.Process {
	t.Helper()
	p := launch(t, env, dir, path, args...)
	p.Lasts(p.Terminate)
	return p
}

// startPiped is start for a program that ends with code 0 when its input does,
// which the test may close before its end.
func startPiped(t *testing.T, env []string, dir, path string, args ...string) *processtest.Process {
	t.Helper()
	p := launch(t, env, dir, path, args...)
	p.Lasts(p.CloseInput)
	return p
}

func launch(t *testing.T, env []string, dir, path string, args ...string) *processtest.Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = env, dir
	return processtest.Start(t, cmd, processtest.Config{Patience: patience, Apart: true})
}

// until waits for a state; missing says why it is not there.
func until(t *testing.T, what string, missing func() error) {
	t.Helper()
	processtest.UntilNil(t, patience, what, missing)
}
