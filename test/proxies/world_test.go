//go:build proxies && linux

package proxies_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

const deviceID = "pump-7"

// world is a hub, relay nodes, an agent with the targets ssh and blob, and a user.
type world struct {
	t      *testing.T
	dir    string
	hub    *processtest.Process
	nodes  []*processtest.Process
	agent  *processtest.Process
	public []string // of the nodes, host:port
	admin  []string
	url    string   // that devices and requesters dial
	user   []string // the environment of bridge
	sshCfg string
}

// plan is what a world is made of.
type plan struct {
	nodes    int
	base     int            // of the nodes' ports: public, base+1 for admin, base+2 between nodes, and the hub's above
	url      string         // devices dial it
	userURL  string         // requesters dial it; empty: url
	caFile   string         // of who proves to be url, empty: plain
	relayEnv []string       // more settings
	front    func(w *world) // starts what is in front of the nodes; the agent comes after, and reads caFile once
}

func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), url: p.url}
	keys := filepath.Join(w.dir, "keys")
	run(t, filepath.Join(bin, "relay"), "init", keys)
	port := func(n int) string { return fmt.Sprint(p.base + n) }
	w.hub = launch(t, nil, "emulator", "--mqtt-port", port(3), "--amqp-port", port(4), "--https-port", port(5),
		"--device", deviceID, "--ca-out", w.at("hub.pem"), "--keys-dir", w.at("hub"))
	w.hub.Says("connection strings")
	var peers []string
	host := func(i int) string { return fmt.Sprintf("127.0.0.%d", i+1) }
	for i := range p.nodes {
		peers = append(peers, net.JoinHostPort(host(i), port(2)))
	}
	for i := range p.nodes {
		w.public = append(w.public, net.JoinHostPort(host(i), port(0)))
		w.admin = append(w.admin, net.JoinHostPort(host(i), port(1)))
		w.nodes = append(w.nodes, launch(t, append([]string{
			"RELAY_LISTEN=" + w.public[i], "RELAY_ADMIN_LISTEN=" + w.admin[i], "RELAY_PLAIN=true", "RELAY_PUBLIC_URL=" + p.url,
			"RELAY_TRUSTED_PROXIES=127.0.0.0/8", "RELAY_SIGNALER=method", "RELAY_HUB_CONNECTION_STRING_FILE=" + w.at("hub/policies/service"),
			"RELAY_HUB_CA_FILE=" + w.at("hub.pem"), "RELAY_HUB_HTTPS_ADDR=127.0.0.1:" + port(5),
			"RELAY_API_KEYS=" + filepath.Join(keys, "api-keys"), "RELAY_TOKEN_KEYS_FILE=" + filepath.Join(keys, "token-keys"),
			"RELAY_SIGNAL_KEY_FILE=" + filepath.Join(keys, "signal-key"),
			"RELAY_NODE_LISTEN=" + peers[i], "RELAY_PEERS=" + strings.Join(peers, ","), "RELAY_DRAIN=1s",
		}, p.relayEnv...), "relay"))
		w.nodes[i].Says("relay listens")
	}
	if p.front != nil {
		p.front(w)
	}
	public, err := os.ReadFile(filepath.Join(keys, "signal-key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if p.userURL == "" {
		p.userURL = p.url
	}
	w.user = []string{"BRIDGE_RELAY=" + p.userURL, "BRIDGE_API_KEY_FILE=" + filepath.Join(keys, "me.key"), "SSL_CERT_FILE=" + p.caFile}
	agentEnv := []string{
		"AGENT_HUB_CONNECTION_STRING_FILE=" + w.at("hub/devices/"+deviceID), "AGENT_HUB_ADDR=127.0.0.1:" + port(3), "AGENT_CA_FILE=" + w.at("hub.pem"),
		"AGENT_RELAY_HOSTS=*", "AGENT_ALLOW_PLAIN=true", "AGENT_SIGNAL_KEYS=" + strings.TrimSpace(string(public)),
		"AGENT_TARGETS=echo,blob=tcp:" + serveBlobs(t) + ",ssh=tcp:" + w.startSSH(), "SSL_CERT_FILE=" + p.caFile,
	}
	w.agent = launch(t, agentEnv, "deviceagent")
	w.agent.Says("listening for signals of the hub")
	return w
}

