//go:build netns && linux

package netns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/test/process/processtest"
)

// The nodes' timers are short; those of a session's ends are not settings.
const (
	dialBack = 4 * time.Second
	nodeDead = 3 * time.Second
	endDead  = 35 * time.Second // session.DefaultDeadAfter
	slack    = 5 * time.Second  // within which everybody knows, once it can be known
)

const (
	publicPort = "8080"
	adminPort  = "9090"
	nodePort   = "7443"
	hubPort    = "443"
)

// town is a hub, three nodes, a front for requesters and one for devices, and
// devices. Each is a process in a namespace; all devices share one, and so do all
// requesters.
type town struct {
	*wires
	dir       string
	nodes     []*node
	hub       *processtest.Process
	reqFront  *processtest.Process
	devFront  *processtest.Process
	agents    map[string]*processtest.Process
	bridgeEnv []string
	agentEnv  []string
	leak      string // what clean waits for
}

// node is one of the relay's.
type node struct {
	*processtest.Process
	w        *town
	i        int // from 1
	env      []string
	baseline descriptors // when it was new
}

func (n *node) space() string { return fmt.Sprintf("node%d", n.i) }
func (n *node) host() int     { return nodeHost + n.i }
func (n *node) public(network string) string {
	return net.JoinHostPort(address(network, n.host()), publicPort)
}

const nodeCount = 3

// townOptions change a town before it is built.
type townOptions struct {
	devices  int      // 0: 2
	relayEnv []string // more settings of the nodes
}

func newTown(t *testing.T, o townOptions) *town {
	t.Helper()
	if o.devices == 0 {
		o.devices = 2
	}
	legs := []leg{
		{hubNet, "hub", hubHost}, {requesterNet, "front", frontHost}, {deviceNet, "front", frontHost},
		{requesterNet, "users", userHost}, {deviceNet, "things", userHost}, {hubNet, "things", userHost},
	}
	for i := 1; i <= nodeCount; i++ {
		for _, network := range nets {
			legs = append(legs, leg{network, (&node{i: i}).space(), nodeHost + i})
		}
	}
	w := &town{wires: newWires(t, legs), dir: shortDir(t), agents: map[string]*processtest.Process{}}
	t.Cleanup(func() {
		if t.Failed() && w.leak != "" {
			t.Log(w.leak)
		}
	})
	var devices []string
	for i := 1; i <= o.devices; i++ {
		devices = append(devices, deviceID(i))
	}
	w.startHub(devices)
	w.settings()
	w.startFronts()
	for i := 1; i <= nodeCount; i++ {
		n := &node{w: w, i: i, env: w.nodeEnv(i, o)}
		w.nodes = append(w.nodes, n)
		n.start()
	}
	for _, n := range w.nodes {
		n.waitReady()
	}
	w.setFront(w.reqFront, requesterNet, w.nodes...)
	w.setFront(w.devFront, deviceNet, w.nodes...)
	for i, id := range devices {
		w.startAgent(i+1, id)
	}
	for _, id := range devices {
		w.agents[id].Says("listening for signals of the hub")
	}
	for _, n := range w.nodes {
		n.warm()
	}
	return w
}

// shortDir is like t.TempDir, but the path of a Unix socket has 107 bytes at most.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "netns")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *town) file(name string) string { return filepath.Join(w.dir, name) }

func (w *town) startHub(devices []string) {
	w.t.Helper()
	args := []string{"--listen", address(hubNet, hubHost), "--ca-out", w.file("hub-ca.pem"), "--keys-dir", w.file("hub")}
	for _, id := range devices {
		args = append(args, "--device", id)
	}
	w.hub = launch(w.t, w.space("hub"), processtest.Config{Name: "hub"}, nil, binaries.Path(w.t, "emulator"), args...)
	w.hub.Says("connection strings")
}

