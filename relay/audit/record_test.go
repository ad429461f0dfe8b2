package audit_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/audit"
)

func at(t *testing.T, s string) audit.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return audit.Time{Time: parsed}
}

// The examples of doc.go are what is written: one for each event, in version 1.
func TestGolden(t *testing.T) {
	who := audit.Record{Principal: "ops", Method: "api-key", From: "192.0.2.7", DeviceID: "pump-7", Targets: []string{"ssh"}}
	with := func(e audit.Event, change func(*audit.Record)) audit.Record {
		r := who
		r.Event = e
		change(&r)
		return r
	}
	var got []string
	line := func(seq uint64, now string, suppressed uint64, r audit.Record) {
		got = append(got, strings.TrimSuffix(audit.Line(seq, at(t, now).Time, "10.0.0.5:7443", "4t2m7cbq3hzka", r, suppressed), "\n"))
	}
	line(1, "2026-01-02T03:04:05Z", 0, audit.Record{Event: audit.Started, URL: "wss://relay.example.com", Version: "v0.5.0"})
	line(2, "2026-01-02T03:04:06Z", 0, with(audit.Refused, func(r *audit.Record) {
		r.BridgeID, r.Decision, r.Rule, r.Path, r.Code = "b7q5zk3v6yw2m4xd", audit.Deny, "no night shifts", "/bridge/connect", "forbidden"
		r.Start = at(t, "2026-01-02T04:04:05.9+01:00")
	}))
	opened := func(r *audit.Record) {
		r.BridgeID, r.Decision, r.Rule, r.Via, r.Start = "c3m5zk3v6yw2m4xd", audit.Allow, "ops", "10.0.0.6:7443", at(t, "2026-01-02T03:04:06.8Z")
	}
	line(3, "2026-01-02T03:04:07Z", 0, with(audit.Opened, opened))
	line(4, "2026-01-02T04:04:07Z", 0, with(audit.Closed, func(r *audit.Record) {
		opened(r)
		r.Code, r.By, r.End, r.Bytes = "done", "requester", at(t, "2026-01-02T04:04:07Z"), &audit.Bytes{ToDevice: 1024, ToRequester: 52340}
	}))
	line(5, "2026-01-02T04:05:00Z", 0, with(audit.SignedURLMade, func(r *audit.Record) {
		r.Targets, r.Decision, r.Rule, r.Expires = []string{"web"}, audit.Allow, "ops", at(t, "2026-01-02T12:00:00Z")
	}))
	line(6, "2026-01-02T04:06:00Z", 0, with(audit.Killed, func(r *audit.Record) {
		r.BridgeID, r.From, r.Code = "d5m5zk3v6yw2m4xd", "127.0.0.1:50412", "killed"
	}))
	line(7, "2026-01-02T04:07:00Z", 0, audit.Record{Event: audit.ConfigReloaded, Settings: []string{"RELAY_API_KEYS"}})
	line(9, "2026-01-02T04:08:00Z", 17, audit.Record{Event: audit.Stopped})

	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(\{.*\})$`).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, m[1])
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\ndoc.go has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What strangers send cannot make a line long, two lines, or no JSON.
func TestHostileText(t *testing.T) {
	for name, text := range map[string]string{
		"line ends": "a\nb\r\n{\"v\":1}", "control": "\x00\x1b[2J\x7f", "not UTF-8": "\xff\xfe" + strings.Repeat("\x80", 2000),
		"separators": "\u2028\u2029", "cut in a rune": strings.Repeat("é", 3000)[1:],
	} {
		t.Run(name, func(t *testing.T) {
			many := make([]string, 1000)
			for i := range many {
				many[i] = text
			}
			got := audit.Line(1, time.Now(), "", "i", audit.Record{Event: audit.Refused, DeviceID: text, Targets: many, Rule: text}, 0)
			if strings.Count(got, "\n") != 1 || len(got) > 64*6*audit.MaxTextInAField+10_000 {
				t.Errorf("%d bytes, %d line ends", len(got), strings.Count(got, "\n"))
			}
			var back map[string]any
			if err := json.Unmarshal([]byte(got), &back); err != nil {
				t.Fatal(err)
			}
			if id := back["deviceId"].(string); len(id) > audit.MaxTextInAField*3 {
				t.Errorf("%d bytes of a device ID", len(id))
			}
		})
	}
}
