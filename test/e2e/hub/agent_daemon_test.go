package hub_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/emulator"
	"websocketbridge/test/process/processtest"
)

// daemon starts program, the command deviceagent as its owner runs it, with env and
// nothing else of AGENT_*, and waits until it says text.
func (l *agentLab) daemon(program string, text string, env ...string) *processtest.Process {
	l.Helper()
	cmd := exec.Command(program)
	cmd.Env = append([]string{"AGENT_RELAY_HOSTS=127.0.0.1", "AGENT_TARGETS=echo"}, env...)
	p := processtest.Start(l, cmd, processtest.Config{Name: "daemon", Patience: agentPatience})
	l.Cleanup(func() {
		for _, secret := range []string{agentKey, "sig=", "pass%", "bridgeToken"} {
			if strings.Contains(p.String(), secret) {
				l.Errorf("%s is in the daemon's log", secret)
			}
		}
	})
	p.Says(text)
	return p
}

// The daemon with what its owner has: a connection string or a certificate in files,
// a private CA, and a proxy in the environment as the only way out.
func TestAgentDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := build(t, "deviceagent/cmd/deviceagent")
	cert, print := agentCert(t, time.Now().Add(time.Hour))
	l := newAgentLab(t, emulator.Config{HostName: "hub.example", Devices: []emulator.Device{
		{ID: agentDevice, PrimaryKey: agentKey, Modules: []emulator.Module{{ID: agentModule, Thumbprints: []string{print}}}},
	}})
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, err := l.hub.DeviceConnectionString(agentDevice)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	proxy := newAgentProxy(t, map[string]string{"hub.example:8883": l.hub.MQTTAddr(), "hub.example:443": l.hub.HTTPSAddr()})
	env := []string{"HTTPS_PROXY=http://joe:pass%25word@" + proxy.url.Host, "AGENT_CA_FILE=" + write("ca.pem", l.hub.CAPEM())}
	device := append([]string{"AGENT_HUB_CONNECTION_STRING_FILE=" + write("device.txt", []byte(text+"\n"))}, env...)
	module := append([]string{
		"AGENT_HUB_HOST=hub.example", "AGENT_DEVICE_ID=" + agentDevice, "AGENT_MODULE_ID=" + agentModule,
		"AGENT_HUB_CERT=" + write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		"AGENT_HUB_KEY=" + write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}, env...)

	for i, tt := range []struct {
		name, module string
		env          []string
	}{
		{"a device", "", device},
		{"a device by WebSocket", "", append(device, "AGENT_HUB_WEBSOCKET=true")},
		{"a module with a certificate", agentModule, module},
		{"a module with a certificate by WebSocket", agentModule, append(module, "AGENT_HUB_WEBSOCKET=true")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := l.daemon(program, "listening for signals of the hub", tt.env...)
			l.listens(tt.module)
			if err := l.calls(tt.module).Signal(l.ctx(), agentSignal(tt.name)); err == nil || !strings.Contains(err.Error(), "relay_not_allowed") {
				t.Errorf("signal: %v", err) // it was read, and its relay is not on the list
			}
			if got := int(proxy.tunnels.Load()); got != i+1 {
				t.Errorf("%d tunnels", got)
			}
			d.Signal(syscall.SIGTERM)
			d.Exits(0)
			d.Says("agent stopped")
		})
	}
	t.Run("taken over", func(t *testing.T) {
		l.rival()
		d := l.daemon(program, "took over this device's identity", device...)
		d.Exits(3)
		d.Says("deviceagent: hub: pump-7: another connection took over this device's identity: 3 connections within 5m0s")
	})
}
