package relay_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/wire"
)

func TestOrigins(t *testing.T) {
	may, err := relay.ParseOrigins([]string{"https://app.example.com", "https://*.example.org", "http://localhost:3000", "https://Upper.example:443", "http://*.lan:81"})
	if err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]bool{
		"https://app.example.com": true, "https://app.example.com:443": true, "HTTPS://APP.example.com": true,
		"http://app.example.com": false, "https://app.example.com:444": false, "https://app.example.com.evil.example": false,
		"https://evil.example/app.example.com": false, "https://app.example.com@evil.example": false, "https://xapp.example.com": false,
		"https://a.example.org": true, "https://a.b.example.org": true, "https://example.org": false, "https://.example.org": false,
		"https://evilexample.org": false, "https://a.example.org.": false, "https://a.example.org:8443": false,
		"http://localhost:3000": true, "http://localhost": false, "https://localhost:3000": false,
		"https://upper.example": true, "http://a.lan:81": true, "http://a.lan": false,
		"null": false, "": false, "https://": false, "file://": false, "app.example.com": false, "https://app.example.com/": false, "https://app.example.com?": false,
		"https://app.example.com#": false, "https://*.example.org": true, // no browser has such a page
	} {
		if got := may(page); got != want {
			t.Errorf("%q: %t, want %t", page, got, want)
		}
	}
	bad := []string{"*", "https://*", "https://*.", "https://a.*.example.com", "app.example.com", "ws://app.example.com", "https://app.example.com/", "null", "", "https://**.example.com"}
	_, err = relay.ParseOrigins(bad)
	if err == nil || strings.Count(err.Error(), "\n") != len(bad)-1 {
		t.Errorf("got %v, want a line for each of %d", err, len(bad))
	}
}

