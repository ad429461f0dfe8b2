package emulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler/sas"
)

// A lab is a hub that serves, and an HTTP client for it.
type lab struct {
	*testing.T
	*Hub
	client *http.Client
}

// serveHub runs a hub with the devices d and other, and d's module m, until the
// test ends.
func serveHub(t *testing.T, cfg Config) *lab {
	t.Helper()
	cfg.Devices = append([]Device{{ID: "d", Modules: []Module{{ID: "m"}}}, {ID: "other"}}, cfg.Devices...)
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: h.RootCAs()},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, h.HTTPSAddr())
		},
	}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return &lab{t, h, &http.Client{Transport: tr}}
}

func (l *lab) serviceToken(policy string) string {
	l.Helper()
	c, err := sas.ParseConnectionString(l.ServiceConnectionString(policy))
	if err != nil {
		l.Fatal(err)
	}
	token, err := sas.Sign(c.Resource(), c.PolicyName, c.Key, time.Now().Add(time.Hour))
	if err != nil {
		l.Fatal(err)
	}
	return token
}

// An answer of REST.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %v %s", a.status, a.header, a.body) }

func (a answer) object(t *testing.T) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &o); err != nil {
		t.Fatalf("%v: %v", err, a)
	}
	return o
}

// do asks as iothubowner. headers are pairs; they replace what is there.
func (l *lab) do(ctx context.Context, method, path, body string, headers ...string) answer {
	l.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+l.HostName()+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	r.Header.Set("Authorization", l.serviceToken("iothubowner"))
	for p := range slices.Chunk(headers, 2) {
		r.Header.Set(p[0], p[1])
	}
	resp, err := l.client.Do(r)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (l *lab) ask(method, path, body string, headers ...string) answer {
	l.Helper()
	return l.do(l.Context(), method, path, body, headers...)
}

// wants fails unless the answer has the status and, for an error, the name.
func (l *lab) wants(a answer, status int, name string) {
	l.Helper()
	if a.status != status || a.header.Get("iothub-errorcode") != name {
		l.Errorf("got %v, want %d %s", a, status, name)
	}
	if kind := a.header.Get("Content-Type"); a.status != 204 && kind != "application/json; charset=utf-8" {
		l.Errorf("Content-Type %q: Microsoft's SDKs pass over what is not JSON", kind)
	}
}

func TestRESTIdentities(t *testing.T) {
	l := serveHub(t, Config{})
	const path = "/devices/pump%207%2Bx?api-version=2021-04-12"
	l.wants(l.ask("GET", "/devices/pump?api-version=1", ""), 404, "DeviceNotFound")
	l.wants(l.ask("PUT", path, `{"deviceId":"pump 7+x"}`), 400, "ArgumentInvalid") // no space in IDs

	const good = "/devices/pump%40%23%257?api-version=2021-04-12"
	made := l.ask("PUT", good, `{"deviceId":"pump@#%7","status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`)
	l.wants(made, 200, "")
	o := made.object(t)
	key, _ := o["authentication"].(map[string]any)["symmetricKey"].(map[string]any)["primaryKey"].(string)
	if !goodKey(key) || o["generationId"] == "" || o["connectionState"] != "Disconnected" || o["status"] != "enabled" || o["lastActivityTime"] != "0001-01-01T00:00:00Z" {
		t.Errorf("made %v", made)
	}
	again := l.ask("PUT", good, `{"deviceId":"pump@#%7"}`)
	l.wants(again, 409, "DeviceAlreadyExists")
	if m, _ := again.object(t)["Message"].(string); !strings.HasPrefix(m, "ErrorCode:DeviceAlreadyExists;") {
		t.Errorf("got %v", again)
	}
	etag, _ := o["etag"].(string)
	l.wants(l.ask("PUT", good, `{}`, "If-Match", `"other"`), 412, "PreconditionFailed")
	updated := l.ask("PUT", good, `{"status":"disabled","statusReason":"broken"}`, "If-Match", `"`+etag+`"`)
	l.wants(updated, 200, "")
	u := updated.object(t)
	if u["etag"] == etag || u["status"] != "disabled" || u["statusReason"] != "broken" || u["generationId"] != o["generationId"] || !strings.Contains(updated.body, key) {
		t.Errorf("updated %v", updated)
	}
	got := l.ask("GET", good, "")
	l.wants(got, 200, "")
	if got.object(t)["etag"] != u["etag"] || got.header.Get("ETag") != `"`+u["etag"].(string)+`"` {
		t.Errorf("got %v", got)
	}
	l.wants(l.ask("PUT", good, `{}`, "If-Match", "*"), 200, "")
	l.wants(l.ask("DELETE", good, "", "If-Match", `"x"`), 412, "PreconditionFailed")
	l.wants(l.ask("DELETE", good, "", "If-Match", `"*"`), 204, "")
	l.wants(l.ask("DELETE", good, "", "If-Match", "*"), 404, "DeviceNotFound")
	l.wants(l.ask("PUT", good, `{}`, "If-Match", "*"), 404, "DeviceNotFound")
	if id := l.ask("PUT", good, `{}`).object(t)["generationId"]; id == o["generationId"] {
		t.Error("the generation is that of the deleted device")
	}

	l.wants(l.ask("PUT", "/devices/cert", `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"`+strings.Repeat("ab", 20)+`"}}}`), 200, "")
	if s, err := l.DeviceConnectionString("cert"); err != nil || s != "HostName=localhost;DeviceId=cert;x509=true" {
		t.Errorf("%s, %v", s, err)
	}
	for _, body := range []string{
		`{"authentication":{"type":"selfSigned"}}`, `{"authentication":{"type":"none"}}`, `{"status":"on"}`, `{"deviceId":"y"}`, `[]`, ``,
		`{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"?"}}}`,
	} {
		l.wants(l.ask("PUT", "/devices/x", body), 400, "ArgumentInvalid")
	}
	l.wants(l.ask("PUT", "/devices/"+strings.Repeat("x", 129), `{}`), 400, "ArgumentInvalid")
}

func TestRESTListAndModules(t *testing.T) {
	l := serveHub(t, Config{})
	ids := func(path string) (out []string) {
		a := l.ask("GET", path, "")
		l.wants(a, 200, "")
		var list []map[string]any
		if err := json.Unmarshal([]byte(a.body), &list); err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			id, ok := d["moduleId"].(string)
			if !ok {
				id, _ = d["deviceId"].(string)
			}
			out = append(out, id)
		}
		return out
	}
	for path, want := range map[string][]string{
		"/devices?api-version=1": {"d", "other"}, "/devices/": {"d", "other"}, "/devices?top=1": {"d"}, "/devices/d/modules": {"m"}, "/devices/other/modules": nil,
	} {
		if got := ids(path); !slices.Equal(got, want) {
			t.Errorf("%s: %v", path, got)
		}
	}
	l.wants(l.ask("GET", "/devices?top=1001", ""), 400, "ArgumentInvalid")
	l.wants(l.ask("GET", "/devices/x/modules", ""), 404, "DeviceNotFound")
	l.wants(l.ask("PUT", "/devices/x/modules/m", `{}`), 404, "DeviceNotFound")
	l.wants(l.ask("GET", "/devices/d/modules/x", ""), 404, "ModuleNotFound")
	l.wants(l.ask("PUT", "/devices/d/modules/m", `{}`), 409, "ModuleAlreadyExistsOnDevice")
	for i := range 49 {
		l.wants(l.ask("PUT", fmt.Sprint("/devices/d/modules/m", i), `{}`), 200, "")
	}
	l.wants(l.ask("PUT", "/devices/d/modules/one-more", `{}`), 403, "ModuleLimitExceeded")
	l.wants(l.ask("DELETE", "/devices/d/modules/m", ""), 204, "")
	if got := ids("/devices/d/modules"); len(got) != 49 || slices.Contains(got, "m") {
		t.Errorf("after delete: %v", got)
	}
	for path, want := range map[string]string{
		"/statistics/devices": `{"disabledDeviceCount":0,"enabledDeviceCount":2,"totalDeviceCount":2}`, "/statistics/service": `{"connectedDeviceCount":0}`,
	} {
		if a := l.ask("GET", path, ""); a.body != want {
			t.Errorf("%s: %v", path, a)
		}
	}
	if a := l.ask("DELETE", "/devices/d/commands", ""); a.body != `{"deviceId":"d","moduleId":null,"totalMessagesPurged":0}` {
		t.Errorf("purge: %v", a)
	}
}

