package relay_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"websocketbridge/relay"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// fuzzNode is a node that nobody runs, of a hub without devices.
func fuzzNode(f *testing.F) *relay.Server {
	f.Helper()
	ring, err := newRing()
	if err != nil {
		f.Fatal(err)
	}
	srv, err := relay.New(relay.Config{
		PublicURL: "wss://relay.test/front", Auth: keyed, Keys: ring, TrustedProxies: prefixes("10.0.0.0/8"),
		Origins:              []string{"https://*.example.org"},
		Signaler:             signalFunc(func(context.Context, *signaler.Signal) error { return signaler.ErrDeviceNotFound }),
		ConnectsPerPrincipal: -1, ConnectsPerDevice: -1, ConnectsPerAddress: -1, FailuresPerAddress: -1,
	})
	if err != nil {
		f.Fatal(err)
	}
	return srv
}

// FuzzConnectQuery: what is taken from a query can be carried, and means the same when it
// is written again.
func FuzzConnectQuery(f *testing.F) {
	for _, s := range []string{
		"deviceId=pump-7", "deviceId=pump-7&target=ssh,web&requestData=%7B%22a%22%3A1%7D&upgrade=early", "deviceId=a&deviceId=b", "deviceId=%zz",
		"deviceId=a;b", "deviceId=%00", "deviceId=a&target=,", "deviceId=a&requestData=%ff", "deviceId=a&upgrade=late", "deviceId=" + strings.Repeat("d", 129), "&&&=", "",
		"deviceId=a&x=" + strings.Repeat("y", 15<<10), "deviceId=a%26target%3Dssh", "deviceId=a+b", "DeviceId=a",
	} {
		f.Add(s, "bridge.session.v1, chat", "")
	}
	f.Add("deviceId=a", "a,,b", "c")
	f.Add("deviceId=a", strings.Repeat("a,", 20), "\x00")
	f.Add("deviceId=a", "a b", "é")
	srv := fuzzNode(f)
	f.Fuzz(func(t *testing.T, query, offered, more string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: wire.PathConnect, RawQuery: query}, RemoteAddr: "192.0.2.1:1",
			Header: http.Header{"Sec-Websocket-Protocol": {offered, more}}}
		device, target, data, protocols, early, err := srv.ParseConnect(r)
		if err != nil {
			return
		}
		if wire.CheckDeviceID(device) != nil || wire.CheckRequestData(data) != nil || len(protocols) > wire.MaxSubprotocols {
			t.Fatalf("took device %q, data %q, %d subprotocols", device, data, len(protocols))
		}
		if names, err := wire.SplitTargets(target); err != nil || wire.JoinTargets(names) != target {
			t.Fatalf("took target %q: %v", target, err)
		}
		for _, p := range protocols {
			if wire.CheckSubprotocol(p) != nil {
				t.Fatalf("took subprotocol %q", p)
			}
		}
		q := url.Values{wire.ParamDeviceID: {device}, wire.ParamTarget: {target}, wire.ParamRequestData: {data}}
		if early {
			q.Set(wire.ParamUpgrade, wire.UpgradeEarly)
		}
		r.URL.RawQuery, r.Header["Sec-Websocket-Protocol"] = q.Encode(), []string{strings.Join(protocols, ", ")}
		device2, target2, data2, protocols2, early2, err := srv.ParseConnect(r)
		if err != nil || device2 != device || target2 != target || data2 != data || early2 != early || !slices.Equal(protocols2, protocols) {
			t.Errorf("%q means something else when written again: %v", query, err)
		}
	})
}

