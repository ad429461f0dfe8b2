//go:build clients

package clients

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"websocketbridge/test/process/processtest"
)

const deviceID = "pump-7"

// A rig is a relay with the fake signaler, and perhaps an agent, as processes.
type rig struct {
	t *testing.T
	lab
	dir     string
	keyFile string
	relay   *processtest.Process
}

// newRig starts a relay, with env besides what it needs, and an agent that
// allows targets, if there are any. It returns when both are ready.
func newRig(t *testing.T, targets []string, env ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	hashed := must(t, environ(), filepath.Join(bin, "relay"), "hash-key", "ops")
	r.key = strings.TrimSpace(hashed.stderr)
	r.keyFile = r.write("api-key", r.key+"\n")
	public, admin, hub := freeAddr(t), freeAddr(t), freeAddr(t)
	r.lab.relay, r.hub = "ws://"+public, "ws://"+hub
	r.relay = startOurs(t, "relay", environ(append([]string{
		"RELAY_LISTEN=" + public, "RELAY_PLAIN=true", "RELAY_ADMIN_LISTEN=" + admin,
		"RELAY_API_KEYS=" + r.write("api-keys", hashed.stdout),
		"RELAY_CONNECTS_PER_DEVICE=0", "RELAY_CONNECTS_PER_ADDRESS=0", "RELAY_CONNECTS_PER_PRINCIPAL=0", "RELAY_MAX_PER_DEVICE=0", // one of each is everybody here
		"RELAY_SIGNALER=fake", "RELAY_FAKE_LISTEN=" + hub,
		"RELAY_PING=100ms", // other makers' clients get one in the middle of everything
		"RELAY_DRAIN=1s", "RELAY_LOG_FORMAT=json", "RELAY_LOG_LEVEL=debug",
	}, env...)...))
	until(t, "the relay is ready", func() error {
		_, err := get("http://" + admin + "/readyz")
		return err
	})
	if targets != nil {
		startOurs(t, "deviceagent", environ("AGENT_DEVICE_ID="+deviceID, "AGENT_RELAY_HOSTS=127.0.0.1",
			"AGENT_TARGETS="+strings.Join(targets, ","), "AGENT_SIGNALS=fake", "AGENT_FAKE_URL="+r.hub))
		until(t, "the agent is online", func() error { return r.online(deviceID) })
	}
	t.Cleanup(func() { // when the clients are gone, and before the relay ends what is left
		r.relay.Awaits("has closed all bridges", func() bool { return r.logged("bridge open") == r.logged("bridge closed") })
	})
	return r
}

// write makes a file that only this user reads.
func (r *rig) write(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// env is the environment of a user of bridge.
func (r *rig) env() []string {
	return environ("BRIDGE_RELAY="+r.lab.relay, "BRIDGE_API_KEY_FILE="+r.keyFile)
}

// logged counts what the relay has logged. The fake hub logs "signal" for each one
// it was handed.
func (r *rig) logged(msg string) (n int) {
	for _, line := range processtest.JSON[map[string]any](r.relay.Err) {
		if line["msg"] == msg {
			n++
		}
	}
	return n
}

// tunnel starts bridge tunnel, and returns the local address of each target.
func (r *rig) tunnel(targets ...string) []string {
	r.t.Helper()
	p := startOurs(r.t, "bridge", r.env(), append([]string{"tunnel", "--json", deviceID}, targets...)...)
	p.Event("up", 1)
	local := make([]string, len(targets))
	for _, e := range p.Events("listening") {
		if i := slices.Index(targets, e.Text("target")); i >= 0 {
			local[i] = e.Text("local")
		}
	}
	if slices.Contains(local, "") {
		r.t.Fatalf("the tunnel listens on %q for %q", local, targets)
	}
	return local
}

// environ is what a process gets of ours: nothing that could be a setting or a
// proxy, and our programs in front of all others.
func environ(more ...string) []string {
	return processtest.BareEnv(append([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, more...)...)
}

var (
	portMu sync.Mutex
	ports  = map[int]bool{} // given away; guarded by portMu
)

// freeAddr is one that nobody listens on, below those that the kernel gives to
// connections, so that it stays free until a process takes it.
func freeAddr(t *testing.T) string {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		addr := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
		if ports[port] {
			continue
		}
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			ports[port] = true
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
