//go:build clients

package azure

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

// nodeEnv is the environment of node, with the hub's name and CA known.
func nodeEnv(caFile string, more ...string) []string {
	return processtest.BareEnv(append([]string{
		"NODE_OPTIONS=--require ./names.cjs", "HUB_ADDRESS=" + hubName + "=" + hubAddress, "NODE_EXTRA_CA_CERTS=" + caFile,
	}, more...)...)
}

// subject runs the tests of node/NAME.mjs as subtests.
func subject(t *testing.T, w world, caFile, name string, args ...string) {
	t.Helper()
	runSubject(w, caFile, name, args...).report(t)
}

// An outcome is what a subject came to.
type outcome struct {
	name           string
	stdout, stderr *processtest.Output
	err            error // it did not run to its end
}

func runSubject(w world, caFile, name string, args ...string) outcome {
	o := outcome{name: name, stdout: new(processtest.Output), stderr: new(processtest.Output)}
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // of strings
	}
	cmd := exec.Command("node", append([]string{"run.mjs", name}, args...)...)
	cmd.Dir = nodeDir
	cmd.Env = nodeEnv(caFile, "WORLD="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = o.stdout, o.stderr
	if o.err = cmd.Start(); o.err != nil {
		return o
	}
	const most = 2 * time.Minute // lib.mjs gives each test one, and they run side by side
	late := time.AfterFunc(most, func() { cmd.Process.Kill() })
	o.err = cmd.Wait()
	if !late.Stop() {
		o.err = fmt.Errorf("it did not end within %v", most)
	}
	return o
}

func (o outcome) report(t *testing.T) {
	t.Helper()
	if o.err != nil {
		t.Errorf("node run.mjs %s: %v", o.name, o.err)
	}
	type line struct {
		Test, Error string
		MS          int
	}
	lines := processtest.JSON[line](o.stdout)
	if len(lines) == 0 {
		t.Error("no test was run")
	}
	for _, l := range lines {
		t.Run(l.Test, func(t *testing.T) {
			t.Logf("took %d ms in node", l.MS)
			if l.Error != "" {
				t.Error(l.Error)
			}
		})
	}
	if s := strings.TrimSpace(o.stderr.String()); s != "" {
		t.Logf("node says\n%s", processtest.Tail(s))
	}
}
