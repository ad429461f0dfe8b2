package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
)

var update = flag.Bool("update", false, "write the golden files")

// ran is what one run printed.
type ran struct {
	out, err string
	fault    error
}

// with runs the command to its end, with an environment of its own.
func with(t *testing.T, env map[string]string, in string, args ...string) ran {
	t.Helper()
	setenv(t, env)
	var out, errOut bytes.Buffer
	err := run(context.Background(), args, strings.NewReader(in), &out, &errOut)
	return ran{out.String(), errOut.String(), err}
}

// setenv sets env and takes everything else of RELAY_* away.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "RELAY_") || strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it); got:\n%s", path, got)
	}
}

func TestHelp(t *testing.T) {
	for file, args := range map[string][]string{
		"help.txt": {"--help"}, "hash-key.txt": {"hash-key", "--help"}, "token-key.txt": {"token-key", "--help"},
		"check-policy.txt": {"check-policy", "--help"},
		"keygen.txt":       {"keygen", "--help"},
		"init.txt":         {"init", "--help"}, "healthcheck.txt": {"healthcheck", "--help"},
	} {
		got := with(t, nil, "", args...)
		if got.fault != nil || got.err != "" {
			t.Errorf("%v: %v, %q", args, got.fault, got.err)
		}
		golden(t, file, got.out)
	}
	if got := with(t, nil, "", "version"); !strings.HasPrefix(got.out, "relay ") {
		t.Errorf("version: %+v", got)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"serve"}, `unknown command "serve"`},
		{[]string{"--port=1"}, "unknown flag: --port"},
		{[]string{"hash-key"}, "takes one name"},
		{[]string{"hash-key", "a", "b"}, "takes one name"},
		{[]string{"token-key", "x"}, "unknown command"},
		{[]string{"keygen", "x"}, "unknown command"},
		{[]string{"healthcheck", "x"}, "unknown command"},
		{[]string{"init"}, "takes a folder"},
	} {
		if got := with(t, nil, "", tt.args...); got.fault == nil || !strings.Contains(got.fault.Error(), tt.want) {
			t.Errorf("%v: got %v, want %q", tt.args, got.fault, tt.want)
		}
	}
}

