package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func change(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(context.Background(), args, nil, &out, io.Discard)
	return out.String(), err
}

// An agent that was tried by hand goes on as a service: into an image, again, and away.
func TestInstallRoot(t *testing.T) {
	root := t.TempDir()
	secret := filepath.Join(t.TempDir(), "device.txt")
	if err := os.WriteFile(secret, []byte(deviceString+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := map[string]string{"AGENT_HUB_CONNECTION_STRING_FILE": secret, "AGENT_RELAY_HOSTS": "relay.example.com", "AGENT_TARGETS": "echo", "HTTPS_PROXY": "http://proxy.example.com:3128"}
	setenv(t, try)
	if _, err := change(t, "install", "--root", root); err == nil || !strings.Contains(err.Error(), "none of systemd, OpenRC and procd was found below "+root) {
		t.Errorf("no init system: %v", err)
	}
	out, err := change(t, "install", "--root", root, "--init", "systemd")
	if err != nil || !strings.Contains(out, "the image needs a user deviceagent") {
		t.Fatalf("%v\n%s", err, out)
	}
	env := filepath.Join(root, "etc/deviceagent/env")
	want := settingsHead + "\nAGENT_HUB_CONNECTION_STRING=" + deviceString + "\nAGENT_RELAY_HOSTS=relay.example.com\nAGENT_STATUS_SOCKET=off\nAGENT_TARGETS=echo\nHTTPS_PROXY=http://proxy.example.com:3128\nAGENT_RETRY_TAKEN_OVER=10m\n"
	b, err := os.ReadFile(env)
	info, _ := os.Stat(env)
	if err != nil || string(b) != want || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v\n%s", err, info.Mode(), b)
	}
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/deviceagent.service"))
	if err != nil || strings.Contains(string(unit), sasKey) || !strings.Contains(string(unit), "ExecStart=/usr/local/bin/deviceagent\n") {
		t.Errorf("%v\n%s", err, unit)
	}
	if info, err := os.Stat(filepath.Join(root, "usr/local/bin/deviceagent")); err != nil || info.Size() < 1<<20 || info.Mode().Perm() != 0o755 {
		t.Errorf("the program: %v, %v", info, err)
	}
	// Later, from an empty environment.
	setenv(t, nil)
	if out, err := change(t, "install", "--root", root, "--init", "systemd"); err != nil || strings.Contains(out, "done ") {
		t.Errorf("again: %v\n%s", err, out)
	}
	setenv(t, nil)
	if _, err := change(t, "uninstall", "--root", root, "--init", "systemd"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(env); err != nil || string(b) != want {
		t.Errorf("uninstall took the settings: %v", err)
	}
	if _, err := change(t, "uninstall", "--root", root, "--init", "systemd", "--purge"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(env)); !os.IsNotExist(err) {
		t.Errorf("purge left the settings: %v", err)
	}
}

// Nothing is set yet: the settings wait for the owner.
func TestInstallEmpty(t *testing.T) {
	root := t.TempDir()
	setenv(t, map[string]string{"AGENT_STATUS_SOCKET": "off"})
	os.Unsetenv("AGENT_STATUS_SOCKET")
	if out, err := change(t, "install", "--root", root, "--init", "openrc"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(root, "etc/deviceagent/env"))
	if err != nil || string(b) != settingsHead+settingsWanted+"AGENT_RETRY_TAKEN_OVER=10m\n" {
		t.Errorf("%v\n%s", err, b)
	}
}

// What would be done is shown without doing it, for any init system, by anybody.
func TestInstallShown(t *testing.T) {
	for _, init := range []string{"systemd", "openrc", "procd", "launchd", "windows"} {
		setenv(t, map[string]string{"AGENT_HUB_CONNECTION_STRING": deviceString, "AGENT_RELAY_HOSTS": "relay.example.com", "AGENT_TARGETS": "echo"})
		out, err := change(t, "install", "--init", init, "--dry-run")
		if err != nil || !strings.Contains(out, "would ") || !strings.Contains(out, "how it fares") || strings.Contains(out, sasKey) {
			t.Errorf("%s: %v\n%s", init, err, out)
		}
		setenv(t, nil)
		if out, err = change(t, "install", "--init", init, "--print"); err != nil || !strings.Contains(out, "deviceagent") || strings.Contains(out, "would") {
			t.Errorf("%s: %v\n%s", init, err, out)
		}
		setenv(t, nil)
		if out, err = change(t, "install", "--init", init, "--dry-run"); err != nil || !strings.Contains(out, "not started") || !strings.Contains(out, "AGENT_HUB_CONNECTION_STRING: is missing") {
			t.Errorf("%s without settings: %v\n%s", init, err, out)
		}
	}
}

func TestInstallFaults(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{[]string{"install", "now"}, nil, `install: unknown argument "now"`},
		{[]string{"install", "--purge"}, nil, "flag provided but not defined: -purge"},
		{[]string{"uninstall", "--print"}, nil, "flag provided but not defined: -print"},
		{[]string{"install", "--init", "runit"}, nil, `init system "runit" is not known`},
		{[]string{"install", "--root", "/nowhere/at/all"}, nil, "install: --root: stat /nowhere/at/all"},
		{[]string{"install", "--init", "systemd", "--user", "a b", "--dry-run"}, nil, `user "a b" is no name`},
		{[]string{"install", "--init", "systemd", "--program", "/opt/a b", "--dry-run"}, nil, `program "/opt/a b" is not a whole path`},
		{[]string{"install", "--init", "systemd", "--dry-run"}, map[string]string{"AGENT_HUB_CONNECTION_STRING": "a\nb'"}, "AGENT_HUB_CONNECTION_STRING has a value that cannot be in a file"},
	} {
		setenv(t, tt.env)
		if out, err := change(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s\n%s", tt.args, err, tt.want, out)
		}
	}
}
