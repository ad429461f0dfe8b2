package wire_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"websocketbridge/relay/wire"
)

// The table is what both ends and the documentation rely on: its numbers do not
// change by accident.
func TestOutcomes(t *testing.T) {
	want := map[wire.Code][2]int{
		"bad_request": {400, 4400}, "unauthenticated": {401, 4401}, "forbidden": {403, 4403}, "bad_signature": {400, 4400},
		"auth_unavailable": {503, 4503},
		"device_not_found": {404, 4404}, "device_offline": {404, 4404}, "device_refused": {409, 4409},
		"method_not_allowed": {405, 0}, "upgrade_required": {426, 0},
		"limit_reached": {429, 4429}, "hub_throttled": {429, 4429}, "hub_failed": {502, 4502},
		"draining": {503, 4503}, "audit_failed": {503, 4503}, "dial_back_timeout": {504, 4504}, "internal": {500, 1011},
		"bad_token": {400, 0}, "token_proof": {403, 0}, "bridge_gone": {410, 0}, "owner_lost": {502, 1012},
		"done": {0, 1000}, "peer_lost": {0, 1001}, "peer_dead": {0, 1001}, "protocol": {0, 1002},
		"idle_timeout": {0, 1008}, "max_duration": {0, 1008}, "max_bytes": {0, 1008}, "overload": {0, 1013},
		"requester_out": {0, 0}, "killed": {403, 1008}, "permission_revoked": {403, 1008},
	}
	for _, o := range wire.Outcomes() {
		if got := [2]int{o.Status, o.Close}; got != want[o.Code] {
			t.Errorf("%s has %v, want %v", o.Code, got, want[o.Code])
		}
		delete(want, o.Code)
		if o.Title == "" || !strings.HasSuffix(o.Title, ".") {
			t.Errorf("%s has title %q", o.Code, o.Title)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if got := wire.Code("from a newer relay").Row().Code; got != wire.Internal {
		t.Errorf("an unknown code has row %s", got)
	}
}

func TestChecks(t *testing.T) {
	long := strings.Repeat("d", 129)
	for _, tt := range []struct {
		what  string
		check func(string) error
		value string
		ok    bool
	}{
		{"device", wire.CheckDeviceID, "pump-7", true},
		{"device", wire.CheckDeviceID, "a-.+%_#*?!(),:=@$'", true},
		{"device", wire.CheckDeviceID, long[:128], true},
		{"device", wire.CheckDeviceID, long, false},
		{"device", wire.CheckDeviceID, "", false},
		{"device", wire.CheckDeviceID, "a/b", false},
		{"device", wire.CheckDeviceID, "ä", false},
		{"device", wire.CheckDeviceID, "a b", false},
		{"target", wire.CheckTarget, "ssh", true},
		{"target", wire.CheckTarget, "[fe80::1]:22", true},
		{"target", wire.CheckTarget, "größe", true},
		{"target", wire.CheckTarget, "", false},
		{"target", wire.CheckTarget, "a b", false},
		{"target", wire.CheckTarget, "a,b", false},
		{"target", wire.CheckTarget, "a\nb", false},
		{"target", wire.CheckTarget, "a\xff", false},
		{"target", wire.CheckTarget, long, false},
		{"data", wire.CheckRequestData, "", true},
		{"data", wire.CheckRequestData, strings.Repeat("x", 2048), true},
		{"data", wire.CheckRequestData, strings.Repeat("x", 2049), false},
		{"data", wire.CheckRequestData, "\xff", false},
	} {
		if err := tt.check(tt.value); (err == nil) != tt.ok {
			t.Errorf("%s %q: %v", tt.what, tt.value, err)
		}
	}
}

func FuzzSplitTargets(f *testing.F) {
	for _, s := range []string{"", "ssh", "ssh,web", ",", "a,,b", "10.0.0.1:22,[::1]:80", strings.Repeat("a,", 20)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := wire.SplitTargets(s)
		if err != nil {
			return
		}
		if got := wire.JoinTargets(names); got != s {
			t.Errorf("%q became %q", s, got)
		}
		if len(names) > wire.MaxTargets {
			t.Errorf("%d names", len(names))
		}
	})
}

func FuzzReason(f *testing.F) {
	for _, s := range []string{"", "draining: the node stops", "draining", "bye", "x: y", strings.Repeat("é", 100), "\xff\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := wire.Reason{Code: wire.Draining, Text: s}.String()
		if len(out) > wire.MaxReason || !utf8.ValidString(out) {
			t.Errorf("%q does not fit a close frame", out)
		}
		if r := wire.ParseReason(out); r.Code != wire.Draining {
			t.Errorf("%q lost its code", out)
		}
		wire.ParseReason(s)
	})
}

func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"title":"t","status":404,"code":"device_offline","detail":"d","hint":"h","bridgeId":"b"}`))
	f.Add([]byte(`<html>`))
	f.Add([]byte(`{"code":7}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wire.ParseProblem(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := wire.ParseProblem(again); err != nil || q != p {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}

func TestProblemGolden(t *testing.T) {
	p := wire.NewProblem(wire.DeviceOffline, `device "pump-7" is not connected to the hub`, "bjtzdprala3m5fmwcxwabxfreu")
	b, err := json.Marshal(p)
	const want = `{"title":"The device is not connected to the hub.","status":404,"code":"device_offline","detail":"device \"pump-7\" is not connected to the hub","hint":"is the device powered, on its network, and its agent running?","bridgeId":"bjtzdprala3m5fmwcxwabxfreu"}`
	if err != nil || string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestPermission(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]wire.Permission{
		`{"allowed":false,"why":"no"}`: {Why: "no"},
		`{"allowed":true,"rule":"ops","why":"yes","caps":{"bridges":5,"maxDuration":7200,"idle":900,"maxBytes":1024,"connectsPerMinute":30},"until":"2026-01-02T03:04:05Z"}`: {
			Allowed: true, Rule: "ops", Why: "yes", Caps: &wire.Caps{5, 7200, 900, 1024, 30}, Until: &until,
		},
	} {
		got, err := wire.ParsePermission([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if back, err := json.Marshal(got); err != nil || string(back) != text {
			t.Errorf("got %s, want %s", back, text)
		}
	}
	for _, text := range []string{"", "<html>", "{}", "[]", `{"allowed":"yes"}`, `{"allowed":null}`, `{"allowed":true,"why":"` + strings.Repeat("x", wire.MaxProblem) + `"}`} {
		if got, err := wire.ParsePermission([]byte(text)); err == nil {
			t.Errorf("%.40s: got %+v", text, got)
		}
	}
}
