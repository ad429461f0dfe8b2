package relay_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// keyed authenticates by X-Api-Key: the key is the name. "bad" and none are not good.
var keyed = authFunc(func(r *http.Request) (*auth.Principal, error) {
	switch name := r.Header.Get(wire.HeaderAPIKey); name {
	case "":
		return nil, auth.ErrNoCredentials
	case "bad":
		return nil, auth.ErrBadCredentials
	default:
		p, err := auth.AllowAll{}.Authenticate(r)
		return &auth.Principal{Name: name, Method: auth.MethodAPIKey, Grants: p.Grants}, err
	}
})

// unknown is a node of a hub without devices, so that each connect ends at once.
func unknown(change func(*relay.Config)) func(*relay.Config) {
	return func(c *relay.Config) {
		c.Auth = keyed
		c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { return signaler.ErrDeviceNotFound })
		change(c)
	}
}

// handshake sends one without a network, from an address.
func (n *node) handshake(path, from, key string) (int, wire.Problem, http.Header) {
	n.t.Helper()
	method := http.MethodGet
	if strings.HasPrefix(path, "reject") {
		method = http.MethodPost
	}
	r := httptest.NewRequest(method, "/bridge/"+path, nil)
	r.RemoteAddr = from
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", wire.HeaderAPIKey: key,
	} {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	n.srv.Handler().ServeHTTP(w, r)
	p, err := wire.ParseProblem(w.Body.Bytes())
	if err != nil && w.Code >= 400 {
		n.t.Errorf("%s: %d %q: %v", path, w.Code, w.Body, err)
	}
	return w.Code, p, w.Result().Header
}

// Each rate refuses what is above it, says so with its numbers, counts it, and has room
// again when it said it would.
func TestRates(t *testing.T) {
	for _, tt := range []struct {
		limit  string
		set    func(c *relay.Config, n int)
		path   string
		key    string
		status int    // below the limit
		detail string // above
		other  string // path that has another bucket
		from   string // address that has another
		as     string // key that has another
	}{
		{"principal_connects", func(c *relay.Config, n int) { c.ConnectsPerPrincipal = n }, "connect?deviceId=d", "ops", 404, `"ops" has used up its 6 connects a minute`, "", "", "dev"},
		{"device_connects", func(c *relay.Config, n int) { c.ConnectsPerDevice = n }, "connect?deviceId=d", "ops", 404, `device "d" has used up its 6 connects a minute`, "connect?deviceId=e", "", ""},
		{"address_connects", func(c *relay.Config, n int) { c.ConnectsPerAddress = n }, "connect?deviceId=d", "ops", 404, "203.0.113.5 has used up its 6 connects a minute", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "connect?deviceId=d", "bad", 401, "203.0.113.5 has failed to authenticate more than 6 times a minute", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "connect?deviceId=d", "", 401, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "getSignedUrl?deviceId=d&expirationUtc=2000-01-01T00:05:00Z", "bad", 401, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "connectSigned?deviceId=d&expirationUtc=2000-01-01T00:05:00.0000000Z&principal=p&signature=" + base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, token.MACSize)...)), "", 400, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "canI?deviceId=d", "bad", 401, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "accept?bridgeToken=rubbish", "", 400, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
		{"failures", func(c *relay.Config, n int) { c.FailuresPerAddress = n }, "reject?bridgeToken=rubbish", "", 400, "203.0.113.5 has failed", "", "203.0.113.6:1", ""},
	} {
		t.Run(tt.limit+" "+tt.path[:4]+" "+tt.key, func(t *testing.T) {
			inBubble(t, unknown(func(c *relay.Config) { tt.set(c, 6) }), func(n *node) {
				const here = "203.0.113.5:1"
				for i := range 6 {
					if status, p, _ := n.handshake(tt.path, here, tt.key); status != tt.status {
						t.Fatalf("request %d: %d %+v, want %d", i, status, p, tt.status)
					}
				}
				status, p, h := n.handshake(tt.path, here, tt.key)
				if status != 429 || p.Code != wire.LimitReached || !strings.Contains(p.Detail, tt.detail) {
					t.Errorf("got %d %+v, want 429 with %q", status, p, tt.detail)
				}
				if after, _ := strconv.Atoi(h.Get("Retry-After")); after != 10 || p.RetryAfter != 10 {
					t.Errorf("Retry-After: %s, and %d in the body, want 10", h.Get("Retry-After"), p.RetryAfter)
				}
				if got := n.srv.Refused()[tt.limit]; got != 1 {
					t.Errorf("counted %d", got)
				}
				for _, other := range [][3]string{{tt.other, here, tt.key}, {tt.path, tt.from, tt.key}, {tt.path, here, tt.as}} {
					if other[0] == "" || other[1] == "" || other[2] == "" && tt.key != "" {
						continue
					}
					if other == [3]string{tt.path, here, tt.key} {
						continue
					}
					if status, p, _ := n.handshake(other[0], other[1], other[2]); status != tt.status {
						t.Errorf("%v: %d %+v, want %d", other, status, p, tt.status)
					}
				}
				time.Sleep(10 * second)
				if status, p, _ := n.handshake(tt.path, here, tt.key); status != tt.status {
					t.Errorf("after Retry-After: %d %+v", status, p)
				}
				if log := n.log.String(); !strings.Contains(log, "limit="+tt.limit) {
					t.Errorf("the log does not name the limit:\n%s", log)
				}
			})
		})
	}
}

