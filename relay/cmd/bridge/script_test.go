package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bridge": main})
}

// The scripts in testdata run the real command against a relay, a fake hub and a
// device in this process, over real sockets. Beside testscript's own commands:
//
//	relay [auth=none|oidc] [tls=yes] [dialback=1s] [max=N] [drain=1h] [policy=FILE]
//	                        start a relay and name it in the environment; again: at the same address
//	provider [aud=A] [pending=CODE,CODE] [refuse=CODE] [life=1h] [down=yes]
//	                        how the identity provider of auth=oidc behaves
//	relay-stop, relay-drain end its bridges; refuse new ones, and wait until it does
//	relay-asks PAYLOAD      ping whoever is connected, as a node that drains does
//	device ID [never|old]   a device with targets echo and down; never dials back; knows no session
//	cut                     break the connections of all devices
//	hub FAULTS              set the fake hub's faults, in JSON
//	stranger KIND           name something that is no relay; see strangers
//	exits CODE [-in FILE] ARGS...      run bridge to its end
//	start [-tty] NAME ARGS...          run it in the background
//	expect NAME stdout|stderr REGEXP [VAR]   wait for output; VAR gets the first group
//	signal TERM NAME, finish NAME CODE  signal it; wait for its end
//	asks ADDR FILE          send a line to a local port and want it back
//
// Bridge IDs, ports and durations in the output are replaced by words.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			l := &lab{work: env.WorkDir, procs: make(map[string]*process)}
			env.Values["lab"] = l
			env.Defer(l.stop)
			for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"} {
				env.Setenv(name, "")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"relay":       func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).startRelay(ts, args) },
			"provider":    func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).setProvider(ts, args) },
			"relay-stop":  func(ts *testscript.TestScript, _ bool, _ []string) { labOf(ts).stopRelay() },
			"relay-drain": func(ts *testscript.TestScript, _ bool, _ []string) { labOf(ts).drainRelay(ts) },
			"relay-asks":  func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).front.ping(args[0]) },
			"device":      func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).startDevice(ts, args) },
			"cut":         func(ts *testscript.TestScript, _ bool, _ []string) { labOf(ts).cut() },
			"hub":         func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).setFaults(ts, args) },
			"stranger":    func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).startStranger(ts, args) },
			"exits":       func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).exits(ts, args) },
			"start":       func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).startProcess(ts, args) },
			"expect":      func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).expect(ts, args) },
			"signal":      func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).signal(ts, args) },
			"finish":      func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).finish(ts, args) },
			"asks":        func(ts *testscript.TestScript, _ bool, args []string) { labOf(ts).asks(ts, args) },
		},
	})
}

func labOf(ts *testscript.TestScript) *lab { return ts.Value("lab").(*lab) }

// scrubs replace what differs from run to run.
var scrubs = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "BRIDGE-ID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`"(ms|retryMs)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"expires":"[-.\dT:Z]+"`), `"expires":"LATER"`},
	{regexp.MustCompile(`websocketbridge/[0-9a-f]{32}`), "websocketbridge/RELAY"},
	{regexp.MustCompile(`connected in \d[\w.µ]*`), "connected in SOON"},
	{regexp.MustCompile(`\btime [-+:.\dTZ]+ is (after|before) [-+:.\dTZ]+`), "time NOW is $1 THEN"},
}

// scrub also fails the script if the API key or a token is in the output.
func (l *lab) scrub(ts *testscript.TestScript, out string) string {
	secrets := []string{l.key}
	if l.idp != nil {
		secrets = append(append(secrets, "device-code-secret"), l.idp.Issued()...)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(out, secret) {
			ts.Fatalf("a secret is in the output:\n%s", out)
		}
	}
	out = strings.ReplaceAll(out, ts.Getenv("WORK"), "$WORK")
	for _, s := range scrubs {
		out = s.re.ReplaceAllString(out, s.by)
	}
	return out
}

// command makes bridge with args in the script's environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	bin := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, "bridge"); bin == "" && exists(p) {
			bin = p
		}
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "BRIDGE_") && !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	// Where sign-ins are kept, on every system.
	cmd.Env = append(cmd.Env, "HOME="+ts.Getenv("WORK"), "XDG_CONFIG_HOME="+ts.MkAbs("config"), "AppData="+ts.MkAbs("config"))
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // 1 s at each end otherwise
	for _, name := range strings.Fields("BRIDGE_RELAY BRIDGE_API_KEY BRIDGE_API_KEY_FILE BRIDGE_CA_FILE BRIDGE_ALLOW_PLAIN BRIDGE_APIKEY BRIDGE_RELLAY BRIDGE_OIDC_ISSUER BRIDGE_OIDC_CLIENT_ID BRIDGE_OIDC_SCOPES HTTPS_PROXY HTTP_PROXY") {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// exits runs bridge to its end and wants an exit code.
func (l *lab) exits(ts *testscript.TestScript, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: exits CODE [-in FILE] ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	args = args[1:]
	in := ""
	if len(args) > 1 && args[0] == "-in" {
		in, args = ts.ReadFile(args[1]), args[2:]
	}
	cmd := command(ts, args)
	var out, errOut strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errOut
	err = cmd.Run()
	fmt.Fprint(ts.Stdout(), l.scrub(ts, out.String()))
	fmt.Fprint(ts.Stderr(), l.scrub(ts, errOut.String()))
	if cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d\n[stdout]\n%s[stderr]\n%s", got, want, out.String(), errOut.String())
	}
}
