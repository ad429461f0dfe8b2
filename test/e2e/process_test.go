package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/test/process/processtest"
)

var binaries = processtest.NewBinaries("websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge", "websocketbridge/deviceagent/cmd/deviceagent")

func TestMain(m *testing.M) { os.Exit(binaries.Run(m)) }

func start(t *testing.T, env []string, name string, args ...string) *processtest.Process {
	t.Helper()
	cmd := exec.Command(binaries.Path(t, name), args...)
	cmd.Env = processtest.CleanEnv(env...)
	return processtest.Start(t, cmd, processtest.Config{Patience: patience})
}

// town is a relay, an agent and their settings, as separate processes.
type town struct {
	t                   *testing.T
	relayEnv, agentEnv  []string
	bridgeEnv           []string
	relay, agent        *processtest.Process
	publicAddr, hubAddr string
	adminAddr           string
}

// newTown starts a relay and an agent with targets, and more settings of either. The
// timers are short, unless these say otherwise.
func newTown(t *testing.T, targets string, more ...string) *town {
	t.Helper()
	addrs := freeAddrs(t, 3)
	w := &town{t: t, publicAddr: addrs[0], hubAddr: addrs[1], adminAddr: addrs[2]}
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("ops "+hash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.relayEnv = []string{
		"RELAY_LISTEN=" + w.publicAddr, "RELAY_ADMIN_LISTEN=" + w.adminAddr, "RELAY_PLAIN=true", "RELAY_API_KEYS=" + keys,
		"RELAY_SIGNALER=fake", "RELAY_FAKE_LISTEN=" + w.hubAddr, "RELAY_FAKE_DEVICES=" + device, "RELAY_DIAL_BACK=2s",
		"RELAY_PING=300ms", "RELAY_DEAD=1s", "RELAY_DRAIN=1s",
	}
	w.agentEnv = []string{
		"AGENT_DEVICE_ID=" + device, "AGENT_RELAY_HOSTS=127.0.0.1", "AGENT_TARGETS=" + targets, "AGENT_SIGNALS=fake", "AGENT_FAKE_URL=ws://" + w.hubAddr,
	}
	for _, setting := range more {
		if strings.HasPrefix(setting, "RELAY_") {
			w.relayEnv = append(w.relayEnv, setting)
		} else {
			w.agentEnv = append(w.agentEnv, setting)
		}
	}
	w.bridgeEnv = []string{"BRIDGE_RELAY=ws://" + w.publicAddr, "BRIDGE_API_KEY=" + key}
	w.startRelay()
	w.startAgent()
	return w
}

func (w *town) startRelay() {
	w.t.Helper()
	w.relay = start(w.t, w.relayEnv, "relay")
	w.relay.Says("relay listens")
}

func (w *town) startAgent() {
	w.t.Helper()
	w.agent = start(w.t, w.agentEnv, "deviceagent")
	w.online(true)
}

// online waits until the hub counts the device as connected, or not.
func (w *town) online(want bool) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("device online: %t", want), func() bool {
		online, _ := w.hubState()
		return online == want
	})
}

// signalled waits until the device has been sent a signal it has not answered.
func (w *town) signalled() {
	w.t.Helper()
	until(w.t, "the signal is under way", func() bool {
		_, queued := w.hubState()
		return queued == 1
	})
}

// hubState is what the fake hub knows of the device.
func (w *town) hubState() (online bool, queued int) {
	resp, err := http.Get("http://" + w.hubAddr + "/devices")
	if err != nil {
		return false, 0
	}
	defer resp.Body.Close()
	var devices []struct {
		ID     string `json:"deviceId"`
		Online bool   `json:"online"`
		Queued int    `json:"queued"`
	}
	json.NewDecoder(resp.Body).Decode(&devices)
	for _, d := range devices {
		if d.ID == device {
			return d.Online, d.Queued
		}
	}
	return false, 0
}

func (w *town) bridge(args ...string) *processtest.Process {
	w.t.Helper()
	return start(w.t, w.bridgeEnv, "bridge", append([]string{"--json"}, args...)...)
}

// tunnel starts a tunnel to echo and returns its local address.
func (w *town) tunnel() (*processtest.Process, string) {
	w.t.Helper()
	p := w.bridge("tunnel", device, "echo")
	local := p.Event("listening", 1).Text("local")
	p.Event("up", 1)
	return p, local
}

// echoes checks that a connection through the tunnel works.
func echoes(t *testing.T, local string) {
	t.Helper()
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "hello")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("got %q, %v", line, err)
	}
}

// freeAddrs finds loopback addresses that nobody listens on now.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	var lc net.ListenConfig
	for range n {
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