// Each fault by the variable's name, all of them at once, each once.
func TestSettingsFaults(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	open := filepath.Join(dir, "open")
	os.WriteFile(empty, nil, 0o600)
	os.WriteFile(open, []byte("ops hmac-sha256:x:y\n"), 0o600)
	os.Chmod(open, 0o666)
	keys := filepath.Join(dir, "keys")
	os.WriteFile(keys, []byte("ops "+mustHash(t)+"\n"), 0o600)
	good := func(change map[string]string) map[string]string {
		env := map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "fake", "RELAY_LISTEN": "127.0.0.1:0"}
		for name, value := range change {
			env[name] = value
		}
		return env
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"nothing is set", nil, []string{"RELAY_TLS_CERT: is missing", "RELAY_API_KEYS: is missing", "RELAY_HUB_CONNECTION_STRING: is missing"}},
		{"everything is wrong", map[string]string{
			"RELAY_LISTEN": ":8080", "RELAY_PLAIN": "perhaps", "RELAY_AUTH": "magic", "RELAY_SIGNALER": "pigeon", "RELAY_TOKEN_KEYS": "x",
			"RELAY_DIAL_BACK": "5m", "RELAY_PING": "60s", "RELAY_IDLE": "-1s", "RELAY_RELOAD": "-10s", "RELAY_DRAIN": "ten minutes", "RELAY_MAX_BYTES": "-1", "RELAY_MAX_BRIDGES": "0",
			"RELAY_LOG_LEVEL": "loud", "RELAY_MAX_BRIGDES": "10", "RELAY_SIGNED_TTL": "-1h",
		}, []string{
			"RELAY_PLAIN: \"perhaps\"", "RELAY_DRAIN: \"ten minutes\"", "RELAY_MAX_BRIGDES: is unknown; did you mean RELAY_MAX_BRIDGES?",
			"RELAY_AUTH: \"magic\" is not one of keys, oidc, cert and none", "RELAY_TOKEN_KEYS: ", "RELAY_PUBLIC_URL: is missing", "RELAY_SIGNALER: \"pigeon\"",
			"RELAY_IDLE: -1s", "RELAY_RELOAD: -10s is negative", "RELAY_MAX_BRIDGES: 0 lets nobody in", "RELAY_DIAL_BACK: 5m0s is not between", "RELAY_DEAD: 35s is not more than Ping",
			"RELAY_MAX_BYTES: -1", "RELAY_LOG_LEVEL: \"loud\"", "RELAY_SIGNED_TTL: -1h0m0s is negative",
		}},
		{"fake hub for everybody", good(map[string]string{"RELAY_FAKE_LISTEN": "0.0.0.0:7071"}), []string{`RELAY_FAKE_LISTEN: "0.0.0.0" is not a loopback address, and there is no authentication there`}},
		{"plain must be said", good(map[string]string{"RELAY_PLAIN": "false"}), []string{"RELAY_TLS_CERT: is missing; set it and RELAY_TLS_KEY, or RELAY_PLAIN=true"}},
		{"half of TLS", good(map[string]string{"RELAY_PLAIN": "false", "RELAY_TLS_CERT": empty}), []string{"RELAY_TLS_KEY: is missing"}},
		{"the other half", good(map[string]string{"RELAY_PLAIN": "false", "RELAY_TLS_KEY": empty}), []string{"RELAY_TLS_CERT: is missing"}},
		{"both and plain", good(map[string]string{"RELAY_TLS_CERT": empty, "RELAY_TLS_KEY": empty}), []string{"RELAY_PLAIN: is true although", "RELAY_TLS_CERT: tls: failed to find"}},
		{"public URL", good(map[string]string{"RELAY_PUBLIC_URL": "https://relay.example.com"}), []string{"RELAY_PUBLIC_URL: \"https://relay.example.com\" starts with neither"}},
		{"everybody, but where", good(map[string]string{"RELAY_LISTEN": "0.0.0.0:8080"}), []string{"RELAY_PUBLIC_URL: is missing"}},
		{"no keys", good(map[string]string{"RELAY_AUTH": "keys", "RELAY_API_KEYS": empty}), []string{"RELAY_API_KEYS: " + empty + ": API keys: there is none"}},
		{"keys that others write", good(map[string]string{"RELAY_AUTH": "keys", "RELAY_API_KEYS": open}), []string{"RELAY_API_KEYS: API keys: " + open + ": mode 0666"}},
		{"nobody", good(map[string]string{"RELAY_AUTH": ""}), []string{"RELAY_AUTH: is empty, which would let nobody in"}},
		{"everybody and some", good(map[string]string{"RELAY_AUTH": "none,cert,cert"}), []string{"RELAY_AUTH: has none beside others", "RELAY_CLIENT_CA: is missing; RELAY_AUTH=cert needs it"}},
		{"an issuer and no use for it", good(map[string]string{"RELAY_OIDC_ISSUER": "https://id.example.com", "RELAY_CLIENT_CA": empty}), []string{
			"RELAY_OIDC_ISSUER: is of no use without oidc in RELAY_AUTH, as RELAY_AUTH=keys,oidc", "RELAY_CLIENT_CA: is of no use without cert in RELAY_AUTH",
		}},
		{"OIDC, all wrong", good(map[string]string{"RELAY_AUTH": "oidc", "RELAY_OIDC_ISSUER": "http://id.example.com", "RELAY_OIDC_ALGORITHMS": "HS256", "RELAY_OIDC_CA_FILE": empty}), []string{
			`RELAY_OIDC_ISSUER: "http://id.example.com" is not https`, "RELAY_OIDC_AUDIENCE: are missing", `RELAY_OIDC_ALGORITHMS: "HS256" is not one of RS256,`, "RELAY_OIDC_CA_FILE: " + empty + " holds no PEM certificate",
		}},
		{"certificates behind a proxy", good(map[string]string{"RELAY_AUTH": "keys,cert", "RELAY_API_KEYS": keys, "RELAY_CLIENT_CA": empty}), []string{
			"RELAY_PLAIN: is true, and RELAY_AUTH=cert needs TLS here: a proxy in front keeps the client's certificate to itself",
		}},
		{"ranges that are none", good(map[string]string{"RELAY_TRUSTED_PROXIES": "10.0.0.0/33, 192.0.2.1,proxy.example.com,fe80::1%eth0", "RELAY_PROXY_PROTOCOL": "true"}), []string{
			`RELAY_TRUSTED_PROXIES: "10.0.0.0/33" is not an address or a range, as 10.0.0.0/8; "proxy.example.com" is not an address or a range, as 10.0.0.0/8; "fe80::1%eth0" is not an address or a range, as 10.0.0.0/8`,
		}},
		{"an empty range", good(map[string]string{"RELAY_TRUSTED_PROXIES": "10.0.0.0/8,", "RELAY_PROXY_PROTOCOL": "true"}), []string{`RELAY_TRUSTED_PROXIES: "10.0.0.0/8," has an empty item`}},
		{"PROXY protocol from nobody", good(map[string]string{"RELAY_PROXY_PROTOCOL": "true"}), []string{"RELAY_TRUSTED_PROXIES: is missing; RELAY_PROXY_PROTOCOL needs it, or it would let nobody in"}},
		{"a public signal key", good(map[string]string{"RELAY_SIGNAL_KEY": "ed25519-public:A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}), []string{"RELAY_SIGNAL_KEY: signal key: is a public line, for devices; the relay needs the private one"}},
		{"a token key as signal key", good(map[string]string{"RELAY_SIGNAL_KEY": token.NewKey().Reveal()}), []string{`RELAY_SIGNAL_KEY: signal key: does not start with "ed25519-private:"; make one with: relay keygen`}},
		{"a port in use", good(map[string]string{"RELAY_LISTEN": "127.0.0.1:999999"}), []string{"RELAY_LISTEN: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := with(t, tt.env, "")
			if got.fault == nil {
				t.Fatal("it started")
			}
			text := got.fault.Error()
			for _, want := range tt.want {
				if strings.Count(text, want) != 1 {
					t.Errorf("%q is there %d times, want once", want, strings.Count(text, want))
				}
			}
			if lines := strings.Count(text, "RELAY_") - strings.Count(text, "did you mean RELAY_"); len(tt.want) > 1 && strings.Count(text, "\n  RELAY_") != len(tt.want) {
				t.Errorf("%d faults, want %d", lines, len(tt.want))
			}
			if t.Failed() {
				t.Log(text)
			}
			if got.out+got.err != "" {
				t.Errorf("printed %q %q", got.out, got.err)
			}
		})
	}
}

var keyForm = regexp.MustCompile(`^wsb_[\w-]{43}\n$`)

// The line can be appended to the file as it is, and the key then works.
func TestHashKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "api-keys")
	first := with(t, nil, "", "hash-key", "ops")
	second := with(t, nil, "", "hash-key", "ci", "--devices", "pump-*,valve-7", "--targets=ssh", "--expires", "2099-01-31T00:00:00Z")
	for _, got := range []ran{first, second} {
		if got.fault != nil || !keyForm.MatchString(got.err) {
			t.Fatalf("got %+v", got)
		}
		key := strings.TrimSpace(got.err)
		if strings.Contains(got.out, key) || strings.Count(got.out, "\n") != 1 {
			t.Errorf("standard output %q", got.out)
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(got.out)
		f.Close()
	}
	keys, err := auth.LoadKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key, name, device, target string
		allowed                   bool
	}{
		{first.err, "ops", "valve-1", "web", true},
		{second.err, "ci", "pump-3", "ssh", true},
		{second.err, "ci", "pump-3", "web", false},
		{second.err, "ci", "valve-1", "ssh", false},
	} {
		p, err := keys.Authenticate(request(strings.TrimSpace(tt.key)))
		if err != nil || p.Name != tt.name {
			t.Fatalf("%s: %+v, %v", tt.name, p, err)
		}
		if err := p.Allow(tt.device, tt.target); (err == nil) != tt.allowed {
			t.Errorf("%s to %s on %s: %v", tt.name, tt.target, tt.device, err)
		}
	}
}