func TestRESTAuthorization(t *testing.T) {
	l := serveHub(t, Config{BearerTokens: []string{"good"}, Bearer: func(jwt string) (time.Time, bool) {
		return time.Now().Add(map[string]time.Duration{"old": -time.Minute, "new": time.Minute}[jwt]), jwt == "old" || jwt == "new"
	}})
	c, _ := sas.ParseConnectionString(l.ServiceConnectionString("service"))
	sign := func(resource, policy, key string, life time.Duration) string {
		s, err := sas.Sign(resource, policy, key, time.Now().Add(life))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	device, _ := l.DeviceConnectionString("d")
	d, _ := sas.ParseConnectionString(device)
	const twin, registry = "/twins/d", "/devices/d"
	for _, tt := range []struct {
		name, path, token string
		status            int
	}{
		{"service reads twins", twin, l.serviceToken("service"), 200},
		{"service does not read the registry", registry, l.serviceToken("service"), 401},
		{"registryRead does", registry, l.serviceToken("registryRead"), 200},
		{"registryReadWrite does", registry, l.serviceToken("registryReadWrite"), 200},
		{"registryRead reads no twins", twin, l.serviceToken("registryRead"), 401},
		{"device reads nothing", twin, l.serviceToken("device"), 401},
		{"a host in another case, with a port", twin, sign("LocalHost:8443", "service", c.Key, time.Hour), 200},
		{"another host", twin, sign("localhost2", "service", c.Key, time.Hour), 401},
		{"too narrow", twin, sign("localhost/devices/d", "service", c.Key, time.Hour), 401},
		{"expired", twin, sign("localhost", "service", c.Key, -time.Second), 401},
		{"another policy's key", twin, sign("localhost", "iothubowner", c.Key, time.Hour), 401},
		{"no such policy", twin, sign("localhost", "x", c.Key, time.Hour), 401},
		{"a device's key", twin, sign("localhost", "", d.Key, time.Hour), 401},
		{"nothing", twin, "", 401},
		{"rubbish", twin, "Basic eDp5", 401},
		{"a bearer token", twin, "Bearer good", 200},
		{"for the registry too", registry, "bearer good", 200},
		{"of the hook", twin, "Bearer new", 200},
		{"expired, of the hook", twin, "Bearer old", 401},
		{"refused by the hook", twin, "Bearer bad", 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lab{t, l.Hub, l.client}
			a := l.ask("GET", tt.path, "", "Authorization", tt.token)
			name := ""
			if tt.status == 401 {
				name = "IotHubUnauthorizedAccess"
			}
			l.wants(a, tt.status, name)
		})
	}
}

