package policy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
)

const file = `version: 1
groups:
  pumps: [pump-*, "well-?"]
  valves:
    - valve-*
rules:
  - name: operators
    who:
      - ops
      - "oidc:*@example.com"
      - {claim: roles, is: Bridge.User}
      - {method: client-cert, name: "plant-*"}
    devices: [{group: pumps}, boiler-1]
    targets: [ssh, web]
    hours: {days: mon-fri, from: "07:00", to: "19:00", zone: Europe/Amsterdam}
    caps: {bridges: 5, max_duration: 2h, idle: 15m, max_bytes: 1GiB, connects_per_minute: 30}
  - name: on-call
    who: [{claim: groups, is: 5d5f-on-call}]
    devices: ["*"]
    targets: [ssh, "-"]
    caps: {max_duration: 1h, bridges: 9}
  - name: no-valves
    deny: true
    who: ["*"]
    devices: [{group: valves}]
    targets: [ssh]
  - name: valves
    who: [ci]
    devices: [{group: valves}]
    targets: ["*"]
  - name: links
    who: [{method: signed-url}]
    devices: [tank-1]
    targets: ["*"]
  - name: default-only
    who: [raw]
    devices: [pump-7]
    targets: ["-"]
  - name: maintenance
    deny: true
    who: [night]
    devices: ["*"]
    targets: ["*"]
    hours: [{days: sun, zone: UTC}, {days: [tue, thu], from: "02:00", to: "04:00", zone: UTC}]
  - name: nights
    who: [night]
    devices: ["*"]
    targets: ["*"]
    hours: {from: "22:00", to: "06:00", zone: UTC}
`

func mustParse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	tuesday  = at("2026-06-02T10:00:00Z") // noon in Amsterdam
	saturday = at("2026-06-06T20:14:00Z")
)

func key(name string) *auth.Principal { return &auth.Principal{Name: name, Method: auth.MethodAPIKey} }

func claims(name, claim string, values ...string) *auth.Principal {
	return &auth.Principal{Name: name, Method: auth.MethodOIDC, Claims: map[string][]string{claim: values}}
}

func signed(name string) *auth.Principal {
	return auth.Signed(name, "x", []string{"x"}, time.Time{})
}

