package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
)

// files are the names and texts of a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; only its owner is to read it", e.Name(), info.Mode(), err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	first := with(t, nil, "", "init", dir, "--name", "ops")
	if first.fault != nil || strings.Count(first.out, "made "+dir) != 5 || first.err != "" {
		t.Fatalf("%+v", first)
	}
	made := files(t, dir)
	if got := slices.Sorted(maps.Keys(made)); !slices.Equal(got, []string{"api-keys", "ops.key", "signal-key", "signal-key.pub", "token-keys"}) {
		t.Fatalf("made %q", got)
	}
	if _, err := token.ParseKeys(made["token-keys"]); err != nil {
		t.Error(err)
	}
	key, err := signaler.ParseSigningKey(made["signal-key"])
	if err != nil || key.Public().String()+"\n" != made["signal-key.pub"] {
		t.Errorf("%v; the public line is %q", err, made["signal-key.pub"])
	}
	if _, err := auth.ParseKeys(made["api-keys"]); err != nil || !strings.HasPrefix(made["api-keys"], "ops ") {
		t.Errorf("%v in %q", err, made["api-keys"])
	}
	for name, text := range made {
		if secret := strings.TrimSpace(text); name != "signal-key.pub" && strings.Contains(first.out, secret) {
			t.Errorf("it printed what is in %s", name)
		}
	}

	again := with(t, nil, "", "init", dir, "--name", "ops")
	if again.fault != nil || strings.Contains(again.out, "made") || !maps.Equal(files(t, dir), made) {
		t.Errorf("the second time: %+v", again)
	}
	// The key is where it belongs: no other one is made.
	os.Remove(filepath.Join(dir, "ops.key"))
	if got := with(t, nil, "", "init", dir, "--name", "ops"); got.fault != nil || len(files(t, dir)) != 4 {
		t.Errorf("without the key: %+v", got)
	}
	// Of what was interrupted the rest is made.
	os.Remove(filepath.Join(dir, "api-keys"))
	os.Remove(filepath.Join(dir, "signal-key.pub"))
	os.WriteFile(filepath.Join(dir, "ops.key"), []byte(made["ops.key"]), 0o600)
	if got := with(t, nil, "", "init", dir, "--name", "ops"); got.fault != nil {
		t.Errorf("after an interruption: %+v", got)
	}
	now := files(t, dir)
	if now["ops.key"] != made["ops.key"] || now["signal-key.pub"] != made["signal-key.pub"] || now["api-keys"] == "" {
		t.Errorf("after an interruption other keys are there")
	}
}

// A node takes what init made, and its user gets in with the key.
func TestInitMakesSettings(t *testing.T) {
	dir := t.TempDir()
	if got := with(t, nil, "", "init", dir); got.fault != nil {
		t.Fatal(got.fault)
	}
	r := start(t, map[string]string{
		"RELAY_PLAIN": "true", "RELAY_API_KEYS": filepath.Join(dir, "api-keys"),
		"RELAY_TOKEN_KEYS_FILE": filepath.Join(dir, "token-keys"), "RELAY_SIGNAL_KEY_FILE": filepath.Join(dir, "signal-key"),
	})
	r.key = strings.TrimSpace(files(t, dir)["me.key"])
	r.device("pump-7")
	crowd := newCrowd(r, 1)
	crowd.round()
	crowd.stop()
}

func TestInitFaults(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{dir, "--name", "../me"}, "cannot be a file's name"},
		{[]string{dir, "--name", "two words"}, "api-keys: "},
		{[]string{filepath.Join(dir, "me.txt", "keys")}, "not a directory"},
	} {
		os.WriteFile(filepath.Join(dir, "me.txt"), nil, 0o600)
		if got := with(t, nil, "", append([]string{"init"}, tt.args...)...); got.fault == nil || !strings.Contains(got.fault.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.args, got.fault, tt.want)
		}
	}
	broken := filepath.Join(dir, "broken")
	os.Mkdir(broken, 0o700)
	os.WriteFile(filepath.Join(broken, "signal-key"), []byte("hunter2\n"), 0o600)
	if got := with(t, nil, "", "init", broken); got.fault == nil || strings.Contains(got.fault.Error(), "hunter2") {
		t.Errorf("a broken key: %v", got.fault)
	}
}