func (w *world) at(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) string {
	w.t.Helper()
	if err := os.WriteFile(w.at(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.at(name)
}

// startSSH starts a server as this user, and returns its address.
func (w *world) startSSH() string {
	t := w.t
	t.Helper()
	for _, key := range []string{"host_key", "user_key"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", w.at(key))
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	sshd := launch(t, nil, "/usr/sbin/sshd", "-D", "-e", "-f", w.write("sshd_config", fmt.Sprintf(`
ListenAddress 127.0.0.1
Port %s
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
`, port, w.at("host_key"), w.at("user_key"))))
	sshd.Says("Server listening on 127.0.0.1")
	public, err := os.ReadFile(w.at("host_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	w.sshCfg = w.write("ssh_config", fmt.Sprintf(`
Host *
  HostKeyAlias %[1]s
  UserKnownHostsFile %[2]s
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  IdentityFile %[3]s
  IdentitiesOnly yes
  BatchMode yes
  ServerAliveInterval 0
  TCPKeepAlive no
`, deviceID, w.write("known_hosts", deviceID+" "+string(public)), w.at("user_key")))
	return addr
}

// tunnel starts bridge tunnel, and returns it and the local address of each target.
func (w *world) tunnel(targets ...string) (*processtest.Process, map[string]string) {
	w.t.Helper()
	p := launch(w.t, w.user, "bridge", append([]string{"tunnel", "--json", deviceID}, targets...)...)
	p.Event("up", 1)
	local := map[string]string{}
	for _, e := range p.Events("listening") {
		local[e.Text("target")] = e.Text("local")
	}
	return p, local
}

// session is ssh to the device through a local port: a shell that says back what it reads.
func (w *world) session(local string) *processtest.Process {
	w.t.Helper()
	me, err := user.Current()
	if err != nil {
		w.t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(local)
	p := launch(w.t, nil, "ssh", "-F", w.sshCfg, "-p", port, me.Username+"@"+host, "while read line; do echo device has $line; done")
	p.Write("hello\n")
	p.Says("device has hello")
	return p
}

// idle has the session say nothing for a while, and then something.
func (w *world) idle(s *processtest.Process, d time.Duration) {
	w.t.Helper()
	select {
	case <-s.Done():
	case <-time.After(d): // which is what is tested
	}
	s.Write("still-there\n")
	s.Says("device has still-there")
}

// ready waits until the relay answers through whatever is in front of it.
func (w *world) ready(client *http.Client, url string) {
	w.t.Helper()
	until(w.t, url+" leads to the relay", func() bool {
		res, err := client.Get(url + "/bridge/connect?deviceId=" + deviceID)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusUpgradeRequired
	})
}

// freeAddr is one that nobody listens on, below those that the kernel gives to
// connections, so that it stays free until a process takes it.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// serveBlobs listens on the device. A connection says how many bytes it wants (8, big endian),
// gets them, sends as many, and gets the hash of what has come.
func serveBlobs(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				var n [8]byte
				if _, err := io.ReadFull(c, n[:]); err != nil {
					return
				}
				size := int64(binary.BigEndian.Uint64(n[:]))
				if _, err := io.Copy(c, blob(size)); err != nil {
					return
				}
				h := sha256.New()
				if _, err := io.CopyN(h, c, size); err == nil {
					c.Write(h.Sum(nil))
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// blob are bytes that look random and are the same each time.
func blob(size int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{7}), size) }

// transfer sends bytes both ways, one after the other, and wants them unchanged.
func (w *world) transfer(local string, size int64) {
	t := w.t
	t.Helper()
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(size))
	began := time.Now()
	if _, err := c.Write(n[:]); err != nil {
		t.Fatal(err)
	}
	want, got := sha256.New(), sha256.New()
	if passed, err := io.CopyN(got, c, size); err != nil {
		t.Fatalf("after %d of %d bytes from the device: %v", passed, size, err)
	}
	down := time.Since(began)
	sent, err := io.Copy(io.MultiWriter(c, want), blob(size))
	if err != nil {
		t.Fatalf("after %d of %d bytes to the device: %v", sent, size, err)
	}
	answer := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatalf("the hash of what the device got: %v", err)
	}
	up := time.Since(began) - down
	if sum(want) != sum(got) || sum(want) != string(answer) {
		t.Error("the bytes have changed on the way")
	}
	rate := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", float64(size)/1e6/d.Seconds()) }
	t.Logf("%d bytes from the device at %s, to it at %s", size, rate(down), rate(up))
}

func port(n int) string { return fmt.Sprint(n) }

func sum(h hash.Hash) string { return string(h.Sum(nil)) }