func TestHashKeyStdin(t *testing.T) {
	key := auth.NewAPIKey()
	got := with(t, nil, key+"\n", "hash-key", "--stdin", "old")
	if got.fault != nil || got.err != "" || strings.Contains(got.out, key) {
		t.Fatalf("got %+v", got)
	}
	keys, err := auth.ParseKeys(got.out)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := keys.Authenticate(request(key)); err != nil || p.Name != "old" {
		t.Errorf("got %+v, %v", p, err)
	}
}

// A fault prints no key that would be lost, and no line that would be wrong.
func TestHashKeyFaults(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		args           []string
	}{
		{"short", "hunter2\n", "at least 32", []string{"--stdin", "x"}},
		{"not random", strings.Repeat("password", 5), "is not random", []string{"--stdin", "x"}},
		{"nothing", "", "at least 32", []string{"--stdin", "x"}},
		{"a name with a space", "", "NAME", []string{"my key"}},
		{"a time that is none", "", "expires", []string{"--expires", "tomorrow", "x"}},
		{"a space in a pattern", "", "field", []string{"--devices", "pump-1 pump-2", "x"}},
	} {
		got := with(t, nil, tt.in, append([]string{"hash-key"}, tt.args...)...)
		if got.fault == nil || !strings.Contains(got.fault.Error(), tt.want) || got.out+got.err != "" {
			t.Errorf("%s: got %+v, want %q", tt.name, got, tt.want)
		}
		if in := strings.TrimSpace(tt.in); got.fault != nil && in != "" && strings.Contains(got.fault.Error(), in) {
			t.Errorf("%s: the key is quoted: %v", tt.name, got.fault)
		}
	}
}

func TestTokenKey(t *testing.T) {
	one, two := with(t, nil, "", "token-key"), with(t, nil, "", "token-key")
	if one.fault != nil || one.err != "" || one.out == two.out {
		t.Fatalf("got %+v and %+v", one, two)
	}
	keys, err := token.ParseKeys(strings.TrimSpace(one.out) + "," + strings.TrimSpace(two.out))
	if err != nil || len(keys) != 2 {
		t.Errorf("rotated: %d keys, %v", len(keys), err)
	}
}