func TestDecide(t *testing.T) {
	p := mustParse(t, file)
	const d = "" // the default target
	for _, tt := range []struct {
		name    string
		by      *auth.Principal
		device  string
		targets []string
		now     time.Time
		rules   string
		why     string // the whole of it
		until   string
	}{
		{"a name", key("ops"), "pump-7", []string{"ssh"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"a glob of a name", claims("oidc:ann@example.com", "x"), "well-3", []string{"web"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"a claim", claims("oidc:bob@elsewhere", "roles", "Other", "Bridge.User"), "boiler-1", []string{"web"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"method and name", &auth.Principal{Name: "plant-3", Method: auth.MethodCert}, "pump-7", []string{"ssh"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"the name by another method", key("plant-3"), "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "plant-3" in`, ""},
		{"another name by the method", &auth.Principal{Name: "home-3", Method: auth.MethodCert}, "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "home-3" in`, ""},
		{"a value of another claim", claims("oidc:bob@elsewhere", "groups", "Bridge.User"), "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "oidc:bob@elsewhere" in`, ""},
		{"a claim in another case", claims("oidc:bob@elsewhere", "roles", "bridge.user"), "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "oidc:bob@elsewhere" in`, ""},
		{"two targets", key("ops"), "pump-7", []string{"ssh", "web"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"two targets, one not", key("ops"), "pump-7", []string{"ssh", "db"}, tuesday, "", `"ops" may reach device "pump-7", but not target "db" there`, ""},
		{"no target", key("ops"), "pump-7", []string{d}, tuesday, "", `"ops" may reach device "pump-7", but not its default target: name a target`, ""},
		{"another device", key("ops"), "pomp-7", []string{"ssh"}, tuesday, "", `"ops" may not reach device "pomp-7"`, ""},
		{"a group takes one character", key("ops"), "well-12", []string{"ssh"}, tuesday, "", `"ops" may not reach device "well-12"`, ""},
		{"nobody", &auth.Principal{}, "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "" in`, ""},
		{"after hours", key("ops"), "pump-7", []string{"ssh"}, saturday, "",
			`rule "operators" lets "ops" reach target "ssh" on device "pump-7" mon-fri 07:00-19:00 Europe/Amsterdam only; it is Saturday 22:14 there`, ""},
		{"after hours, a target that is never", key("ops"), "pump-7", []string{"db"}, saturday, "", `"ops" may reach device "pump-7", but not target "db" there`, ""},
		{"after hours by another rule", claims("oidc:ann@example.com", "groups", "5d5f-on-call"), "pump-7", []string{"ssh"}, saturday, "on-call", "", ""},
		{"the first rule counts", claims("oidc:ann@example.com", "groups", "5d5f-on-call"), "pump-7", []string{"ssh"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"each target by another rule", claims("oidc:ann@example.com", "groups", "5d5f-on-call"), "pump-7", []string{"web", d}, tuesday, "operators, on-call", "", "2026-06-02T17:00:00Z"},
		{"denied", claims("oidc:ann@example.com", "groups", "5d5f-on-call"), "valve-1", []string{"ssh"}, tuesday, "no-valves", `rule "no-valves" keeps "oidc:ann@example.com" from target "ssh" on device "valve-1"`, ""},
		{"denied although a later rule allows", key("ci"), "valve-1", []string{"ssh"}, tuesday, "no-valves", `rule "no-valves" keeps "ci" from target "ssh" on device "valve-1"`, ""},
		{"denied for one target of two", key("ci"), "valve-1", []string{"web", "ssh"}, tuesday, "no-valves", `rule "no-valves" keeps "ci" from target "ssh" on device "valve-1"`, ""},
		{"not denied for another target", key("ci"), "valve-1", []string{"web"}, tuesday, "valves", "", ""},
		{"a glob of targets has the default one", key("ci"), "valve-1", []string{d}, tuesday, "valves", "", ""},
		{"the default target only", key("raw"), "pump-7", []string{d}, tuesday, "default-only", "", ""},
		{"the default target is no name", key("raw"), "pump-7", []string{"-"}, tuesday, "", `"raw" may reach device "pump-7", but not target "-" there`, ""},
		{"signed by somebody named", signed("ops"), "pump-7", []string{"ssh"}, tuesday, "operators", "", "2026-06-02T17:00:00Z"},
		{"signed by somebody with a claim", signed("oidc:bob@elsewhere"), "pump-7", []string{"ssh"}, tuesday, "", `"signed:oidc:bob@elsewhere" may not reach device "pump-7"`, ""},
		{"signed, where links are let in", signed("oidc:bob@elsewhere"), "tank-1", []string{"ssh"}, tuesday, "links", "", ""},
		{"signed, denied", signed("ci"), "valve-1", []string{"ssh"}, tuesday, "no-valves", `rule "no-valves" keeps "signed:ci" from target "ssh" on device "valve-1"`, ""},
		{"a key that calls itself signed", key("signed:ops"), "pump-7", []string{"ssh"}, tuesday, "", `no rule of the policy lets "signed:ops" in`, ""},
		{"before midnight", key("night"), "a", []string{"x"}, at("2026-06-01T23:59:59Z"), "nights", "", "2026-06-02T02:00:00Z"},
		{"after midnight", key("night"), "a", []string{"x"}, at("2026-06-03T05:59:59Z"), "nights", "", "2026-06-03T06:00:00Z"},
		{"the night is over", key("night"), "a", []string{"x"}, at("2026-06-03T06:00:00Z"), "", `rule "nights" lets "night" reach target "x" on device "a" 22:00-06:00 UTC only; it is Wednesday 06:00 there`, ""},
		{"while denied", key("night"), "a", []string{""}, at("2026-06-02T03:00:00Z"), "maintenance", `rule "maintenance" keeps "night" from device "a"`, ""},
		{"after denied", key("night"), "a", []string{"x"}, at("2026-06-02T04:00:00Z"), "nights", "", "2026-06-02T06:00:00Z"},
		{"until a day is denied", key("night"), "a", []string{"x"}, at("2026-06-06T23:00:00Z"), "nights", "", "2026-06-07T00:00:00Z"},
		{"nothing", key("ops"), "pump-7", nil, tuesday, "", "no target was asked about", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := p.Decide(tt.by, tt.device, tt.targets, tt.now)
			if got.Allowed != (tt.why == "") || strings.Join(got.Rules, ", ") != tt.rules {
				t.Fatalf("got %+v, want rules %s", got, tt.rules)
			}
			if until := map[bool]string{false: got.Until.UTC().Format(time.RFC3339)}[got.Until.IsZero()]; until != tt.until {
				t.Errorf("until %s, want %s", until, tt.until)
			}
			if got.Allowed {
				if got.Err() != nil {
					t.Error(got.Err())
				}
				return
			}
			if got.Why != tt.why || got.Caps != (policy.Caps{}) {
				t.Errorf("got  %+v\nwant %s", got, tt.why)
			}
			if err := got.Err(); !errors.Is(err, auth.ErrForbidden) || err.Error() != "forbidden: "+tt.why {
				t.Error(err)
			}
		})
	}
}

func TestWhyAllowed(t *testing.T) {
	p := mustParse(t, file)
	by := claims("oidc:ann@example.com", "groups", "5d5f-on-call")
	for _, tt := range []struct {
		targets []string
		now     time.Time
		want    string
	}{
		{[]string{"ssh"}, saturday, `rule "on-call" allows it`},
		{[]string{"ssh"}, tuesday, `rule "operators" allows it until 2026-06-02T17:00:00Z`},
		{[]string{"web", ""}, tuesday, `rules "operators" and "on-call" allow it until 2026-06-02T17:00:00Z`},
	} {
		if got := p.Decide(by, "pump-7", tt.targets, tt.now).Why; got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.targets, got, tt.want)
		}
	}
}

func TestCaps(t *testing.T) {
	p := mustParse(t, file)
	by := claims("oidc:ann@example.com", "groups", "5d5f-on-call")
	operators := policy.Caps{Bridges: 5, MaxDuration: 2 * time.Hour, Idle: 15 * time.Minute, MaxBytes: 1 << 30, ConnectsPerMinute: 30}
	if got := p.Decide(by, "pump-7", []string{"ssh"}, tuesday).Caps; got != operators {
		t.Errorf("got %+v", got)
	}
	if got := p.Decide(by, "pump-7", []string{"ssh"}, saturday).Caps; got != (policy.Caps{Bridges: 9, MaxDuration: time.Hour}) {
		t.Errorf("got %+v", got)
	}
	both := operators
	both.MaxDuration = time.Hour
	if got := p.Decide(by, "pump-7", []string{"web", ""}, tuesday).Caps; got != both {
		t.Errorf("got %+v, want the stricter of both", got)
	}
	for text, want := range map[string]int64{
		"4096": 4096, "1KiB": 1 << 10, "3 MiB": 3 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40, "5KB": 5000, "500MB": 500e6, "7GB": 7e9, "1TB": 1e12,
		"0": 0, "-1": 0, "1.5GiB": 0, "GiB": 0, "9999999999TiB": 0, "1gib": 0, "1GiB GiB": 0,
	} {
		p, err := policy.Parse(rule("caps: {max_bytes: \"" + text + "\"}"))
		if want == 0 {
			if err == nil || !strings.Contains(err.Error(), "is no number of bytes, as 1GiB") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := p.Decide(key("ops"), "d", []string{"t"}, tuesday).Caps.MaxBytes; got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

// rule is a file with one rule that lets ops do everything, and more lines of it.
func rule(more ...string) string {
	return "version: 1\nrules:\n  - name: all\n    who: [ops]\n    devices: [\"*\"]\n    targets: [\"*\"]\n    " + strings.Join(more, "\n    ") + "\n"
}

// The zero Policy lets nobody in; a faulty file changes nothing.
func TestReplace(t *testing.T) {
	p := new(policy.Policy)
	allowed := func() bool { return p.Decide(key("ops"), "d", []string{"t"}, tuesday).Allowed }
	if allowed() || p.Len() != 0 {
		t.Error("the zero Policy allows something")
	}
	if err := p.Replace(rule()); err != nil || !allowed() || p.Len() != 1 {
		t.Error(err)
	}
	if err := p.Replace("version: 2"); err == nil || !strings.HasPrefix(err.Error(), "policy: line 1: ") || !allowed() {
		t.Error(err)
	}
	if err := p.Replace(strings.ReplaceAll(rule(), "ops", "ann")); err != nil || allowed() {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if _, err := policy.Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := policy.Load(path); err != nil || p.Len() != 8 {
		t.Error(p, err)
	}
	if runtime.GOOS != "windows" {
		os.Chmod(path, 0o664)
		if _, err := policy.Load(path); err == nil || !strings.Contains(err.Error(), "lets others than its owner write") {
			t.Error(err)
		}
	}
	os.Chmod(path, 0o600)
	os.WriteFile(path, []byte("version: 2\n"), 0o600)
	if _, err := policy.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": policy: line 1: ") {
		t.Error(err)
	}
}

// A rule more takes its own time only, and a group that is in all of them is matched once.
func BenchmarkDecide(b *testing.B) {
	var text strings.Builder
	text.WriteString("version: 1\ngroups:\n  all: [")
	for i := range 500 {
		fmt.Fprintf(&text, "plant-%d-*, ", i)
	}
	text.WriteString("pump-*]\nrules:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  - {name: r%d, who: [\"oidc:*@site-%d.example.com\", {claim: groups, is: g%d}], devices: [{group: all}], targets: [ssh]}\n", i, i, i)
	}
	p := mustParse(b, text.String())
	for name, by := range map[string]*auth.Principal{
		"last":   claims("oidc:ann@example.com", "groups", "g999"),
		"nobody": claims("oidc:ann@example.com", "groups", "x", "y", "z"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p.Decide(by, "pump-7", []string{"ssh"}, tuesday).Allowed != (name == "last") {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// All faults at once, each with its line; what could be a secret elsewhere is no secret
// here.
func TestManyFaults(t *testing.T) {
	_, err := policy.Parse(`version: 1
groups:
  pumps: []
  pumps: [a]
rules:
  - name: one
    who: [ops, ops
    ]
    devises: [a]
    targets: ["a b", "\\d"]
  - name: one
    who: ["*"]
    devices: [{group: wells}]
    targets: [ssh]
    hours: {days: fry, from: "7:00", to: "25:00", zone: Mars/Olympus}
    caps: {bridges: 0}
`)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`line 3: group "pumps" is empty; ["*"] is everything`,
		`line 4: groups has "pumps" in line 3 already`,
		`line 6: rule "one": devices is missing`,
		`line 9: rule "one" has an unknown key "devises"; there are name, deny, who, devices, targets, hours, caps`,
		`line 10: rule "one": targets: the glob "a b" has a space or a control character, which no name has`,
		`line 10: rule "one": targets: the glob "\\d" has a \ before a letter or digit; this is no regular expression`,
		`line 11: rule "one" is in line 6 already`,
		`line 13: rule "one": devices: there is no group "wells"`,
		`line 15: rule "one": hours: days: "fry" is no day or range of days, as mon or mon-fri`,
		`line 15: rule "one": hours: from: "7:00" is no time, as 07:00`,
		`line 15: rule "one": hours: to: "25:00" is no time, as 07:00`,
		`line 15: rule "one": hours: zone: "Mars/Olympus" is no time zone, as Europe/Amsterdam, or UTC`,
		`line 16: rule "one": caps: bridges: "0" is no number from 1 to 1000000`,
	}
	got := strings.Split(strings.TrimPrefix(err.Error(), "policy: "), "\n")
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("not expected: %s", line)
		}
	}
}
