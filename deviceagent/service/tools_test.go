package service_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"websocketbridge/deviceagent/service"
)

// need finds a tool of Debian's. CI has them all.
func need(t *testing.T, tool, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: apt-get install %s", tool, pkg)
	}
	t.Skipf("%s is missing: apt-get install %s", tool, pkg)
}

// maxExposure is of systemd-analyze security, from 0 to 10.
const maxExposure = 2.0

// systemd understands every line of the unit, and finds it hardened.
func TestSystemdAnalyze(t *testing.T) {
	need(t, "systemd-analyze", "systemd")
	root := t.TempDir()
	// systemd's own units, and a program to start.
	own := "/usr/lib/systemd/system"
	if _, err := os.Stat(own); err != nil {
		own = "/lib/systemd/system"
	}
	o := options(service.Systemd)
	o.Root = root
	if err := plan(t, service.Install, o).Do(&service.Machine{}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "usr/lib/systemd/system"), os.DirFS(own)); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(root, "etc/systemd/system/deviceagent.service")
	// It says of most faults no more than a line.
	said, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", "--root="+root, "deviceagent.service").CombinedOutput()
	if err != nil || len(said) > 0 {
		t.Errorf("verify: %v\n%s", err, said)
	}
	said, err = exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("security: %v\n%s", err, said)
	}
	found := regexp.MustCompile(`Overall exposure level for .*: ([0-9.]+)`).FindSubmatch(said)
	if found == nil {
		t.Fatalf("security says\n%s", said)
	}
	exposure, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil || exposure > maxExposure {
		t.Errorf("exposure %v, %v, want at most %v:\n%s", exposure, err, maxExposure, said)
	}
	t.Logf("exposure %v", exposure)
}

func TestShellcheck(t *testing.T) {
	need(t, "shellcheck", "shellcheck")
	for _, init := range []service.Init{service.OpenRC, service.Procd} {
		if said, err := exec.Command("shellcheck", filepath.Join("testdata", string(init)+".golden")).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", init, err, said)
		}
	}
}
