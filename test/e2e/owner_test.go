package e2e_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/test/process/processtest"
)

// keygen runs relay keygen.
func keygen(t *testing.T) (private, public string) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command(binaries.Path(t, "relay"), "keygen")
	cmd.Env, cmd.Stdout, cmd.Stderr = processtest.CleanEnv(), &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errOut)
	}
	return strings.TrimSpace(out.String()), strings.TrimSpace(errOut.String())
}

// replace writes a file as those who rotate keys do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// refuses wants the device's no, with its code and its words.
func refuses(p *processtest.Process, deviceCode, words string) {
	p.T.Helper()
	p.Fails(7, "device_refused")
	if e := p.Event("error", 1); e.Text("deviceCode") != deviceCode || !strings.Contains(e.Text("detail"), words) || e.Text("hint") == "" {
		p.Errorf("got %v, want %s", e, deviceCode)
	}
}

// The relay signs with a key of relay keygen and the agent lists its public line. The key
// is rotated with overlap while bridges are made; what another key has signed, or none, is
// refused in so many words.
func TestSignedSignals(t *testing.T) {
	oldKey, oldPub := keygen(t)
	newKey, newPub := keygen(t)
	otherKey, otherPub := keygen(t)
	file := filepath.Join(t.TempDir(), "signal-key")
	replace(t, file, oldKey+"\n")
	w := newTown(t, "echo", "RELAY_SIGNAL_KEY_FILE="+file, "RELAY_RELOAD=20ms", "AGENT_SIGNAL_KEYS="+oldPub+","+newPub)
	w.relay.Says(oldPub)
	tunnel, local := w.tunnel()
	echoes(t, local)

	var made atomic.Int32
	var crowd sync.WaitGroup
	end := make(chan struct{})
	apiKey := strings.TrimPrefix(w.bridgeEnv[1], "BRIDGE_API_KEY=")
	for range 3 {
		crowd.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				s, err := client.Dial(t.Context(), client.Config{URL: "ws://" + w.publicAddr, APIKey: apiKey}, client.Request{Device: device, Targets: []string{"echo"}})
				if err != nil {
					t.Errorf("after %d bridges: %v", made.Load(), err)
					return
				}
				s.Close()
				made.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		from := made.Load()
		until(t, "more bridges are made", func() bool { return made.Load() >= from+10 })
	}
	more()
	replace(t, file, newKey)
	w.relay.Says("key=" + newPub)
	more()
	close(end)
	crowd.Wait()
	echoes(t, local) // it is open still
	tunnel.Signal(syscall.SIGTERM)
	tunnel.Exits(0)

	replace(t, file, otherKey)
	w.relay.Says("key=" + otherPub)
	refuses(w.bridge("stdio", device, "echo"), "wrong_signature", "which is not on the list")
	w.agent.Says("signal refused, and nothing of it dialled")

	w.relay.Signal(syscall.SIGTERM)
	w.relay.Exits(0)
	w.relayEnv = without(w.relayEnv, "RELAY_SIGNAL_KEY_FILE")
	first := w.relay
	w.startRelay()
	w.online(true)
	refuses(w.bridge("stdio", device, "echo"), "not_signed", "the signal is not signed")
	for _, key := range []string{oldKey, newKey, otherKey} {
		if secret := strings.Split(key, ":")[1]; strings.Contains(first.String()+w.relay.String()+w.agent.String(), secret) {
			t.Error("a private key is in a log")
		}
	}
}

// The owner's file appears: an open connection ends within a second, the next bridge is
// refused, and the tunnel goes on when the file is gone.
func TestKillSwitch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "off")
	w := newTown(t, "echo", "AGENT_KILL_SWITCH="+file)
	stdio := w.bridge("stdio", device, "echo")
	tunnel, local := w.tunnel()
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "before")
	w.relay.Says("bridge open")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the local connection goes on")
	}
	if took := time.Since(start); took > 3*time.Second { // a second, on a busy machine
		t.Errorf("it ended after %v", took)
	}
	stdio.Fails(11, "lost")
	refuses(w.bridge("stdio", device, "echo"), "disabled", "the device's owner has switched remote access off")
	w.agent.Says("remote access is switched off")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.agent.Says("remote access is on again")
	tunnel.Event("up", 2)
	echoes(t, local)
}