// A page of an allowed origin may fetch a signed URL with a bearer token, and read what
// was wrong; others get nothing that a browser would hand on.
func TestCrossOrigin(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth, c.Origins = keyed, []string{"https://*.example.org"} }, func(n *node) {
		expires := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
		for _, tt := range []struct {
			name, method, path, origin, key string
			status                          int
			shared                          bool
		}{
			{"asks", "OPTIONS", "getSignedUrl?deviceId=d", "https://app.example.org", "", 204, true},
			{"asks, of another site", "OPTIONS", "getSignedUrl?deviceId=d", "https://evil.example", "", 403, false},
			{"asks, of our own", "OPTIONS", "getSignedUrl?deviceId=d", "http://relay.test", "", 204, true},
			{"asks, of a name that leads here", "OPTIONS", "getSignedUrl?deviceId=d", "http://rebound.example", "", 403, false},
			{"asks, of our address", "OPTIONS", "getSignedUrl?deviceId=d", "http://127.0.0.1:8080", "", 204, true},
			{"asks, of our IPv6 address", "OPTIONS", "getSignedUrl?deviceId=d", "http://[::1]", "", 204, true},
			{"asks, of localhost", "OPTIONS", "getSignedUrl?deviceId=d", "http://localhost:8080", "", 204, true},
			{"asks, of another port", "OPTIONS", "getSignedUrl?deviceId=d", "http://127.0.0.1:9999", "", 403, false},
			{"asks, no page", "OPTIONS", "getSignedUrl?deviceId=d", "", "", 204, false},
			{"asks, no origin", "OPTIONS", "getSignedUrl?deviceId=d", "null", "", 403, false},
			{"fetches", "GET", "getSignedUrl?deviceId=d&expirationUtc=" + expires, "https://app.example.org", "ops", 200, true},
			{"fetches, no page", "GET", "getSignedUrl?deviceId=d&expirationUtc=" + expires, "", "ops", 200, false},
			{"fetches, of another site", "GET", "getSignedUrl?deviceId=d&expirationUtc=" + expires, "https://evil.example", "ops", 403, false},
			{"fetches, without a key", "GET", "getSignedUrl?deviceId=d&expirationUtc=" + expires, "https://app.example.org", "", 401, true},
			{"fetches, malformed", "GET", "getSignedUrl?deviceId=d", "https://app.example.org", "ops", 400, true},
			{"posts", "POST", "getSignedUrl?deviceId=d", "https://app.example.org", "ops", 405, true},
			{"connects, of another site", "GET", "connect?deviceId=d", "https://evil.example", "ops", 403, false},
			{"asks for another path", "OPTIONS", "connect?deviceId=d", "https://app.example.org", "", 405, false},
			{"not there", "GET", "nothing", "https://app.example.org", "", 404, false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := httptest.NewRequest(tt.method, "http://relay.test/bridge/"+tt.path, nil)
				r.RemoteAddr = "192.0.2.1:1"
				switch tt.origin { // the host that the browser asked
				case "http://rebound.example", "http://127.0.0.1:8080", "http://[::1]", "http://localhost:8080":
					r.Host = strings.TrimPrefix(tt.origin, "http://")
				case "http://127.0.0.1:9999":
					r.Host = "127.0.0.1:8080"
				}
				for name, value := range map[string]string{"Origin": tt.origin, wire.HeaderAPIKey: tt.key, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
					if value != "" {
						r.Header.Set(name, value)
					}
				}
				w := httptest.NewRecorder()
				n.srv.Handler().ServeHTTP(w, r)
				h := w.Result().Header
				if w.Code != tt.status {
					t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
				}
				if got := h.Get("Access-Control-Allow-Origin"); got != map[bool]string{true: tt.origin}[tt.shared] {
					t.Errorf("shared with %q", got)
				}
				if h.Get("Access-Control-Allow-Credentials") != "" {
					t.Error("shared with what the browser adds on its own")
				}
				if strings.HasPrefix(tt.path, "getSigned") && !slices.Contains(h.Values("Vary"), "Origin") {
					t.Error("no Vary")
				}
				if preflight := tt.status == 204 && tt.origin != ""; preflight != (h.Get("Access-Control-Allow-Headers") == "Authorization, X-Api-Key" && h.Get("Access-Control-Allow-Methods") == "GET") {
					t.Errorf("preflight is answered %v", h)
				}
				if tt.origin == "https://evil.example" {
					p, err := wire.ParseProblem(w.Body.Bytes())
					if want := "the request comes from a web page of another site, https://evil.example; whoever runs the relay can allow it with RELAY_ORIGINS"; err != nil || p.Detail != want {
						t.Errorf("detail %q, %v", p.Detail, err)
					}
				}
				for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"} {
					if got := h.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			})
		}
	})
}

func TestOriginSettings(t *testing.T) {
	_, err := relay.New(relay.Config{Origins: []string{"*", "https://good.example"}})
	if err == nil || !strings.Contains(err.Error(), `Origins: "*" is no origin`) || strings.Contains(err.Error(), "good") {
		t.Errorf("got %v", err)
	}
}

// A page may have a name that leads to loopback.
func TestAdminHost(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		loopback, lan := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}
		for _, tt := range []struct {
			on     net.Addr
			host   string
			status int
		}{
			{loopback, "127.0.0.1:9090", 200}, {loopback, "localhost:9090", 200}, {loopback, "LOCALHOST", 200}, {loopback, "[::1]:9090", 200}, {loopback, "127.0.0.1", 200},
			{loopback, "evil.example:9090", 421}, {loopback, "127.0.0.1.evil.example", 421}, {loopback, "", 421}, {loopback, "localhost.evil.example", 421},
			{lan, "relay-admin.monitoring.svc:9090", 200},
		} {
			r := httptest.NewRequest("GET", wire.PathBridges, nil)
			r.Host = tt.host
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tt.on))
			w := httptest.NewRecorder()
			n.srv.AdminHandler().ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("host %q on %v: %d, want %d: %s", tt.host, tt.on, w.Code, tt.status, w.Body)
			}
		}
	})
}
