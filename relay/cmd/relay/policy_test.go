package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

func TestCheckPolicy(t *testing.T) {
	const file = "testdata/policy.yaml"
	bad := filepath.Join(t.TempDir(), "policy.yaml")
	put(t, bad, "version: 2\nrules: []\n")
	weekday := []string{"--at", "2026-06-02T12:00:00+02:00"}
	for _, tt := range []struct {
		name string
		args []string
		out  string
		want string // of the fault; empty: none
		code int
	}{
		{"good", []string{file}, file + " is good: 2 rules\n", "", 0},
		{"bad", []string{bad}, "", bad + ": policy: line 1: version is not 1, which is the only one that this relay knows\nline 2: rules is empty; [\"*\"] is everything", 1},
		{"no file", []string{bad + "x"}, "", "no such file", 1},
		{"no argument", nil, "", "check-policy takes one file", 1},
		{"yes", append([]string{file, "--as", "ops", "--device", "pump-7", "--target", "ssh", "--target=echo"}, weekday...), "yes: rule \"operators\" allows it until 2026-06-02T17:00:00Z\n", "", 0},
		{"by a claim", append([]string{file, "--as", "oidc:ann", "--claim", "roles=Bridge.User", "--device", "pump-7", "--target", "ssh"}, weekday...), "yes: rule \"operators\" allows it until 2026-06-02T17:00:00Z\n", "", 0},
		{"a link", []string{file, "--as", "signed:ann", "--device", "pump-7"}, "yes: rule \"links\" allows it\n", "", 0},
		{"no", append([]string{file, "--as", "ops", "--device", "pump-7"}, weekday...), "", `no: "ops" may reach device "pump-7", but not its default target: name a target`, 4},
		{"after hours", []string{file, "--as", "ops", "--device", "pump-7", "--target", "ssh", "--at", "2026-06-06T20:14:00Z"}, "", "it is Saturday 22:14 there", 4},
		{"nobody", []string{file, "--as", "eve", "--device", "pump-7"}, "", `no: no rule of the policy lets "eve" in`, 4},
		{"as, but where", []string{file, "--as", "ops"}, "", "name who and what: --as NAME --device DEVICE", 1},
		{"where, but who", []string{file, "--device", "pump-7"}, "", "name who and what", 1},
		{"no time", []string{file, "--as", "ops", "--device", "pump-7", "--at", "noon"}, "", "--at is no time", 1},
		{"no claim", []string{file, "--as", "ops", "--device", "pump-7", "--claim", "roles"}, "", "--claim is no name=value", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := with(t, nil, "", append([]string{"check-policy"}, tt.args...)...)
			if got.out != tt.out || got.err != "" || (got.fault == nil) != (tt.want == "") {
				t.Fatalf("got %+v", got)
			}
			if got.fault == nil {
				return
			}
			code := 1
			if e := (exitError{}); errors.As(got.fault, &e) {
				code = e.code
			}
			if code != tt.code || !strings.Contains(got.fault.Error(), tt.want) {
				t.Errorf("exits %d with %v, want %d, %s", code, got.fault, tt.code, tt.want)
			}
		})
	}
}

const (
	echoRule = `version: 1
rules:
  - {name: operators, who: ["*"], devices: [pump-*], targets: [echo]}
`
	otherRule = `version: 1
rules:
  - {name: operators, who: ["*"], devices: [valve-*], targets: [echo]}
`
)

// New rules are in force without a restart. Open bridges that they do not allow go on, or
// end with the option.
func TestReplacePolicy(t *testing.T) {
	for _, revoke := range []string{"false", "true"} {
		t.Run(revoke, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.yaml")
			put(t, file, echoRule)
			r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_RELOAD": "10ms", "RELAY_POLICY": file, "RELAY_POLICY_REVOKE": revoke})
			r.device("pump-7")
			open, err := r.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			put(t, file, "version: 1\nrules: [")
			r.log.wait(t, `level=ERROR msg="not reloaded; what was in force stays" setting=RELAY_POLICY .*policy: line 2: `)
			r.echo(open)
			put(t, file, otherRule)
			r.log.wait(t, "level=INFO msg=reloaded setting=RELAY_POLICY rules=1\n")
			if _, err := r.dial(); !refused(err, wire.Forbidden) {
				t.Errorf("a new one: %v", err)
			}
			if revoke == "false" {
				r.echo(open)
				return
			}
			<-open.Done()
			wantRevoked(t, open.Why(), "may not reach device")
			r.log.wait(t, `level=INFO msg="permission revoked" bridge=\w+ device=pump-7`)
		})
	}
}

// With the option the bridge of an API key ends when its line goes, without a policy, too.
func TestRevokeAPIKey(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_RELOAD": "10ms", "RELAY_POLICY_REVOKE": "true"})
	r.device("pump-7")
	open, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	put(t, os.Getenv("RELAY_API_KEYS"), "night-shift "+mustHash(t)+"\n")
	<-open.Done()
	wantRevoked(t, open.Why(), "the credentials have ended")
}

func wantRevoked(t *testing.T, err error, detail string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Code != wire.PermissionRevoked || e.Close != wire.ClosePolicy || e.Temporary() || !strings.Contains(e.Detail, detail) {
		t.Errorf("got %v, want %s", err, detail)
	}
}

func TestPolicyFaults(t *testing.T) {
	dir := t.TempDir()
	bad, open := filepath.Join(dir, "bad"), filepath.Join(dir, "open")
	put(t, bad, "version: 1\nrules: []\n")
	put(t, open, echoRule)
	os.Chmod(open, 0o666)
	for file, want := range map[string]string{
		bad:  "RELAY_POLICY: " + bad + ": policy: line 2: rules is empty",
		open: "RELAY_POLICY: policy: " + open + ": mode 0666 lets others than its owner write",
		dir:  "RELAY_POLICY: policy: " + dir + ": is not a regular file",
	} {
		setenv(t, map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "fake", "RELAY_POLICY": file})
		if _, _, err := load(io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
