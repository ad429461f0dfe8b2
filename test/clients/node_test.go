//go:build clients

package clients

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"websocketbridge/test/testlog"
)

// nodeDir is where peer.mjs and the packages it needs are; TestMain names it.
var nodeDir string

var installNode = sync.OnceValue(func() error {
	if err := os.MkdirAll(nodeDir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json", "peer.mjs"} {
		b, err := os.ReadFile(filepath.Join("node", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(nodeDir, name), b, 0o644); err != nil {
			return err
		}
	}
	// The environment stays: it may say where the registry is.
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
	npm.Dir = nodeDir
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", npm, err, out)
	}
	return nil
})

// node is a process of Node.js with the npm package ws.
type node struct {
	in  io.Writer
	mu  sync.Mutex // guards writes to in, and the two below
	n   int
	all map[string]*nodePeer
}

func newNode(t *testing.T) *node {
	t.Helper()
	tool(t, "node", "nodejs")
	tool(t, "npm", "npm")
	if err := installNode(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "peer.mjs")
	cmd.Dir = nodeDir
	cmd.Env = environ()
	stderr := new(testlog.Buffer)
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{in: in, all: make(map[string]*nodePeer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.read(out)
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("node: %v\n%s", err, stderr)
		}
	})
	return n
}

// event is what peer.mjs tells.
type event struct {
	Event, Conn, Protocol, Error, Reason string
	Status, Code                         int
	Text                                 bool
	Data                                 []byte
	Headers                              map[string]any
}

func (n *node) read(out io.Reader) {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			break
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			e = event{Event: "failed", Error: fmt.Sprintf("%v: %q", err, line)}
		}
		n.mu.Lock()
		p := n.all[e.Conn]
		n.mu.Unlock()
		if p != nil {
			p.heard(e)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.all {
		p.heard(event{Event: "closed", Code: 1006, Reason: "node ended"})
	}
}

// op sends a command.
func (n *node) op(op, conn string, fields map[string]any) error {
	fields["op"], fields["conn"] = op, conn
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err = n.in.Write(append(b, '\n'))
	return err
}

func (n *node) peer() *nodePeer {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	p := &nodePeer{node: n, id: fmt.Sprint("c", n.n), in: newInbox()}
	n.all[p.id] = p
	return p
}

func (n *node) dial(url string, header http.Header, protocols ...string) (peer, error) {
	p := n.peer()
	h := map[string]string{}
	for k := range header {
		h[k] = header.Get(k)
	}
	if err := n.op("dial", p.id, map[string]any{"url": url, "headers": h, "protocols": protocols}); err != nil {
		return nil, err
	}
	err := p.in.wait(func() (bool, error) { return p.open, p.failed })
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (n *node) post(url string, body []byte) (int, error) {
	p := n.peer()
	if err := n.op("post", p.id, map[string]any{"url": url, "body": body}); err != nil {
		return 0, err
	}
	err := p.in.wait(func() (bool, error) { return p.status != 0, p.failed })
	return p.status, err
}

// nodePeer is one WebSocket in the process.
type nodePeer struct {
	node *node
	id   string
	in   *inbox // its mutex guards all below

	open   bool
	proto  string
	answer http.Header
	status int
	failed error
	pongs  int
}

func (p *nodePeer) heard(e event) {
	p.in.update(func() {
		switch e.Event {
		case "open":
			p.open, p.proto, p.answer = true, e.Protocol, e.header()
		case "message":
			p.in.got = append(p.in.got, message{e.Text, e.Data})
		case "pong":
			p.pongs++
		case "posted":
			p.status = e.Status
		case "refused":
			p.failed = &refused{e.Status, e.header(), e.Data}
		case "failed":
			p.failed = errors.New(e.Error)
		case "closed":
			p.in.end = &ended{e.Code, e.Reason}
			if p.failed != nil {
				p.in.end.reason = p.failed.Error()
			}
		}
	})
}

func (e event) header() http.Header {
	h := http.Header{}
	for k, v := range e.Headers {
		h.Set(k, fmt.Sprint(v))
	}
	return h
}

func (p *nodePeer) send(m message) error { return p.fragment(m.text, m.data, true) }

func (p *nodePeer) fragment(text bool, part []byte, fin bool) error {
	return p.node.op("send", p.id, map[string]any{"text": text, "data": part, "fin": fin})
}

func (p *nodePeer) ping() error {
	p.in.mu.Lock()
	want := p.pongs + 1
	p.in.mu.Unlock()
	if err := p.node.op("ping", p.id, map[string]any{"data": []byte("mid-message")}); err != nil {
		return err
	}
	return p.in.wait(func() (bool, error) {
		if p.in.end != nil {
			return true, p.in.end
		}
		return p.pongs >= want, nil
	})
}

func (p *nodePeer) close(code int, reason string) error {
	fields := map[string]any{}
	if code != 0 {
		fields["code"], fields["reason"] = code, reason
	}
	return p.node.op("close", p.id, fields)
}

func (p *nodePeer) abort() {
	p.node.op("abort", p.id, map[string]any{}) // an error means that the process has ended
}

func (p *nodePeer) protocol() string    { return p.proto }
func (p *nodePeer) header() http.Header { return p.answer }
func (p *nodePeer) box() *inbox         { return p.in }

func TestNode(t *testing.T) {
	r := newRig(t, nil)
	n := newNode(t)
	for _, c := range []struct {
		name string
		pair
	}{
		{"node to node", pair{n, n}},
		{"node to coder", pair{n, coder{}}},
		{"coder to node", pair{coder{}, n}},
	} {
		t.Run(c.name, func(t *testing.T) { testMatrix(t, r.lab, c.pair) })
	}
}

func TestNodeFailures(t *testing.T) {
	r := newRig(t, nil, "RELAY_DIAL_BACK=2s")
	n := newNode(t)
	testFailures(t, r.lab, pair{n, n})
}

// TestNodeToAgent has Node talk to our agent, which makes one stream of bytes of
// what it gets.
func TestNodeToAgent(t *testing.T) {
	r := newRig(t, []string{"echo"})
	n := newNode(t)
	for _, early := range []bool{false, true} {
		t.Run(map[bool]string{false: "held", true: "early"}[early], func(t *testing.T) {
			p, err := r.connect(n, r.connectURL(deviceID, early, "")+"&target=echo")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.abort)
			var sent, got []byte
			for _, c := range messages() {
				if err := c.send(p); err != nil {
					t.Fatal(err)
				}
				for _, m := range c.msgs {
					for _, part := range m {
						sent = append(sent, part...)
					}
				}
			}
			last := random(100_000)
			if err := p.fragment(false, last, false); err != nil { // and never a FIN
				t.Fatal(err)
			}
			sent = append(sent, last...)
			for len(got) < len(sent) {
				m, err := p.box().next()
				if err != nil {
					t.Fatalf("after %d bytes of %d: %v", len(got), len(sent), err)
				}
				if m.text {
					t.Fatal("the agent sent text")
				}
				got = append(got, m.data...)
			}
			if string(got) != string(sent) {
				t.Errorf("%d bytes came back for %d, and differ", len(got), len(sent))
			}
			if err := p.close(1000, "bye"); err != nil {
				t.Fatal(err)
			}
			wantEnd(t, "the requester", p, 1000, func(string) bool { return true })
		})
	}
	t.Run("refused", func(t *testing.T) {
		_, err := r.connect(n, r.connectURL(deviceID, false, "")+"&target=ssh")
		no := (*refused)(nil)
		if !errors.As(err, &no) || no.status != 409 || !strings.Contains(string(no.body), "target_not_allowed") {
			t.Errorf("got %v, want 409 with target_not_allowed", err)
		}
	})
}

