//go:build clients

package azure

import (
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeEnv is the environment of node, with the hub's name and CA known.
func nodeEnv(caFile string, more ...string) []string {
	return environ(append([]string{
		"NODE_OPTIONS=--require ./names.cjs", "HUB_ADDRESS=" + hubName + "=" + hubAddress, "NODE_EXTRA_CA_CERTS=" + caFile,
	}, more...)...)
}

// subject runs the tests of node/NAME.mjs as subtests.
func subject(t *testing.T, w world, caFile, name string, args ...string) {
	t.Helper()
	b, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", append([]string{"run.mjs", name}, args...)...)
	cmd.Dir = nodeDir
	cmd.Env = nodeEnv(caFile, "WORLD="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, stderr := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const most = 2 * time.Minute // lib.mjs gives each test one, and they run side by side
	late := time.AfterFunc(most, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !late.Stop() {
		t.Errorf("node run.mjs %s did not end within %v", name, most)
	} else if err != nil {
		t.Errorf("node run.mjs %s: %v", name, err)
	}
	if testing.Verbose() {
		t.Logf("%s", stdout)
	}
	type line struct {
		Test, Error string
		MS          int
	}
	lines := jsonLines[line](stdout)
	if len(lines) == 0 {
		t.Error("no test was run")
	}
	for _, l := range lines {
		t.Run(l.Test, func(t *testing.T) {
			if l.Error != "" {
				t.Errorf("after %d ms: %s", l.MS, l.Error)
			}
		})
	}
	if s := strings.TrimSpace(stderr.String()); s != "" {
		t.Logf("node says\n%s", tail(s))
	}
}