func TestRESTPaths(t *testing.T) {
	l := serveHub(t, Config{})
	l.wants(l.ask("GET", "/jobs/v2", ""), 404, "GenericNotFound")
	l.wants(l.ask("POST", "/devices/d", ""), 405, "GenericMethodNotAllowed")
	l.wants(l.ask("GET", "/$iothub/websocket", ""), 400, "ArgumentInvalid")
	l.wants(l.ask("GET", "/%24iothub/websocket?iothub-no-client-cert=true", "", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol", "chat"), 400, "ArgumentInvalid")
	l.wants(l.ask("PUT", "/devices/x", strings.Repeat(" ", maxBody+1)), 413, "MessageTooLarge")
}

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

func FuzzSplit(f *testing.F) {
	f.Add("/devices/a%2Fb%24/modules/")
	f.Add("//%zz")
	f.Fuzz(func(t *testing.T, s string) {
		segments, ok := split(s)
		if !ok {
			return
		}
		for i := range restRoutes {
			restRoutes[i].match(segments)
		}
		for i, seg := range segments {
			segments[i] = url.PathEscape(seg)
		}
		again, ok := split(strings.Join(segments, "/"))
		if !ok && !bytes.Contains([]byte(s), []byte("%")) {
			t.Errorf("%q: %q", s, again)
		}
	})
}
