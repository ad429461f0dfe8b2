package emulator

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRESTMethod(t *testing.T) {
	l := serveHub(t, Config{})
	link := newCoreLink()
	a, err := l.attach(mod, link, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	a.listen(ListenMethods, true)
	go func() {
		for c := range link.invoked {
			a.methodResult(c.rid, 418, []byte(` {"you":`+c.payload+`,"html":"<&>"} `))
		}
	}()
	t.Cleanup(func() { close(link.invoked) })
	got := l.ask("POST", "/twins/d/modules/m/methods?api-version=2021-04-12", `{"methodName":"Bridge","payload":{"a":[1,2.50]}}`)
	l.wants(got, 200, "")
	if got.body != `{"status":418,"payload":{"you":{"a":[1,2.50]},"html":"<&>"}}` {
		t.Errorf("got %v", got)
	}

	offline := l.ask("POST", "/twins/d/methods", `{"methodName":"Bridge"}`)
	l.wants(offline, 404, "DeviceNotOnline")
	var inner struct {
		ErrorCode int
		Message   string
		Info      map[string]string
	}
	if m, _ := offline.object(t)["Message"].(string); json.Unmarshal([]byte(m), &inner) != nil || inner.ErrorCode != 404103 ||
		inner.Message != "Timed out waiting for device to connect." || inner.Info["timeout"] != "00:00:00" || offline.object(t)["ExceptionMessage"] != "" {
		t.Errorf("got %v", offline)
	}
	if err := l.SetFaults(Faults{ErrorForm: "old"}); err != nil {
		t.Fatal(err)
	}
	old, _ := l.ask("POST", "/twins/d/methods", `{"methodName":"Bridge"}`).object(t)["Message"].(string)
	if old != "ErrorCode:DeviceNotOnline;Timed out waiting for device to connect." {
		t.Errorf("old form: %s", old)
	}
	l.wants(l.ask("POST", "/twins/x/methods", `{"methodName":"Bridge"}`), 404, "DeviceNotFound")
	l.wants(l.ask("POST", "/twins/d/methods", `{"methodName":"Bridge","responseTimeoutInSeconds":4}`), 400, "ArgumentInvalid")
	if s := l.Stats(); s.Methods["answered"] != 1 || s.Methods["DeviceNotOnline"] != 2 || s.Methods["DeviceNotFound"] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRESTFaults(t *testing.T) {
	l := serveHub(t, Config{})
	call := func() answer { return l.ask("POST", "/twins/d/methods", `{"methodName":"x"}`) }
	set := func(f Faults) {
		t.Helper()
		if err := l.SetFaults(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		error  string
		status int
		name   string
	}{
		{"throttled", 429, "ThrottlingException"}, {"unauthorized", 401, "IotHubUnauthorizedAccess"}, {"quota", 403, "IotHubQuotaExceeded"},
		{"unavailable", 503, "ServiceUnavailable"}, {"internal", 500, "ServerError"}, {"tier", 403, "OperationNotAvailableInCurrentTier"},
		{"evicted", 400, "ConnectionForcefullyClosedOnNewConnection"}, {"noAnswer", 504, "GatewayTimeout"},
	} {
		set(Faults{Method: &AnswerFault{Error: tt.error}})
		l.wants(call(), tt.status, tt.name)
		l.wants(l.ask("GET", "/twins/d", ""), 200, "")
	}
	set(Faults{Method: &AnswerFault{Error: "throttled", RetryAfter: Duration(1500 * time.Millisecond), Trigger: Trigger{Nth: 2}}})
	l.wants(call(), 404, "DeviceNotOnline")
	a := call()
	l.wants(a, 429, "ThrottlingException")
	if s := a.header.Get("Retry-After"); s != "2" {
		t.Errorf("Retry-After is %q", s)
	}
	l.wants(call(), 404, "DeviceNotOnline")

	set(Faults{REST: &AnswerFault{Stall: true, Trigger: Trigger{Device: "d"}}, Method: &AnswerFault{Garbage: true}})
	if a := call(); a.status != 502 || a.header.Get("Content-Type") != "text/html" {
		t.Errorf("garbage: %v", a)
	}
	l.wants(l.ask("GET", "/twins/other", ""), 200, "")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if a := l.do(ctx, "GET", "/twins/d", ""); a.status != 0 {
		t.Errorf("a stalled request is answered: %v", a)
	}
	set(Faults{REST: &AnswerFault{Delay: Duration(50 * time.Millisecond)}})
	start := time.Now()
	l.wants(l.ask("GET", "/twins/d", ""), 200, "")
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Errorf("delayed by %v", d)
	}
}

func TestRESTTwins(t *testing.T) {
	l := serveHub(t, Config{})
	got := l.ask("PATCH", "/twins/d", `{"tags":{"site":"north","n":{"a":1}},"properties":{"desired":{"rate":1.50}}}`)
	l.wants(got, 200, "")
	etag := got.object(t)["etag"].(string)
	if !strings.Contains(got.body, `"rate":1.50`) || !strings.Contains(got.body, `"$version":2`) {
		t.Errorf("got %v", got)
	}
	l.wants(l.ask("PATCH", "/twins/d", `{"tags":{"n":null}}`, "If-Match", `"`+etag+`"`), 200, "")
	l.wants(l.ask("PATCH", "/twins/d", `{"tags":{}}`, "If-Match", `"`+etag+`"`), 412, "PreconditionFailed")
	tags := l.ask("GET", "/twins/d?api-version=1", "").object(t)["tags"]
	if fmt.Sprint(tags) != "map[site:north]" {
		t.Errorf("tags %v", tags)
	}
	whole := l.ask("PUT", "/twins/d", `{"tags":{"site":"south"},"properties":{"desired":{"x":true}}}`, "If-Match", "*").object(t)
	if s := fmt.Sprint(whole["tags"]); s != "map[site:south]" || strings.Contains(fmt.Sprint(whole["properties"]), "rate") {
		t.Errorf("replaced %v", whole)
	}
	for _, bad := range []string{`{"tags":{"a.b":1}}`, `{"tags":[]}`, `{`, `{"properties":{"desired":{"a":{"b c":1}}}}`} {
		l.wants(l.ask("PATCH", "/twins/d", bad), 400, "ArgumentInvalid")
	}
	l.wants(l.ask("PATCH", "/twins/d", `{"tags":{"a":"`+strings.Repeat("x", maxTwinSection)+`"}}`), 413, "MessageTooLarge")
	m := l.ask("GET", "/twins/d/modules/m", "").object(t)
	if m["moduleId"] != "m" || m["authenticationType"] != "sas" {
		t.Errorf("module %v", m)
	}
	l.wants(l.ask("GET", "/twins/x", ""), 404, "DeviceNotFound")
}
