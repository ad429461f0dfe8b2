package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/wire"
)

// events are what a file has, with the code behind it where there is one.
func events(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var r struct {
			audit.Record
			Seq int
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, strings.TrimSpace(string(r.Event)+" "+r.Code+strings.Join(r.Settings, "")))
	}
	return out
}

// waitEvents waits until the file has these.
func waitEvents(t *testing.T, path string, want ...string) {
	t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var got []string
		if _, err := os.Stat(path); err == nil {
			got = events(t, path)
		}
		if strings.Join(got, "\n") == strings.Join(want, "\n") {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// From start to stop, with logrotate and new keys in between.
func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_AUDIT": path, "RELAY_RELOAD": "0"})
	r.device("pump-7")
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	r.echo(s)
	s.Close()
	waitEvents(t, path, "started", "opened", "closed done")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	raise(t, syscall.SIGHUP)
	waitEvents(t, path)
	keys, err := os.ReadFile(os.Getenv("RELAY_API_KEYS"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, os.Getenv("RELAY_API_KEYS"), string(keys)+"# a comment\n")
	raise(t, syscall.SIGHUP)
	waitEvents(t, path, "config_reloaded RELAY_API_KEYS")
	raise(t, syscall.SIGTERM)
	r.wait()
	waitEvents(t, path, "config_reloaded RELAY_API_KEYS", "stopped")
}

// A disk that is full from the start: no bridge, or all the same, as was asked for.
func TestAuditFails(t *testing.T) {
	for _, failure := range []string{"closed", "open"} {
		t.Run(failure, func(t *testing.T) {
			r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_AUDIT": "/dev/full", "RELAY_AUDIT_FAILURE": failure})
			r.device("pump-7")
			r.log.wait(t, `msg="audit log cannot be written; trying again" reason="write /dev/full: no space left on device"`)
			s, err := r.dial()
			status, body := r.get(wire.PathReadyz)
			if failure == "closed" {
				if !refused(err, wire.AuditFailed) || status != http.StatusServiceUnavailable || !strings.Contains(body, "no space left") {
					t.Errorf("got %v; readyz %d %s", err, status, body)
				}
			} else {
				if err != nil || status != http.StatusOK {
					t.Fatalf("got %v; readyz %d %s", err, status, body)
				}
				r.echo(s)
				s.Close()
			}
			raise(t, syscall.SIGTERM)
			err = <-r.ended
			r.ended = nil
			if err == nil || !strings.Contains(err.Error(), "lines of the audit log are lost") {
				t.Errorf("run: %v", err)
			}
		})
	}
}

func TestAuditSettings(t *testing.T) {
	env := map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "fake", "RELAY_LISTEN": "127.0.0.1:0"}
	for _, tt := range []struct{ name, value, want string }{
		{"RELAY_AUDIT", t.TempDir() + "/no/audit", "RELAY_AUDIT: open "},
		{"RELAY_AUDIT_FAILURE", "maybe", `RELAY_AUDIT_FAILURE: "maybe" is neither closed nor open`},
		{"RELAY_AUDIT_MAX_SIZE", "-1", "RELAY_AUDIT_MAX_SIZE: -1 is negative"},
		{"RELAY_AUDIT_KEEP", "-1", "RELAY_AUDIT_KEEP: -1 is negative"},
	} {
		all := map[string]string{tt.name: tt.value}
		for k, v := range env {
			all[k] = v
		}
		if got := with(t, all, ""); got.fault == nil || !strings.Contains(got.fault.Error(), tt.want) {
			t.Errorf("got %v, want %s", got.fault, tt.want)
		}
	}
}