// FuzzRequest: whatever comes, the answer is a problem in its bounds, and it is never a
// bridge, a signed URL or a failure of the node.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"connect?deviceId=d", "connectSigned?deviceId=d&expirationUtc=2030-01-01T00:00:00.0000000Z&principal=p&signature=AQ", "getSignedUrl?deviceId=d&expirationUtc=2030-01-01T00:00:00Z", "accept?bridgeToken=AQ", "reject?bridgeToken=AQ", "nothing"} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			f.Add(method+" /bridge/"+path+handshakeHead+"Origin: https://evil.example\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n", "192.0.2.1:1")
		}
	}
	f.Add("GET /front/bridge/connect?deviceId=d"+handshakeHead+"X-Api-Key: bad\r\nContent-Length: 3\r\n\r\nabc", "10.0.0.1:1")
	f.Add("GET //bridge/connect HTTP/1.0\r\n\r\n", "")
	f.Add("GET http://relay.test/bridge/connect?deviceId=%00 HTTP/1.1\r\nHost: x\r\n\r\n", "@")
	f.Add("CONNECT relay.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", "[::1]:1")
	srv := fuzzNode(f)
	h := srv.Handler()
	f.Fuzz(func(t *testing.T, text, from string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		if key := r.Header.Get(wire.HeaderAPIKey); key != "" && key != "bad" {
			r.Header.Set(wire.HeaderAPIKey, "bad") // it is no secret here
		}
		if r.URL.Query().Get(wire.ParamUpgrade) != "" {
			return // cannot be upgraded without a connection
		}
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		preflight := w.Code == http.StatusNoContent && r.Method == http.MethodOptions
		if w.Code < 400 && !preflight || w.Code >= 500 {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") == wire.ProblemType {
			if p, err := wire.ParseProblem(w.Body.Bytes()); err != nil || p.Status != w.Code || w.Body.Len() > 1024 {
				t.Errorf("%d with body %q: %v", w.Code, w.Body, err)
			}
		}
		if w.Header().Get("Access-Control-Allow-Origin") == "https://evil.example" {
			t.Error("shared with another site")
		}
	})
}

// FuzzOrigin: what is taken for an origin is one, and no page of another host is let in.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://app.example.org", "https://example.org", "null", "https://a.example.org:8443", "https://evil.example/.example.org", "https://a.example.org@evil.example", "https://[::1]:443", "http://a.example.org", "https://A.EXAMPLE.ORG", "https://é.example.org", "https://a%2eexample.org", "https://evil.example#.example.org", "https://evil.example\\.example.org"} {
		f.Add(s)
	}
	may, err := relay.ParseOrigins([]string{"https://*.example.org"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		scheme, host, ok := relay.ParseOrigin(s)
		if !ok {
			if may(s) {
				t.Fatalf("%q may, and is none", s)
			}
			return
		}
		scheme2, host2, ok2 := relay.ParseOrigin(scheme + "://" + host)
		if !ok2 || scheme2 != scheme || host2 != host {
			t.Errorf("%q is %s %q, which is %s %q", s, scheme, host, scheme2, host2)
		}
		if may(s) {
			u, err := url.Parse(s)
			if err != nil || !strings.HasSuffix(strings.ToLower(u.Hostname()), ".example.org") || !strings.EqualFold(u.Scheme, "https") {
				t.Errorf("%q may", s)
			}
		}
	})
}

// FuzzReject: whatever a device says, the requester's answer keeps its bounds.
func FuzzReject(f *testing.F) {
	for _, s := range []string{`{"code":"busy","message":"later"}`, `{"code":"","message":""}`, `{}`, `null`, `[]`, `{"code":7}`, `{"code":"a\u0000\u001b[31m","message":"\ud800"}`, `{"code":"x","message":"` + strings.Repeat(`\u003c`, 600) + `"}`, `{"Code":"X"}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > wire.MaxReject {
			return
		}
		body := relay.RefusalBody(b)
		if body == nil {
			return
		}
		p, err := wire.ParseProblem(body)
		if err != nil || p.Code != wire.DeviceRefused || len(body) > 1024 {
			t.Errorf("answered %q: %v", body, err)
		}
		if strings.ContainsFunc(p.Detail+p.DeviceCode, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("control characters in %q", body)
		}
		if reason := relay.CloseReason(b); len(reason) > wire.MaxReason || !utf8.ValidString(reason) || wire.ParseReason(reason).Code != wire.DeviceRefused {
			t.Errorf("close reason %q", reason)
		}
	})
}