// Who has failed too often is not heard, even with a good key; who dials back with a good
// token is.
func TestFailuresDoNotLockDevicesOut(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth, c.FailuresPerAddress = keyed, 3 }, func(n *node) {
		for range 4 {
			n.handshake("connect?deviceId=d", "203.0.113.5:1", "bad")
		}
		if status, p, _ := n.handshake("connect?deviceId=d", "203.0.113.5:1", "ops"); status != 429 {
			t.Errorf("a good key: %d %+v", status, p)
		}
		done := make(chan wire.Problem, 1)
		go func() {
			_, p, _ := n.handshake("connect?deviceId=d", "203.0.113.6:1", "ops")
			done <- p
		}()
		s := <-n.signals
		_, sealed, _ := strings.Cut(s.AcceptURL, "bridgeToken=")
		r := httptest.NewRequest(http.MethodPost, "/bridge/reject?bridgeToken="+sealed, strings.NewReader(`{"code":"no","message":"not now"}`))
		r.RemoteAddr = "203.0.113.5:1"
		w := httptest.NewRecorder()
		n.srv.Handler().ServeHTTP(w, r)
		if p := <-done; w.Code != http.StatusNoContent || p.Code != wire.DeviceRefused {
			t.Errorf("the device was answered %d, the requester %+v", w.Code, p)
		}
	})
}

// A trusted proxy is many people; a /64 is one.
func TestAddresses(t *testing.T) {
	inBubble(t, unknown(func(c *relay.Config) {
		c.ConnectsPerAddress = 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	}), func(n *node) {
		for _, tt := range []struct {
			from   string
			status int
		}{
			{"10.1.2.3:1", 404}, {"10.1.2.3:2", 404}, {"10.1.2.3:3", 404}, {"@", 404}, {"@", 404},
			{"192.0.2.1:1", 404}, {"192.0.2.1:2", 429}, {"[::ffff:192.0.2.1]:2", 429}, {"192.0.2.2:1", 404},
			{"[2001:db8:1:2::3]:1", 404}, {"[2001:db8:1:2:ffff::]:1", 429}, {"[2001:db8:1:3::3]:1", 404},
		} {
			if status, p, _ := n.handshake("connect?deviceId=d", tt.from, "ops"); status != tt.status {
				t.Errorf("%s: %d %+v, want %d", tt.from, status, p, tt.status)
			}
		}
	})
}

// Bridges are counted by device and by principal, over signed URLs, too.
func TestBridgesPerDeviceAndPrincipal(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth, c.MaxPerDevice, c.MaxPerPrincipal = keyed, 2, 3 }, func(n *node) {
		ctx := context.Background()
		dial := func(query, key string) (*ws.Conn, error) {
			return n.dialer().DialWebSocket(ctx, "ws://relay.test/bridge/connect?"+query, http.Header{wire.HeaderAPIKey: {key}})
		}
		var open []*ws.Conn
		bridge := func(device, key string) {
			t.Helper()
			got := make(chan error, 1)
			go func() {
				c, err := dial("deviceId="+device, key)
				open = append(open, c)
				got <- err
			}()
			d, err := n.accept(<-n.signals)
			if err := errors.Join(err, <-got); err != nil {
				t.Fatal(err)
			}
			open = append(open, d)
		}
		bridge("a", "ops")
		bridge("a", "dev")
		_, err := dial("deviceId=a", "third")
		if p := wantStatus(t, err, 429, wire.LimitReached); p.Detail != `device "a" has 2 of at most 2 bridges` {
			t.Errorf("detail %q", p.Detail)
		}
		bridge("b", "ops")
		bridge("c", "ops")
		_, err = dial("deviceId=d", "ops")
		if p := wantStatus(t, err, 429, wire.LimitReached); p.Detail != `"ops" has 3 of at most 3 bridges` {
			t.Errorf("detail %q", p.Detail)
		}
		q := relay.SignedURL{DeviceID: "d", Principal: "ops", Expires: time.Now().Add(time.Minute).UTC()}.Query(n.ring)
		_, err = n.dialer().DialWebSocket(ctx, "ws://relay.test/bridge/connectSigned?"+q, nil)
		wantStatus(t, err, 429, wire.LimitReached)
		early, err := dial("deviceId=d&upgrade=early", "ops")
		if err != nil {
			t.Fatal(err)
		}
		wantClose(t, early, 4429, wire.LimitReached)
		if got := n.srv.Refused(); got["device_bridges"] != 1 || got["principal_bridges"] != 3 {
			t.Errorf("counted %v", got)
		}
		for _, c := range open {
			c.CloseNow()
		}
		synctest.Wait()
		time.Sleep(10 * second)
		bridge("a", "ops") // room again
		for _, c := range open[len(open)-2:] {
			c.CloseNow()
		}
	})
}