// TestBridgeRawToNode has our command talk to a device of another make.
func TestBridgeRawToNode(t *testing.T) {
	r := newRig(t, nil)
	n := newNode(t)
	d := r.listen(t, n, deviceID)
	// raw starts the command and joins it with a device that then does f.
	raw := func(t *testing.T, stdin []byte, f func(peer), args ...string) command {
		t.Helper()
		done := make(chan command, 1)
		go func() {
			done <- run(t, r.env(), stdin, filepath.Join(bin, "bridge"), append([]string{"raw", "--data", "for you", deviceID}, args...)...)
		}()
		s, err := d.signal("")
		if err != nil {
			t.Fatal(err)
		}
		if s.RequestData != "for you" {
			t.Errorf("the signal has requestData %q", s.RequestData)
		}
		dev, err := n.dial(s.AcceptURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(dev.abort)
		f(dev)
		return <-done
	}
	receive := func(t *testing.T, dev peer, want []byte, text bool) {
		t.Helper()
		var got []byte
		for len(got) < len(want) {
			m, err := dev.box().next()
			if err != nil {
				t.Fatalf("after %d bytes of %d: %v", len(got), len(want), err)
			}
			if m.text != text {
				t.Errorf("got a %v", m)
			}
			got = append(got, m.data...)
		}
		if string(got) != string(want) {
			t.Error("the bytes differ")
		}
	}
	t.Run("both ways", func(t *testing.T) {
		in, out := random(3<<20), random(2<<20)
		got := raw(t, in, func(dev peer) {
			receive(t, dev, in, false)
			for _, part := range cut(out, 77_777) {
				if err := dev.fragment(false, part, false); err != nil {
					t.Fatal(err)
				}
			}
			dev.close(1000, "")
		})
		if got.exit != 0 || got.stdout != string(out) {
			t.Errorf("exit code %d, %d bytes of %d; %s", got.exit, len(got.stdout), len(out), got.stderr)
		}
	})
	t.Run("text, closed at the end of the input", func(t *testing.T) {
		in := []byte("a question of 25 letters\n")
		got := raw(t, in, func(dev peer) {
			receive(t, dev, in, true)
			wantEnd(t, "the device", dev, 1000, func(string) bool { return true })
		}, "--text", "-N")
		if got.exit != 0 || got.stdout != "" {
			t.Errorf("exit code %d, %q; %s", got.exit, got.stdout, got.stderr)
		}
	})
	t.Run("close code of the device", func(t *testing.T) {
		got := raw(t, nil, func(dev peer) { dev.close(4001, "out of paper") })
		if got.exit == 0 || !strings.Contains(got.stderr, "out of paper") {
			t.Errorf("exit code %d, %q; want a failure with the device's words", got.exit, got.stderr)
		}
	})
	t.Run("refused", func(t *testing.T) {
		done := make(chan command, 1)
		go func() { done <- run(t, r.env(), nil, filepath.Join(bin, "bridge"), "raw", deviceID) }()
		s, err := d.signal("")
		if err != nil {
			t.Fatal(err)
		}
		if status, err := n.post(s.RejectURL, []byte(`{"code":"busy","message":"come back at noon"}`)); status != 204 {
			t.Errorf("the reject was answered %d, %v", status, err)
		}
		if got := <-done; got.exit != 7 || !strings.Contains(got.stderr, "come back at noon") {
			t.Errorf("exit code %d, %q; want 7 and the device's words", got.exit, got.stderr)
		}
	})
}