// settings makes what the programs share.
func (w *town) settings() {
	w.t.Helper()
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, text := range map[string]string{"api-keys": "ops " + hash + "\n", "token-keys": token.NewKey().Reveal()} {
		if err := os.WriteFile(w.file(name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.bridgeEnv = []string{"BRIDGE_API_KEY=" + key, "BRIDGE_ALLOW_PLAIN=true"}
	w.agentEnv = []string{
		"AGENT_CA_FILE=" + w.file("hub-ca.pem"), "AGENT_HUB_ADDR=" + net.JoinHostPort(address(hubNet, hubHost), "8883"),
		"AGENT_RELAY_HOSTS=" + address(deviceNet, frontHost), "AGENT_ALLOW_PLAIN=true", "AGENT_MAX_BRIDGES=1000",
	}
}

func (w *town) nodeEnv(i int, o townOptions) []string {
	var peers []string
	for other := 1; other <= nodeCount; other++ {
		peers = append(peers, net.JoinHostPort(address(nodeNet, nodeHost+other), nodePort))
	}
	return slices.Concat([]string{
		"RELAY_LISTEN=:" + publicPort, "RELAY_ADMIN_LISTEN=:" + adminPort, "RELAY_CONNECTS_PER_DEVICE=0", "RELAY_CONNECTS_PER_ADDRESS=0", "RELAY_CONNECTS_PER_PRINCIPAL=0", "RELAY_MAX_PER_DEVICE=0", // one of each is everybody here
		"RELAY_PLAIN=true", "RELAY_PUBLIC_URL=ws://" + address(deviceNet, frontHost),
		"RELAY_API_KEYS=" + w.file("api-keys"), "RELAY_TOKEN_KEYS_FILE=" + w.file("token-keys"),
		"RELAY_NODE_LISTEN=" + peers[i-1], "RELAY_PEERS=" + strings.Join(peers, ","),
		"RELAY_SIGNALER=method", "RELAY_HUB_RATE=1000", "RELAY_HUB_CA_FILE=" + w.file("hub-ca.pem"),
		"RELAY_HUB_CONNECTION_STRING_FILE=" + w.file("hub/policies/service"),
		"RELAY_HUB_HTTPS_ADDR=" + net.JoinHostPort(address(hubNet, hubHost), hubPort),
		"RELAY_PING=1s", "RELAY_DEAD=" + nodeDead.String(), "RELAY_DRAIN=1m", "RELAY_DIAL_BACK=" + dialBack.String(),
	}, o.relayEnv)
}

func (w *town) startFronts() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	front := func(network, name string) *processtest.Process {
		env := []string{frontEnv + "=" + net.JoinHostPort(address(network, frontHost), "80")}
		p := launch(w.t, w.space("front"), processtest.Config{Name: name}, env, self)
		p.Says("front listens")
		return p
	}
	w.reqFront, w.devFront = front(requesterNet, "front of requesters"), front(deviceNet, "front of devices")
}

// setFront replaces a front's backends, and returns when it has.
func (w *town) setFront(front *processtest.Process, network string, nodes ...*node) {
	w.t.Helper()
	backends := []string{}
	for _, n := range nodes {
		backends = append(backends, n.public(network))
	}
	set := func() int { return strings.Count(front.String(), frontSet) }
	before := set()
	text, err := json.Marshal(backends)
	if err != nil {
		w.t.Fatal(err)
	}
	front.Write(string(text) + "\n")
	front.Awaits("has its backends", func() bool { return set() > before })
}

// acceptsAt lets devices reach only these nodes.
func (w *town) acceptsAt(nodes ...*node) { w.t.Helper(); w.setFront(w.devFront, deviceNet, nodes...) }

func (n *node) start() {
	n.w.t.Helper()
	n.Process = launch(n.w.t, n.w.space(n.space()), processtest.Config{Name: n.space()}, n.env, binaries.Path(n.w.t, "relay"))
}

// ready asks the node itself.
func (n *node) ready() bool {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return n.w.dial(ctx, n.space(), addr)
	}}
	resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get("http://127.0.0.1:" + adminPort + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (n *node) waitReady() {
	n.w.t.Helper()
	n.Says("relay listens")
	until(n.w.t, n.space()+" is ready", n.ready)
}

// restart starts a node whose process has ended, under the same address.
func (n *node) restart() {
	n.w.t.Helper()
	<-n.Done()
	n.start()
	n.waitReady()
}

func deviceID(i int) string { return fmt.Sprintf("pump-%d", i) }

// startAgent starts a device with targets of its own. Their sockets have names, so
// that this process can serve them without a namespace.
func (w *town) startAgent(i int, id string) {
	w.t.Helper()
	var targets []string
	for _, name := range targetNames {
		sock := w.file(fmt.Sprintf("%d-%s.sock", i, name))
		serveTarget(w.t, sock, id+" "+name)
		targets = append(targets, name+"=unix:"+sock)
	}
	env := slices.Concat(w.agentEnv, []string{
		"AGENT_HUB_CONNECTION_STRING_FILE=" + w.file("hub/devices/"+id), "AGENT_TARGETS=" + strings.Join(targets, ","),
	})
	w.agents[id] = launch(w.t, w.space("things"), processtest.Config{Name: id}, env, binaries.Path(w.t, "deviceagent"))
}

// bridge starts the command. Where to is the front, or one node.
func (w *town) bridge(to *node, args ...string) *processtest.Process {
	w.t.Helper()
	host := address(requesterNet, frontHost)
	if to != nil {
		host = to.public(requesterNet)
	}
	env := append([]string{"BRIDGE_RELAY=ws://" + host}, w.bridgeEnv...)
	return launch(w.t, w.space("users"), processtest.Config{Quiet: true, Name: "bridge"}, env, binaries.Path(w.t, "bridge"), append([]string{"--json"}, args...)...)
}

// dials starts a call to a target of a device; to may be nil, for the front.
func (w *town) dials(to *node, id, target string) *call {
	w.t.Helper()
	return &call{w.bridge(to, "stdio", id, target), id, target, 0}
}

// call dials, and checks that it has reached what it asked for.
func (w *town) call(to *node, id, target string) *call {
	w.t.Helper()
	c := w.dials(to, id, target)
	c.works()
	return c
}

// call is one bridge stdio. Its target first says who it is, then echoes.
type call struct {
	*processtest.Process
	id, target string
	said       int
}

// works checks that the bridge carries both ways, and whom it reaches.
func (c *call) works() {
	c.T.Helper()
	c.said++
	text := fmt.Sprintf("%s-%s-%d", c.id, c.target, c.said)
	c.Write(text + "\n")
	c.Says("echo " + text)
	c.Says("this is " + c.id + " " + c.target + "\n")
}

// hangsUp ends the call as a user does.
func (c *call) hangsUp() {
	c.T.Helper()
	c.CloseInput()
	c.ExitsWithin(slack, 0)
}

// Exit codes of bridge, as README.md has them.
const (
	exitUnreachable = 3
	exitDialBack    = 9
	exitRelay       = 10
	exitLost        = 11
)

// fails checks when, how and with which code a call ended. Some ways to notice race
// each other: any of codes will do.
func (c *call) fails(limit time.Duration, exit int, codes ...string) {
	c.T.Helper()
	c.FailsWithin(limit, exit, codes...)
	if strings.Contains(c.String(), "this is ") && !strings.Contains(c.String(), "this is "+c.id+" "+c.target+"\n") {
		c.Errorf("joined wrongly:\n%s", c)
	}
}

// hold keeps the device's accepts from reaching a node: their connections are made,
// and nobody takes them. release lets them go.
func (w *town) hold()    { w.t.Helper(); w.devFront.Signal(syscall.SIGSTOP) }
func (w *town) release() { w.t.Helper(); w.devFront.Signal(syscall.SIGCONT) }

// held waits until n accepts are held.
func (w *town) held(n int) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("%d accepts are held", n), func() bool {
		waiting := 0
		for _, s := range sockets(w.t, w.devFront) {
			// What no process owns has not been accepted.
			if s.local == net.JoinHostPort(address(deviceNet, frontHost), "80") && s.inode == "0" && s.unread > 0 {
				waiting++
			}
		}
		return waiting == n
	})
}

// signalled waits until the hub's call has come to a device that stands still.
func (w *town) signalled(id string) {
	w.t.Helper()
	until(w.t, "the signal has come to "+id, func() bool {
		mine := map[string]bool{}
		for _, inode := range socketInodes(w.t, w.agents[id]) {
			mine[inode] = true
		}
		return slices.ContainsFunc(sockets(w.t, w.agents[id]), func(s socket) bool { return mine[s.inode] && s.unread > 0 })
	})
}

// logged waits until a line of the agent's log has all of the words.
func (w *town) logged(limit time.Duration, id string, words ...string) {
	w.t.Helper()
	w.agents[id].AwaitsWithin(limit, fmt.Sprintf("logs %q", words), func() bool {
		return slices.ContainsFunc(w.agents[id].Out.Lines(), func(l processtest.Line) bool {
			return !slices.ContainsFunc(words, func(s string) bool { return !strings.Contains(l.Text, s) })
		})
	})
}
