package emulator

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (l *lab) admin(method, path, body string, headers ...string) (int, string) {
	l.Helper()
	r, err := http.NewRequestWithContext(l.Context(), method, "http://"+l.AdminAddr()+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.Join(strings.Fields(string(b)), " ")
}

func TestAdmin(t *testing.T) {
	l := serveHub(t, Config{AdminAddr: "127.0.0.1:0"})
	_, link := on(t, l.Hub, dev, ListenMethods, ListenMessages)
	send(t, l.Hub, "1")
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		status             int
		want               string
	}{
		{"GET", "/devices", "", nil, 200, `[ { "deviceId": "d", "connected": true, "listens": [ "methods", "messages" ], "queued": 1 }, { "deviceId": "d", "moduleId": "m", "connected": false, "listens": [], "queued": 0 }, { "deviceId": "other", "connected": false, "listens": [], "queued": 0 } ]`},
		{"GET", "/faults", "", nil, 200, `{}`},
		{"PUT", "/faults", `{"mqtt":{"cut":{"nth":3}}}`, nil, 200, `{ "mqtt": { "cut": { "nth": 3 } } }`},
		{"GET", "/faults", "", []string{"Host", "[::1]:80"}, 200, `{ "mqtt": { "cut": { "nth": 3 } } }`},
		{"PUT", "/faults", `{"mqtt":{"cuts":{}}}`, nil, 400, `faults: json: unknown field "cuts"`},
		{"PUT", "/faults", strings.Repeat(" ", maxAdminBody+1), nil, 413, `http: request body too large`},
		{"POST", "/actions", `{"do":"redeliver"}`, nil, 204, ``},
		{"POST", "/actions", `{"do":"explode"}`, nil, 400, `action: do is "explode"; it is one of disconnect, dropAll, detach, close, redeliver`},
		{"POST", "/actions", `{"do":"disconnect","device":"x"}`, nil, 400, `action disconnect: the hub does not know "x"`},
		{"POST", "/actions", `{"undo":"x"}`, nil, 400, `json: unknown field "undo"`},
		{"POST", "/disconnect?device=d&module=x", "", nil, 404, `action disconnect: the hub does not know "d/x"`},
		{"GET", "/devices", "", []string{"Origin", "http://localhost"}, 403, `browsers have no business here`},
		{"GET", "/devices", "", []string{"Host", "evil.example"}, 403, `Host is not a loopback name`},
		{"GET", "/keys", "", nil, 404, `404 page not found`},
		{"GET", "/events", "", nil, 200, `[]`},
		{"GET", "/events?after=x", "", nil, 400, `after is the seq of an event`},
	} {
		if status, body := l.admin(tt.method, tt.path, tt.body, tt.headers...); status != tt.status || body != tt.want {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, status, body, tt.status, tt.want)
		}
	}
	if got := link.ids(); len(got) != 2 {
		t.Errorf("redelivered: %v", got)
	}
	if status, _ := l.admin("POST", "/disconnect?device=d", ""); status != 204 || link.cause() != errTold {
		t.Errorf("disconnect: %d, closed with %v", status, link.cause())
	}
	var s Stats
	if _, body := l.admin("GET", "/stats", ""); json.Unmarshal([]byte(body), &s) != nil || s.Connects["d"] != 1 || s.Disconnects != 1 || s.MessagesAccepted != 1 {
		t.Errorf("stats %s", body)
	}
	if status, _ := l.admin("POST", "/disconnect", ""); status != 204 {
		t.Errorf("drop all: %d", status)
	}
}

func TestAdminWatchers(t *testing.T) {
	l := serveHub(t, Config{AdminAddr: "127.0.0.1:0"})
	heard := make(chan Action, 10)
	stop := l.watch(func(a Action) { heard <- a })
	l.admin("POST", "/actions", `{"do":"detach","condition":"amqp:link:detach-forced","description":"busy"}`)
	l.admin("POST", "/actions", `{"do":"dropAll"}`)
	stop()
	l.admin("POST", "/actions", `{"do":"close"}`)
	if len(heard) != 1 || (<-heard).Description != "busy" {
		t.Error("a watcher hears what it should not, or the other way round")
	}
}

func TestAdminFollow(t *testing.T) {
	l := serveHub(t, Config{AdminAddr: "127.0.0.1:0", EventLog: 3})
	a, _ := on(t, l.Hub, mod)
	emit := func(body string) {
		t.Helper()
		if err := a.telemetry(Event{Properties: map[string]string{"$.ct": "text/plain"}, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{"dropped", "1", "2", "\xff"} {
		emit(body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+l.AdminAddr()+"/events?follow=1&after=2", nil)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	want := func(parts ...string) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no line: %v", lines.Err())
		}
		for _, p := range parts {
			if !strings.Contains(lines.Text(), p) {
				t.Errorf("%s has no %s", lines.Text(), p)
			}
		}
	}
	want(`"seq":3`, `"deviceId":"d"`, `"moduleId":"m"`, `"body":"2"`, `"$.ct":"text/plain"`)
	want(`"seq":4`, `"bodyBase64":"/w=="`)
	emit("5")
	want(`"seq":5`, `"body":"5"`)
	if e := l.Events(); len(e) != 3 || e[0].Seq != 3 || l.Stats().Events != 5 {
		t.Errorf("the log has %d, from %d", len(e), e[0].Seq)
	}
	if err := a.telemetry(Event{Body: make([]byte, maxEvent+1)}); err == nil || err.Code != 413001 {
		t.Errorf("more than 256 KB: %v", err)
	}
	a.detach()
	if err := a.telemetry(Event{}); err == nil {
		t.Error("a detached link sends telemetry")
	}
	a.lastWill(Event{Body: []byte("will")})
	want(`"body":"will"`)
}

func TestAdminNeedsLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:80", "example.com:80", "nonsense"} {
		if h, err := New(Config{AdminAddr: addr}); err == nil {
			h.Close()
			t.Errorf("%s is taken", addr)
		}
	}
}
