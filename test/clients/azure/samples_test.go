//go:build clients

package azure

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"websocketbridge/test/emulator"
	"websocketbridge/test/process/processtest"
)

const samples = "../../../infra/samples"

const handoffToken = "0123456789abcdef0123456789abcdef"

// waysIn are where a sample hands signals over: the agent's address, and what both
// need in their environment.
func waysIn(t *testing.T) map[string][2]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "handoff") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(handoffToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string][2]string{
		"unix": {"unix:" + filepath.Join(dir, "s"), "X="},
		"http": {"http:" + freeAddr(t), "AGENT_HANDOFF_TOKEN_FILE=" + file},
	}
}

// startHandoffAgent runs an agent that has echo and nothing else, and waits until
// signals can be handed over.
func startHandoffAgent(t *testing.T, id, address, env string) *processtest.Process {
	t.Helper()
	agent := start(t, processtest.BareEnv(env, "AGENT_DEVICE_ID="+id, "AGENT_RELAY_HOSTS="+hubAddress, "AGENT_TARGETS=echo"),
		"", filepath.Join(bin, "deviceagent"), "--handoff", address)
	agent.SaysOn(agent.Err, "listening for signals")
	return agent
}

// The sample for Node.js, with Microsoft's SDK: it hands over what it gets from the
// hub, and keeps what is its own.
func TestSampleNode(t *testing.T) {
	h := newHub(t, emulator.Config{})
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(samples, "node"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(nodeDir, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for way, in := range waysIn(t) {
		for _, signaler := range []string{"method", "c2d"} {
			t.Run(signaler+" by "+way, func(t *testing.T) {
				id := "pump-" + signaler + "-" + way
				relay := startRelay(t, h, signaler)
				startHandoffAgent(t, id, in[0], in[1])
				cs := h.device(t, id)[0]
				program := start(t, nodeEnv(h.caFile, in[1], "NODE_OPTIONS=--require "+filepath.Join(nodeDir, "names.cjs"),
					"AGENT_HANDOFF="+in[0], "DEVICE_CONNECTION_STRING="+cs), dir, "node", "device.mjs")
				program.SaysOn(program.Out, "connected")
				wantListening(t, h, id, "method")
				wantListening(t, h, id, "message")

				b, err := connect(relay, id, url.Values{"target": {"echo"}})
				if err != nil {
					t.Fatal(err)
				}
				if err := echo(b, websocket.MessageBinary, []byte("hello")); err != nil {
					t.Error(err)
				}
				b.Close(websocket.StatusNormalClosure, "")
				_, err = connect(relay, id, url.Values{"target": {"ssh"}})
				var no *refused
				if !errors.As(err, &no) || no.status != http.StatusConflict || !strings.Contains(no.body, "target_not_allowed") {
					t.Errorf("a target that is not listed: %v", err)
				}
			})
		}
	}
}

// The sample for Python, with modules of a few lines in place of Microsoft's SDK
// (testdata/python): the hand-over is real, the SDK is not.
func TestSamplePython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("python3 is not installed; on Debian: apt-get install python3")
	}
	const signal = `{\"acceptUrl\":\"ws://` + hubAddress + `:1/bridge/accept?bridgeToken=%d\",\"target\":\"%s\"}`
	message := func(n int, target string) string {
		return fmt.Sprintf(`{"message":"`+signal+`","properties":{"bridge-signal":"v1"}}`, n, target)
	}
	call := func(n int, target string) string {
		return fmt.Sprintf(`{"method":"Bridge","payload":`+strings.ReplaceAll(signal, `\"`, `"`)+`}`, n, target)
	}
	for way, in := range waysIn(t) {
		t.Run(way, func(t *testing.T) {
			agent := startHandoffAgent(t, "pump-7", in[0], in[1])
			stubs, err := filepath.Abs("testdata/python")
			if err != nil {
				t.Fatal(err)
			}
			events := strings.Join([]string{
				call(1, "echo"), call(2, "ssh"), `{"method":"Bridge","payload":null}`, `{"method":"Reboot","payload":{}}`, `{"method":"Nonsense","payload":{}}`,
				message(3, "echo"), message(4, "ssh"), `{"message":"hello","properties":{}}`,
			}, "\n")
			cmd := exec.Command("python3", "-B", "device.py")
			cmd.Dir = filepath.Join(samples, "python")
			cmd.Env = processtest.BareEnv(in[1], "PYTHONPATH="+stubs, "AGENT_HANDOFF="+in[0], "DEVICE_CONNECTION_STRING=HostName=h;DeviceId=d;SharedAccessKey=a2V5")
			cmd.Stdin = strings.NewReader(events + "\n")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			want := []string{
				"connected",
				`Bridge 200 {"accepted": true}`,
				`Bridge 409 {"code": "target_not_allowed", "message": "target \"ssh\" is not on this device's list"}`,
				`Bridge 409 {"code": "bad_signal"`,
				`Reboot 202 {}`,
				`Nonsense 501 {"code": "unknown_method"`,
				`bridge refused: target_not_allowed`,
				`message: hello`,
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) != len(want) {
				t.Fatalf("it says\n%s", out)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, want[i]) {
					t.Errorf("line %d: %s, want %s", i, line, want[i])
				}
			}
			agent.MustRun()
		})
	}
	t.Run("no agent", func(t *testing.T) {
		cmd := exec.Command("python3", "-B", "-c", `import asyncio, handoff; print(asyncio.run(handoff.hand_over("unix:/nowhere/s", "{}"))["code"])`)
		cmd.Dir, cmd.Env = filepath.Join(samples, "python"), processtest.BareEnv()
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "agent_unreachable" {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// Python with -B leaves nothing in the tree, and no file of a sample is forgotten.
func TestSampleFiles(t *testing.T) {
	var got []string
	err := filepath.WalkDir(samples, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(samples, path)
			got = append(got, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "README.md csharp/Handoff.cs csharp/Program.cs csharp/device.csproj node/device.mjs node/handoff.mjs node/package.json python/device.py python/handoff.py python/requirements.txt"
	if strings.Join(got, " ") != want {
		t.Errorf("infra/samples has\n%s, want\n%s", strings.Join(got, " "), want)
	}
}
