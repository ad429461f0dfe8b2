package emulator

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestRESTQuery(t *testing.T) {
	l := serveHub(t, Config{})
	for i := range 5 {
		if _, err := l.PutDevice(Device{ID: fmt.Sprint("q", i), Disabled: i == 4}); err != nil {
			t.Fatal(err)
		}
	}
	l.wants(l.ask("PATCH", "/twins/q1", `{"tags":{"site":{"name":"it's","floor":3},"hot":true}}`), 200, "")
	for query, want := range map[string]string{
		"SELECT * FROM devices":                                                                                    "d other q0 q1 q2 q3 q4",
		"select * from devices where status = 'disabled'":                                                          "q4",
		"SELECT * FROM devices WHERE tags.site.name = 'it''s' AND tags.site.floor=3":                               "q1",
		`SELECT * FROM devices WHERE tags.hot = true and status != "disabled"`:                                     "q1",
		"SELECT * FROM devices WHERE tags.site.floor = '3'":                                                        "",
		"SELECT * FROM devices WHERE deviceId='q3'":                                                                "q3",
		"SELECT * FROM devices.modules":                                                                            "d",
		"SELECT * FROM devices.modules WHERE moduleId = 'x'":                                                       "",
		"SELECT * FROM devices WHERE deviceId <> 'd' AND deviceId != 'other' AND connectionState = 'Disconnected'": "q0 q1 q2 q3 q4",
	} {
		body, _ := json.Marshal(map[string]string{"Query": query})
		var got []string
		next := ""
		for range 10 {
			a := l.ask("POST", "/devices/query", string(body), "x-ms-max-item-count", "2", "x-ms-continuation", next)
			l.wants(a, 200, "")
			var page []map[string]any
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page) > 2 {
				t.Fatal(a)
			}
			for _, d := range page {
				got = append(got, d["deviceId"].(string))
			}
			if next = a.header.Get("x-ms-continuation"); next == "" {
				break
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s", query, s)
		}
	}
	for _, bad := range []string{"", "SELECT deviceId FROM devices", "SELECT * FROM jobs", "SELECT * FROM devices WHERE a > 1", "SELECT * FROM devices WHERE a = 'b",
		"SELECT * FROM devices ORDER BY a", "SELECT * FROM devices WHERE a = b"} {
		body, _ := json.Marshal(map[string]string{"query": bad})
		l.wants(l.ask("POST", "/devices/query", string(body)), 400, "ArgumentInvalid")
	}
	l.wants(l.ask("POST", "/devices/query", `{"query":"SELECT * FROM devices"}`, "x-ms-continuation", "?"), 400, "ArgumentInvalid")
}

func FuzzQuery(f *testing.F) {
	f.Add("SELECT * FROM devices WHERE tags.a = 'x''y' AND b != 3")
	f.Add(`SELECT * FROM devices.modules WHERE status <> "enabled"`)
	f.Add("SELECT * FROM devices WHERE a = '")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseQuery(s)
		if err == nil {
			q.holds(map[string]any{"deviceId": "d", "tags": map[string]any{"a": "x"}, "b": json.Number("3")})
		}
	})
}
