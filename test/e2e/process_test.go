package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/test/testlog"
)

// binaries builds the three programs once for all tests of this package.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return "", err
	}
	built = dir
	cmd := exec.Command("go", "build", "-o", dir, "./relay/cmd/relay", "./relay/cmd/bridge", "./deviceagent/cmd/deviceagent")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

// built is where binaries has put them; empty: nobody asked.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// process is one program that a test started.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  testlog.Buffer // standard output and error, each line as it came
	done chan struct{}
}

func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: exec.Command(filepath.Join(dir, name), args...), done: make(chan struct{})}
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if name == "bridge" { // its input stays open until it ends
		in, err := p.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close() })
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s %v said:\n%s", name, args, p.out.String())
		}
	})
	return p
}

// cleanEnv is the environment without settings of ours and without proxies.
func cleanEnv() (env []string) {
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "RELAY_") || strings.HasPrefix(name, "AGENT_") || strings.HasPrefix(name, "BRIDGE_") ||
			strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			continue
		}
		env = append(env, e)
	}
	return env
}

// says waits until the program has printed text.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, p.name+" says "+text, func() bool { return strings.Contains(p.out.String(), text) })
}

// exits waits for the end and checks the exit code.
func (p *process) exits(code int) {
	p.t.Helper()
	until(p.t, p.name+" exits", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%s exited with %d, want %d", p.name, got, code)
	}
}

// fails waits for the end of bridge --json and checks its exit code, the code it
// gives, and that it says a sentence.
func (p *process) fails(exit int, code string) {
	p.t.Helper()
	p.exits(exit)
	if e := p.event("error", 1); e["code"] != code || e["detail"] == "" {
		p.t.Errorf("got %v, want code %s", e, code)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// event waits for a JSON line of bridge --json.
func (p *process) event(name string, n int) map[string]any {
	p.t.Helper()
	var found map[string]any
	until(p.t, fmt.Sprintf("event %s, number %d", name, n), func() bool {
		seen := 0
		for line := range bytes.Lines([]byte(p.out.String())) {
			var e map[string]any
			if json.Unmarshal(line, &e) == nil && e["event"] == name {
				if seen++; seen == n {
					found = e
					return true
				}
			}
		}
		return false
	})
	return found
}

// town is a relay, an agent and their settings, as separate processes.
type town struct {
	t                   *testing.T
	relayEnv, agentEnv  []string
	bridgeEnv           []string
	relay, agent        *process
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
	w.relay.says("relay listens")
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

func (w *town) bridge(args ...string) *process {
	w.t.Helper()
	return start(w.t, w.bridgeEnv, "bridge", append([]string{"--json"}, args...)...)
}

// tunnel starts a tunnel to echo and returns its local address.
func (w *town) tunnel() (*process, string) {
	w.t.Helper()
	p := w.bridge("tunnel", device, "echo")
	local := p.event("listening", 1)["local"].(string)
	p.event("up", 1)
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
