package emulator

import (
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
	"sync"
	"testing"
	"time"

	"websocketbridge/signaler/sas"
)

// A lab is a hub that serves, and an HTTP client for it.
type lab struct {
	testing.TB
	*Hub
	client *http.Client
}

// serveHub runs a hub with the devices d and other, and d's module m, until the
// test ends.
func serveHub(t testing.TB, cfg Config) *lab {
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
		case <-time.After(30 * time.Second):
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
	// a stranger's body is not read
	req, err := http.NewRequest("PUT", "https://localhost/devices/x", neverEnds{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("got %v", resp.Status)
	}
}

// neverEnds is a body of spaces.
type neverEnds struct{}

func (neverEnds) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
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
		for i, seg := range segments {
			segments[i], _ = url.PathUnescape(seg)
		}
		whole := segments[0] != "" && segments[len(segments)-1] != "" // split trims the others
		if !ok || whole && !slices.Equal(again, segments) {
			t.Errorf("%q: %q, and again %q", s, segments, again)
		}
	})
}

// A device that answers at once, and callers that share a few connections.
func BenchmarkRESTMethod(b *testing.B) {
	l := serveHub(b, Config{})
	link := newCoreLink()
	a, err := l.attach(dev, link, time.Time{})
	if err != nil {
		b.Fatal(err)
	}
	a.listen(ListenMethods, true)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range link.invoked {
			a.methodResult(c.rid, 200, []byte("{}"))
		}
	})
	defer wg.Wait()
	defer close(link.invoked)
	l.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 16
	token := l.serviceToken("service")
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if a := l.ask("POST", "/twins/d/methods", `{"methodName":"x","payload":{}}`, "Authorization", token); a.status != 200 {
				b.Error(a)
			}
		}
	})
}

func TestRESTThrottled(t *testing.T) {
	l := serveHub(t, Config{Throttle: true, ThrottleBurst: -1, ThrottleQueue: -1, RetryAfter: 2500 * time.Millisecond})
	l.wants(l.ask("GET", "/devices/d", ""), 200, "")
	a := l.ask("GET", "/devices/d", "")
	l.wants(a, 429, "ThrottlingException")
	if s := a.header.Get("Retry-After"); s != "3" {
		t.Errorf("Retry-After is %q", s)
	}
	l.wants(l.ask("POST", "/devices/query", `{"query":"SELECT * FROM devices"}`), 200, "") // a rate of its own
}
