package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ask runs deviceagent status and returns what it printed and its exit status.
func ask(t *testing.T, args ...string) (out string, code int, err error) {
	t.Helper()
	var b bytes.Buffer
	err = run(context.Background(), append([]string{"status"}, args...), nil, &b, io.Discard)
	if err != nil {
		code = exitStatus(err)
	}
	return b.String(), code, err
}

// A person beside the device, a script, and a healthcheck.
func TestShowStatus(t *testing.T) {
	at := filepath.Join(t.TempDir(), "status.sock")
	if _, code, err := ask(t, "--socket", at); code != exitNotRunning || !strings.Contains(err.Error(), "no agent answers at "+at) {
		t.Errorf("before: %d, %v", code, err)
	}
	r := newRig(t, false)
	r.agent(t, map[string]string{"AGENT_TARGETS": "echo", "AGENT_STATUS_SOCKET": at})
	sess, err := r.dial("echo")
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	if _, err := sess.Ping(t.Context()); err != nil { // the agent has been told that the bridge is open
		t.Fatal(err)
	}
	out, code, err := ask(t) // where AGENT_STATUS_SOCKET says
	for _, want := range []string{"device         pump-7", "connected to fake ws://" + r.hubAt, "remote access  on", "1 open, 0 dialing, 1 opened", "to echo for "} {
		if code != 0 || err != nil || !strings.Contains(out, want) {
			t.Errorf("%d, %v, no %q in\n%s", code, err, want, out)
		}
	}
	out, code, err = ask(t, "--json", "--socket="+at)
	var got struct{ DeviceID string }
	if code != 0 || err != nil || json.Unmarshal([]byte(out), &got) != nil || got.DeviceID != "pump-7" {
		t.Errorf("--json: %d, %v, %s", code, err, out)
	}
	if out, code, err := ask(t, "--quiet"); code != 0 || err != nil || out != "" {
		t.Errorf("--quiet: %d, %v, %q", code, err, out)
	}
	for _, args := range [][]string{{"--verbose"}, {"--socket"}, {"--socket", "s"}, {"--json=yes"}} {
		if _, code, err := ask(t, args...); code != exitCannotTell || err.Error() == "" {
			t.Errorf("%q: %d, %v", args, code, err)
		}
	}
	if strings.Contains(out, "bridgeToken") {
		t.Error("a token is told")
	}
	r.stop()
	r.wait(t)
	if _, code, _ := ask(t); code != exitNotRunning {
		t.Errorf("after: %d", code)
	}
}

// An agent whose hub is away runs, and is not connected.
func TestShowStatusNotConnected(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	at := filepath.Join(t.TempDir(), "status.sock")
	setenv(t, map[string]string{"AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_TARGETS": "echo", "AGENT_HUB_CONNECTION_STRING": deviceString, "AGENT_HUB_ADDR": addr, "AGENT_STATUS_SOCKET": at})
	ctx, stop := context.WithCancel(context.Background())
	log, ended := &logged{}, make(chan error, 1)
	go func() { ended <- run(ctx, nil, nil, io.Discard, log) }()
	log.wait(t, "the hub is not reached")
	out, code, err := ask(t)
	if code != exitNotConnected || err == nil || err.Error() != "" || !strings.Contains(out, "not connected to hub "+addr) || !strings.Contains(out, "connection refused") {
		t.Errorf("%d, %v\n%s", code, err, out)
	}
	if strings.Contains(out, sasKey) {
		t.Errorf("the key is told:\n%s", out)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A socket that somebody has named has to be had, and nobody else's file is touched.
func TestStatusSocketTaken(t *testing.T) {
	at := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	setenv(t, map[string]string{"AGENT_DEVICE_ID": "pump-7", "AGENT_SIGNALS": "fake", "AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_STATUS_SOCKET": at})
	if err := run(context.Background(), nil, nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "AGENT_STATUS_SOCKET: listen on "+at+": there is a file that is no socket") {
		t.Errorf("got %v", err)
	}
	t.Setenv("AGENT_STATUS_SOCKET", "here")
	t.Setenv("AGENT_RETRY_TAKEN_OVER", "1s")
	err := run(context.Background(), nil, nil, io.Discard, io.Discard)
	for _, want := range []string{`AGENT_STATUS_SOCKET: "here" is not a whole path`, "AGENT_RETRY_TAKEN_OVER: 1s would go on with the fight"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// systemd hears that the agent is ready when signals are heard, how it fares, that it
// lives, and that it stops.
func TestNotify(t *testing.T) {
	at := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	heard := ""
	wait := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		for !strings.Contains(heard, want) {
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("no %q in %q: %v", want, heard, err)
			}
			heard += string(b[:n]) + "\n"
		}
	}
	t.Setenv("NOTIFY_SOCKET", at)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "")
	r := newRig(t, false)
	r.agent(t, map[string]string{"AGENT_TARGETS": "echo"})
	wait("READY=1\nSTATUS=connected to fake")
	wait("WATCHDOG=1")
	if i := strings.Index(heard, "READY=1"); strings.Contains(heard[:i], "STATUS=connected") {
		t.Errorf("ready too late: %q", heard)
	}
	r.stop()
	wait("STOPPING=1")
	r.wait(t)
}

// Settings come from a file for service managers that cannot read one; what is set
// already stays.
func TestEnvFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "env")
	if err := os.WriteFile(file, []byte("# comment\nAGENT_SIGNALS=fake\nAGENT_DEVICE_ID=\"pump 8\"\nAGENT_RELAY_HOSTS='127.0.0.1'\nAGENT_TARGETS=web\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AGENT_SIGNALS", "AGENT_DEVICE_ID", "AGENT_RELAY_HOSTS"} {
		t.Setenv(name, "") // so that they are as they were afterwards
	}
	for _, args := range [][]string{{"--env-file", file}, {"--env-file=" + file}} {
		setenv(t, map[string]string{"AGENT_TARGETS": "ssh"})
		err := run(context.Background(), args, nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "AGENT_DEVICE_ID: has ' '") || !strings.Contains(err.Error(), `target "ssh" is neither`) {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--env-file"}, "--env-file takes a file"},
		{[]string{"--env-file", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"--env-file", file, "serve"}, `unknown argument "serve"`},
	} {
		setenv(t, nil)
		if err := run(context.Background(), tt.args, nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

func TestExitStatus(t *testing.T) {
	if got := exitStatus(&statusError{code: exitNotRunning}); got != exitNotRunning {
		t.Error(got)
	}
	if got := exitStatus(errors.New("x")); got != exitFault {
		t.Error(got)
	}
}