// Strangers with ever new names cannot fill memory, and who comes often is not forgotten
// for them.
func TestRatesAreBounded(t *testing.T) {
	r := relay.NewRates(2)
	now := time.Now()
	r.Take("regular", now)
	r.Take("regular", now)
	for i := range 3 * relay.MaxRated {
		r.Take(fmt.Sprint("stranger ", i), now)
		if i%1000 == 0 && r.Take("regular", now) == 0 {
			t.Fatalf("forgotten after %d", i)
		}
	}
	if n := r.Len(); n != relay.MaxRated {
		t.Errorf("%d are remembered", n)
	}
	if r.Spent("nobody", now) != 0 || r.Spent("regular", now) == 0 || r.Spent("regular", now.Add(30*second)) != 0 {
		t.Error("looking is not right")
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8::1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := relay.Source(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
	if relay.Source(netip.Addr{}).IsValid() {
		t.Error("nothing is something")
	}
}

// More requests at once than the node serves are refused before they are looked at.
func TestMaxRequests(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.MaxRequests = 2 }, func(n *node) {
		ctx, leave := context.WithCancel(context.Background())
		one, two := n.connecting(ctx, "deviceId=a"), n.connecting(ctx, "deviceId=b&upgrade=early")
		<-n.signals
		<-n.signals
		early := <-two // has its 101 before its device was told
		if early.err != nil {
			t.Fatal(early.err)
		}
		_, err := n.connect(ctx, "deviceId=c")
		if p := wantStatus(t, err, 429, wire.LimitReached); p.Detail != "the relay serves 2 of at most 2 requests at once" {
			t.Errorf("detail %q", p.Detail)
		}
		if n.srv.Refused()["requests"] != 1 {
			t.Errorf("counted %v", n.srv.Refused())
		}
		leave()
		<-one
		early.conn.CloseNow()
		synctest.Wait()
		if status, _, _ := n.handshake("accept?bridgeToken=x", "192.0.2.1:1", ""); status != 400 {
			t.Errorf("no room again: %d", status)
		}
	})
}

// However much is refused, the log has some lines of it, and the number of the others.
func TestRefusalsDoNotStormTheLog(t *testing.T) {
	inBubble(t, unknown(func(*relay.Config) {}), func(n *node) {
		for i := range 5000 {
			n.handshake("connect?deviceId=d", fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), "bad")
			n.handshake("accept?bridgeToken=x", fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), "")
		}
		n.stop()
		n.stopped <- <-n.stopped
		log := n.log.String()
		if lines := strings.Count(log, "\n"); lines > 50 {
			t.Errorf("%d lines", lines)
		}
		for _, want := range []string{`kind="bridge refused unauthenticated" suppressed=4980`, `kind="device refused bad_token" suppressed=4980`} {
			if !strings.Contains(log, want) {
				t.Errorf("no %s in the log", want)
			}
		}
	})
}

// A query longer than any of ours is not parsed.
func TestQueryLength(t *testing.T) {
	inBubble(t, unknown(func(*relay.Config) {}), func(n *node) {
		longest := "deviceId=" + strings.Repeat("%25", wire.MaxDeviceID) + "&requestData=" + strings.Repeat("%41", wire.MaxRequestData) +
			"&target=" + strings.Repeat(strings.Repeat("%62", 125)+"%2C", 15) + "x"
		if status, p, _ := n.handshake("connect?"+longest, "192.0.2.1:1", "ops"); status != 404 {
			t.Errorf("%d bytes: %d %+v", len(longest), status, p)
		}
		status, p, _ := n.handshake("connect?deviceId=d&x="+strings.Repeat("y", 14<<10), "192.0.2.1:1", "ops")
		if status != 400 || !strings.Contains(p.Detail, "14336 are allowed") {
			t.Errorf("got %d %+v", status, p)
		}
		if bytes.Contains([]byte(n.log.String()), []byte("yyyy")) {
			t.Error("the log quotes it")
		}
	})
}
