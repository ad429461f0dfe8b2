package readme_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/testlog"
)

const patience = 60 * time.Second // go install and go run compile

// TestCommands runs every command as it is pasted, one block after the other,
// each in a shell of its own.
func TestCommands(t *testing.T) { newMachine(t).follow(blocks(t), nil) }

// machine is somebody's machine: a home directory, programs, terminals.
type machine struct {
	t          *testing.T
	home       string
	env        []string
	replace    *strings.Replacer
	background []*terminal
}

// The ports in the README. Where one is taken on this machine, another one
// stands in for it, in the commands and in the settings.
var ports = []struct{ doc, env, form string }{
	{"127.0.0.1:8080", "RELAY_LISTEN", ""},
	{"127.0.0.1:9090", "RELAY_ADMIN_LISTEN", ""},
	{"127.0.0.1:7071", "RELAY_FAKE_LISTEN", "AGENT_FAKE_URL=ws://"},
	{"127.0.0.1:8081", "", ""},  // bridge's local port
	{"127.0.0.1:18883", "", ""}, // the emulator's, which its flags name without an address
	{"127.0.0.1:15671", "", ""},
	{"127.0.0.1:18443", "", ""},
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, home: t.TempDir()}
	bin, others := filepath.Join(m.home, "bin"), filepath.Join(m.home, "others")
	m.decoys(others)
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		ours := strings.HasPrefix(name, "RELAY_") || strings.HasPrefix(name, "AGENT_") || strings.HasPrefix(name, "BRIDGE_")
		if !ours && name != "HOME" && name != "PATH" && name != "GOBIN" && name != "GOPATH" && !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			m.env = append(m.env, e)
		}
	}
	m.env = append(m.env, "HOME="+m.home, "GOPATH="+filepath.Join(m.home, "go"),
		"PATH="+strings.Join([]string{bin, others, os.Getenv("PATH")}, string(filepath.ListSeparator)))
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} { // some are found by HOME
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		m.env = append(m.env, name+"="+strings.TrimSpace(string(out)))
	}
	var pairs []string
	for _, p := range ports {
		addr := freePort(t, p.doc)
		if addr == p.doc {
			continue
		}
		t.Logf("%s is taken; %s stands in for it", p.doc, addr)
		pairs = append(pairs, p.doc, addr)
		if p.env != "" {
			m.env = append(m.env, p.env+"="+addr)
		}
		if p.form != "" {
			m.env = append(m.env, p.form+addr)
		}
		old, port := p.doc[len("127.0.0.1:"):], addr[len("127.0.0.1:"):]
		pairs = append(pairs, " "+old+":", " "+port+":", "-port "+old, "-port "+port)
	}
	m.replace = strings.NewReplacer(pairs...)
	t.Cleanup(m.stop)
	return m
}

// decoys are other programs with the names of ours, as iproute2 has a bridge: what the
// README says of PATH has to prefer ours.
func (m *machine) decoys(dir string) {
	m.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"relay", "deviceagent", "bridge", "emulator"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho another program of this name\nexit 1\n"), 0o700); err != nil {
			m.t.Fatal(err)
		}
	}
}

// freePort is addr, or another one if that is taken.
func freePort(t *testing.T, addr string) string {
	t.Helper()
	for _, a := range []string{addr, "127.0.0.1:0"} {
		if ln, err := net.Listen("tcp", a); err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// follow goes through the README. ssh, if it is not nil, prepares for the blocks
// that need it; without it they are left out.
func (m *machine) follow(all []block, ssh func(b block)) {
	m.t.Helper()
	for _, b := range all {
		if b.stop {
			m.stop()
		}
		text := m.replace.Replace(b.text)
		switch {
		case b.how == "run", b.how == "clients" && ssh != nil:
			m.run(b, text)
		case b.how == "background":
			m.start(b, text)
		case b.how == "ssh config" && ssh != nil:
			b.text = text
			ssh(b)
		}
		if m.t.Failed() {
			m.t.FailNow() // what follows builds on it
		}
	}
}

// terminal is a shell with a command in it.
type terminal struct {
	testlog.Buffer // of what it prints
	cmd            *exec.Cmd
	ended          chan struct{}
}

// open starts a shell in a process group of its own: what it has started ends
// with it.
func (m *machine) open(script string) *terminal {
	m.t.Helper()
	o := &terminal{cmd: exec.Command("sh", "-ec", script), ended: make(chan struct{})}
	o.cmd.Dir, o.cmd.Env = "../..", m.env
	o.cmd.Stdout, o.cmd.Stderr = o, o
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	o.cmd.WaitDelay = 10 * time.Second
	if err := o.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		defer close(o.ended)
		o.cmd.Wait()
	}()
	return o
}

func (m *machine) run(b block, script string) {
	m.t.Helper()
	if strings.Contains(script, "export PATH=") { // for all terminals: whoever means it has it in a profile
		script += `printf %s "$PATH" >"$HOME/path"`
		defer func() {
			path, err := os.ReadFile(filepath.Join(m.home, "path"))
			if err != nil {
				m.t.Error(err)
			}
			m.env = append(m.env, "PATH="+string(path))
		}()
	}
	o := m.open(script)
	select {
	case <-o.ended:
	case <-time.After(patience):
		syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
		<-o.ended
		m.t.Errorf("%v: it does not end", b)
	}
	text := o.String()
	if code := o.cmd.ProcessState.ExitCode(); code != 0 {
		m.t.Errorf("%v: exit code %d:\n%s\n%s", b, code, script, text)
	}
	for _, want := range b.args {
		if !strings.Contains(text, want) {
			m.t.Errorf("%v: no %q in:\n%s", b, want, text)
		}
	}
	if strings.Contains(b.text, "--help") {
		m.checkSettings(text)
	}
}

func (m *machine) start(b block, script string) {
	m.t.Helper()
	o := m.open(script)
	m.background = append(m.background, o)
	re := regexp.MustCompile(m.replace.Replace(b.args[0]))
	late := time.After(patience)
	for ended := false; ; {
		more := o.More() // before the look: nothing is missed between the two
		text := o.String()
		if re.MatchString(text) {
			return
		}
		if ended {
			m.t.Errorf("%v: it ended:\n%s\n%s", b, script, text)
			return
		}
		select {
		case <-more:
		case <-o.ended:
			ended = true
		case <-late:
			m.t.Errorf("%v: no %q after %v:\n%s", b, re, patience, text)
			return
		}
	}
}

// stop presses Ctrl-C in every terminal, the newest first.
func (m *machine) stop() {
	for len(m.background) > 0 {
		last := len(m.background) - 1
		o := m.background[last]
		m.background = m.background[:last]
		syscall.Kill(-o.cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-o.ended:
		case <-time.After(patience):
			syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
			<-o.ended
			m.t.Errorf("Ctrl-C does not end it:\n%s", o)
		}
	}
}

var setting = regexp.MustCompile(`\b(?:RELAY|AGENT|BRIDGE)(?:_[A-Z]+)+\b`)

// checkSettings wants every setting that the README names in the help.
func (m *machine) checkSettings(help string) {
	text, err := os.ReadFile(readme)
	if err != nil {
		m.t.Fatal(err)
	}
	names := setting.FindAllString(string(text), -1)
	if len(names) < 10 {
		m.t.Errorf("only %d settings are found", len(names))
	}
	for _, name := range names {
		if !strings.Contains(help, strings.TrimSuffix(name, "_FILE")) && !strings.Contains(help, name) {
			m.t.Errorf("the README names %s, and no help does", name)
		}
	}
}
