//go:build clients

package azure

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/test/process/processtest"
)

// TestCommand has the SDKs use the emulator as people start it: the command, which
// writes its CA and its connection strings into files.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	ca, connections := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "hub.json")
	admin := freeAddr(t)
	waitForPorts(t)
	p := start(t, processtest.BareEnv(), "", filepath.Join(bin, "emulator"), "--listen", hubAddress, "--hostname", hubName, "--admin", admin,
		"--ca-out", ca, "--connections-out", connections, "--device", "pump-7", "--device", "pump-8/bridge", "--verbose")
	until(t, "the connection strings are there", func() error {
		_, err := os.Stat(connections)
		return err
	})
	b, err := os.ReadFile(connections)
	if err != nil {
		t.Fatal(err)
	}
	type connection struct{ Name, ConnectionString string }
	var hub struct {
		HostName          string
		Services, Devices []connection
	}
	if err := json.Unmarshal(b, &hub); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, admin)
	for _, c := range hub.Services {
		w.Policies[c.Name] = c.ConnectionString
	}
	if hub.HostName != hubName || len(w.Policies) != len(policies) {
		t.Fatalf("the hub is %q and has %d policies", hub.HostName, len(w.Policies))
	}
	w.Given = map[string]string{}
	for _, c := range hub.Devices {
		w.Given[c.Name] = c.ConnectionString
	}
	subject(t, w, ca, "given")
	subject(t, w, ca, "c2d", "Mqtt", "AmqpWs")

	for what, text := range map[string]string{"output": p.Out.String(), "log": p.Err.String()} {
		if strings.Contains(text, "SharedAccess") {
			t.Errorf("a connection string or a token is in the %s", what)
		}
	}
	if want := fmt.Sprintf("%s:8883", hubAddress); !strings.Contains(p.Out.String(), want) {
		t.Errorf("the output does not say %s:\n%s", want, p.Out)
	}
}
