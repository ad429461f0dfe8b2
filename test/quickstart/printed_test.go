package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/testlog"
)

// process is the quickstart as a newcomer starts it, or a command that it prints.
type process struct {
	testlog.Buffer // of what it prints
	cmd            *exec.Cmd
}

// wait waits until the output matches, and returns the match and its groups.
func (p *process) wait(t *testing.T, re string) []string {
	t.Helper()
	return p.Wait(t, 30*time.Second, re)
}

// startProcess runs cmd in a process group of its own, which go run needs: it
// does not pass signals on.
func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
		}
	})
	return p
}

// Every command that it prints works as it was pasted, in a shell at the root of
// the repository.
func TestPrintedCommands(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "QUICKSTART_MAIN=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	qs := startProcess(t, cmd)
	text := qs.wait(t, `(?s)Now try it yourself(.*/bridges\n)`)[1]
	exports := ""
	met := 0
	for _, m := range regexp.MustCompile(`(?m)^  (\w.*)$`).FindAllStringSubmatch(text, -1) {
		line := m[1]
		met++
		script := exports + line
		switch {
		case strings.HasPrefix(line, "export "):
			exports += line + "\n"
			continue
		case strings.HasSuffix(line, "/bridges"):
			listed(t, curl(t, line, `"state":"open"`))
		case strings.HasPrefix(line, "curl "):
			curl(t, line, hello)
		case strings.Contains(line, "tunnel"):
			p := startProcess(t, shell(script))
			get(t, "http://"+p.wait(t, `(127\.0\.0\.1:\d+) -> web`)[1])
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT) // Ctrl-C reaches the whole group
			p.cmd.Wait()
		case strings.HasSuffix(line, "stdio pump-7 echo"):
			check(t, script, 0, "hello\n")
		case strings.HasSuffix(line, "stdio pump-7 ssh"):
			check(t, script, 1, `target "ssh" is not on this device's list`) // go run's own exit code
		case strings.HasSuffix(line, "stdio pump-8 echo"):
			check(t, script, 1, `the hub does not know device "pump-8"`)
		default:
			t.Errorf("no test runs %q", line)
		}
	}
	if met != 8 {
		t.Errorf("%d commands are printed, want 8:\n%s", met, text)
	}
	syscall.Kill(qs.cmd.Process.Pid, syscall.SIGINT)
	if err := qs.cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	if out := qs.String(); strings.Contains(out, "quickstart:") || strings.Contains(out, "DATA RACE") {
		t.Errorf("at the end:\n%s", out)
	}
}

func shell(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = "../.."
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BRIDGE_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return cmd
}

func check(t *testing.T, script string, exit int, want string) {
	t.Helper()
	cmd := shell(script)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exit || !strings.Contains(string(out), want) {
		t.Errorf("%s\nexit code %d, want %d; want %q in:\n%s", script, got, exit, want, out)
	}
}

const hello = "Hello from device pump-7"

// curl runs a line that begins with curl, and returns what it prints.
func curl(t *testing.T, line, want string) string {
	t.Helper()
	out, err := shell(line).Output()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%s\n%v; want %q in:\n%s", line, err, want, out)
	}
	return string(out)
}

// listed checks a list of bridges that holds one only, which one node passes on to
// the other.
func listed(t *testing.T, list string) {
	t.Helper()
	var l struct {
		Bridges []struct{ BridgeID, DeviceID, Node, Via string }
		Missing map[string]string
	}
	if err := json.Unmarshal([]byte(list), &l); err != nil || len(l.Bridges) != 1 || len(l.Missing) > 0 {
		t.Errorf("%v, or not one bridge: %s", err, list)
		return
	}
	b := l.Bridges[0]
	if b.DeviceID != "pump-7" || b.Node == "" || b.Via == "" || b.Via == b.Node {
		t.Errorf("got %+v", b)
	}
}

func get(t *testing.T, url string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), hello) {
		t.Errorf("%s: %s %q", url, resp.Status, b)
	}
}
