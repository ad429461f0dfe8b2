package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// setenv sets env and takes everything else of AGENT_* away.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "AGENT_") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	if _, set := env["AGENT_STATUS_SOCKET"]; !set { // or the agents of a test would serve where the machine's own does
		t.Setenv("AGENT_STATUS_SOCKET", "off")
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

func TestHelp(t *testing.T) {
	setenv(t, map[string]string{"AGENT_NONSENSE": "does not matter to somebody who needs help"})
	for _, arg := range []string{"--help", "-h", "help"} {
		var out, errOut bytes.Buffer
		if err := run(context.Background(), []string{arg}, nil, &out, &errOut); err != nil || errOut.Len() > 0 {
			t.Errorf("%s: %v, %q", arg, err, &errOut)
		}
		path := filepath.Join("testdata", "help.txt")
		if *update {
			if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s differs (go test -update writes it); got:\n%s", path, &out)
		}
	}
	var out bytes.Buffer
	if err := run(context.Background(), []string{"version"}, nil, &out, io.Discard); err != nil || !strings.HasPrefix(out.String(), "deviceagent ") {
		t.Errorf("version: %v, %q", err, &out)
	}
}

// Each fault by the variable's name, all of them at once, each once.
func TestFaults(t *testing.T) {
	good := func(change map[string]string) map[string]string {
		env := map[string]string{"AGENT_DEVICE_ID": "pump-7", "AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_SIGNALS": "fake"}
		for name, value := range change {
			env[name] = value
		}
		return env
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		args []string
		want []string
	}{
		{"an argument", good(nil), []string{"serve"}, []string{`unknown argument "serve"; settings come from the environment, see deviceagent --help`}},
		{"nothing is set", nil, nil, []string{"AGENT_HUB_CONNECTION_STRING: is missing", "AGENT_RELAY_HOSTS: is missing"}},
		{"no device", map[string]string{"AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_SIGNALS": "fake"}, nil, []string{"AGENT_DEVICE_ID: is missing"}},
		{"everything is wrong", map[string]string{
			"AGENT_DEVICE_ID": "pump 7", "AGENT_RELAY_HOSTS": "https://relay.example.com", "AGENT_SIGNALS": "smoke", "AGENT_TARGETS": "ssh=tcp:22",
			"AGENT_CA_FILE": "/nowhere/ca.pem", "AGENT_MAX_BRIDGES": "0", "AGENT_MAX_STREAMS": "many", "AGENT_DIAL_TIMEOUT": "-1s", "AGENT_WINDOW_MEMORY": "-1", "AGENT_LOG_FORMAT": "xml", "AGENT_TARGET": "echo",
		}, nil, []string{
			"AGENT_DEVICE_ID: has ' '", `AGENT_RELAY_HOSTS: "https://relay.example.com"`, `AGENT_SIGNALS: "smoke" is not known`, `AGENT_TARGETS: target "ssh=tcp:22" needs a host and a port`,
			"AGENT_CA_FILE: read certificates: open /nowhere/ca.pem", "AGENT_MAX_BRIDGES: 0 lets nobody in", `AGENT_MAX_STREAMS: "many"`, "AGENT_DIAL_TIMEOUT: -1s", "AGENT_WINDOW_MEMORY: -1 is no amount of memory", `AGENT_LOG_FORMAT: "xml"`,
			"AGENT_TARGET: is unknown; did you mean AGENT_TARGETS?",
		}},
		{"a hub elsewhere", good(map[string]string{"AGENT_FAKE_URL": "ws://192.0.2.1:7071"}), nil, []string{"AGENT_FAKE_URL: fake hub: 192.0.2.1:7071 is not a loopback address"}},
		{"the owner's word", good(map[string]string{
			"AGENT_TARGETS": "echo", "AGENT_SIGNAL_KEYS": "ed25519-private:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8,secret", "AGENT_PRINCIPALS": "ops,a b",
			"AGENT_TARGET_PRINCIPALS": "ssh=ops,echo=", "AGENT_KILL_SWITCH": "off",
		}), nil, []string{
			"AGENT_SIGNAL_KEYS: key 1 is a private key, which only the relay may have; take the public line of relay keygen, and make another key if this one was seen; key 2 does not start with",
			`AGENT_PRINCIPALS: "a b" has a space`, `AGENT_TARGET_PRINCIPALS: "echo" has no principal`, `AGENT_KILL_SWITCH: "off" is not a whole path`,
		}},
		{"the owner's word is empty", good(map[string]string{"AGENT_SIGNAL_KEYS": "", "AGENT_PRINCIPALS": " ", "AGENT_TARGET_PRINCIPALS": "", "AGENT_KILL_SWITCH": ""}), nil, []string{
			"AGENT_SIGNAL_KEYS: is set, but empty", "AGENT_PRINCIPALS: is set, but empty", "AGENT_TARGET_PRINCIPALS: is set, but empty", "AGENT_KILL_SWITCH: is set, but empty",
		}},
		{"a limit on no target", good(map[string]string{"AGENT_TARGET_PRINCIPALS": "ssh=ops"}), nil, []string{`AGENT_TARGET_PRINCIPALS: there is no target named "ssh"`}},
		{"a switch nowhere", good(map[string]string{"AGENT_KILL_SWITCH": "/nowhere/at/all"}), nil, []string{"AGENT_KILL_SWITCH: its folder cannot be read: stat /nowhere/at: no such file or directory"}},
		{"two targets", good(map[string]string{"AGENT_TARGETS": "web=tcp:a:1,web=unix:/x,nonsense"}), nil, []string{`target "web=unix:/x" has a name that is there already`, `target "nonsense" is neither`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, tt.env)
			var out, errOut bytes.Buffer
			err := run(context.Background(), tt.args, nil, &out, &errOut)
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range tt.want {
				if n := strings.Count(err.Error(), want); n != 1 {
					t.Errorf("%q is there %d times, want once:\n%v", want, n, err)
				}
			}
			if tt.env["AGENT_LOG_FORMAT"] != "" && strings.Count(err.Error(), "\n  AGENT_") != len(tt.want) {
				t.Errorf("want %d faults:\n%v", len(tt.want), err)
			}
			if out.Len()+errOut.Len() > 0 {
				t.Errorf("printed %q %q", &out, &errOut)
			}
		})
	}
}

// The daemon beside a relay with TLS of a private CA: a target that is there,
// one that is not, one that is not listed; then SIGTERM.
func TestServe(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello from the device\n")
			c.Close()
		}
	}()
	r := newRig(t, true)
	log := r.agent(t, map[string]string{"AGENT_CA_FILE": r.ca, "AGENT_TARGETS": "hello=tcp:" + target.Addr().String() + ",down=tcp:127.0.0.1:1"})
	sess, err := r.dial("hello", "down")
	if err != nil {
		t.Fatal(err)
	}
	st, err := sess.Open(r.ctx, "hello")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(st); string(got) != "hello from the device\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := sess.Open(r.ctx, "down"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: connection refused") {
		t.Errorf("a target that is down: %v", err)
	}
	if _, err := r.dial("ssh"); !refusedAs(err, "target_not_allowed") {
		t.Errorf("a target that is not listed: %v", err)
	}
	raise(t, syscall.SIGTERM)
	r.wait(t)
	select {
	case <-sess.Done():
	case <-time.After(patience):
		t.Error("the session lives on")
	}
	sess.Close()
	for _, secret := range []string{"bridgeToken", "acceptUrl"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
}

// Without the CA the device does not dial, and whoever asked hears of it.
func TestServeWithoutCA(t *testing.T) {
	r := newRig(t, true)
	log := r.agent(t, map[string]string{"AGENT_TARGETS": "echo"})
	var e *client.Error
	if _, err := r.dial("echo"); !errors.As(err, &e) || e.Code != wire.DialBackTimeout {
		t.Errorf("got %v", err)
	}
	log.wait(t, "certificate signed by unknown authority")
	r.stop()
	r.wait(t)
}

// An agent that allows nothing says so, and refuses.
func TestServeNothing(t *testing.T) {
	r := newRig(t, false)
	log := r.agent(t, nil)
	log.wait(t, "AGENT_TARGETS is empty")
	if _, err := r.dial("echo"); !refusedAs(err, "target_not_allowed") {
		t.Errorf("got %v", err)
	}
	r.stop()
	r.wait(t)
}

// A relay that is not on the list is not dialled.
func TestServeOtherRelay(t *testing.T) {
	r := newRig(t, false)
	r.agent(t, map[string]string{"AGENT_TARGETS": "echo", "AGENT_RELAY_HOSTS": "relay.example.com"})
	if _, err := r.dial("echo"); !refusedAs(err, "relay_not_allowed") {
		t.Errorf("got %v", err)
	}
	r.stop()
	r.wait(t)
}

func refusedAs(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == wire.DeviceRefused && e.DeviceCode == code
}

// raise sends this process a signal.
func raise(t *testing.T, sig os.Signal) {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}
