package relay_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// failing is a node whose every signal ends with err.
func failing(err error) func(*relay.Config) {
	return func(c *relay.Config) {
		c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { return fmt.Errorf("the hub's own words: %w", err) })
	}
}

type authFunc func(*http.Request) (*auth.Principal, error)

func (f authFunc) Authenticate(r *http.Request) (*auth.Principal, error) { return f(r) }

// Every row that a requester can meet, before the upgrade and after it.
func TestRequesterOutcomes(t *testing.T) {
	met := map[wire.Code]bool{}
	var revokeLater func()
	for _, tt := range []struct {
		name   string
		change func(*relay.Config)
		query  string
		code   wire.Code
		detail string // part of it
		retry  int
		before func(n *node)
	}{
		{name: "no device", query: "requestData=x", code: wire.BadRequest, detail: "deviceId is missing"},
		{name: "device twice", query: "deviceId=a&deviceId=b", code: wire.BadRequest, detail: "deviceId is there 2 times"},
		{name: "device with a slash", query: "deviceId=a%2Fb", code: wire.BadRequest, detail: "IoT Hub does not allow"},
		{name: "device too long", query: "deviceId=" + strings.Repeat("d", 129), code: wire.BadRequest, detail: "129 bytes"},
		{name: "target with a space", query: "deviceId=d&target=a+b", code: wire.BadRequest, detail: "target"},
		{name: "too many targets", query: "deviceId=d&target=" + strings.Repeat("a,", 16) + "a", code: wire.BadRequest, detail: "17 targets"},
		{name: "too much data", query: "deviceId=d&requestData=" + strings.Repeat("x", 2049), code: wire.BadRequest, detail: "2049 bytes"},
		{name: "data that does not fit when escaped", query: "deviceId=d&requestData=" + strings.Repeat("%01", 2000), code: wire.BadRequest, detail: "do not fit a signal"},
		{name: "broken query", query: "deviceId=%zz", code: wire.BadRequest, detail: "malformed"},
		{name: "no credentials", query: "deviceId=d", code: wire.Unauthenticated, change: func(c *relay.Config) {
			c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return nil, auth.ErrNoCredentials })
		}},
		{name: "wrong credentials", query: "deviceId=d", code: wire.Unauthenticated, change: func(c *relay.Config) {
			c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return nil, auth.ErrBadCredentials })
		}},
		{name: "credentials that cannot be checked", query: "deviceId=d", code: wire.AuthUnavailable, retry: 1, change: func(c *relay.Config) {
			c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return nil, auth.ErrUnchecked })
		}},
		{name: "not allowed", query: "deviceId=d&target=ssh", code: wire.Forbidden, change: func(c *relay.Config) {
			c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return &auth.Principal{Name: "nobody"}, nil })
		}},
		{name: "unknown device", query: "deviceId=d", code: wire.DeviceNotFound, detail: `does not know device "d"`, change: failing(signaler.ErrDeviceNotFound)},
		{name: "offline", query: "deviceId=d", code: wire.DeviceOffline, detail: `device "d" is not connected`, change: failing(signaler.ErrDeviceOffline)},
		{name: "refused", query: "deviceId=d", code: wire.DeviceRefused, detail: `device "d" refused: busy: not now`,
			change: failing(&signaler.RefusedError{Refusal: signaler.Refusal{Code: "busy", Message: "not now"}})},
		{name: "throttled", query: "deviceId=d", code: wire.HubThrottled, retry: 7, change: failing(&signaler.ThrottledError{RetryAfter: 6500 * time.Millisecond})},
		{name: "throttled without a time", query: "deviceId=d", code: wire.HubThrottled, retry: 1, change: failing(signaler.ErrThrottled)},
		{name: "hub refuses us", query: "deviceId=d", code: wire.HubFailed, detail: "own credentials", change: failing(signaler.ErrUnauthorized)},
		{name: "basic tier", query: "deviceId=d", code: wire.HubFailed, detail: "Basic", change: failing(signaler.ErrNotSupported)},
		{name: "hub away", query: "deviceId=d", code: wire.HubFailed, detail: "cannot be reached", change: failing(signaler.ErrUnavailable)},
		{name: "our own fault", query: "deviceId=d", code: wire.Internal, change: failing(io.ErrShortBuffer)},
		{name: "hub answered too late", query: "deviceId=d", code: wire.DialBackTimeout, change: failing(signaler.ErrTimedOut)},
		{name: "never came", query: "deviceId=d", code: wire.DialBackTimeout, detail: `device "d" did not dial back within 15s`},
		{name: "full", query: "deviceId=d", code: wire.LimitReached, detail: "1 of at most 1 bridges", retry: 1,
			change: func(c *relay.Config) { c.MaxBridges = 1 }, before: func(n *node) { n.open("deviceId=other") }},
		{name: "too many wait", query: "deviceId=d", code: wire.LimitReached, detail: "1 of at most 1 bridges wait", retry: 1,
			change: func(c *relay.Config) { c.MaxWaiting = 1 }, before: func(n *node) {
				n.connecting(context.Background(), "deviceId=other")
				<-n.signals
			}},
		{name: "killed", query: "deviceId=d", code: wire.Killed, before: func(n *node) {
			go func() {
				s := <-n.signals
				n.ask(http.MethodDelete, wire.PathBridges+"/"+s.BridgeID)
			}()
		}},
		{name: "revoked", query: "deviceId=d", code: wire.PermissionRevoked, detail: `no rule of the policy lets "anonymous" in`, change: func(c *relay.Config) {
			c.Policy, c.Revoke = mustPolicy(t, rules+"  - {name: all, who: [\"*\"], devices: [\"*\"], targets: [\"*\"]}\n"), true
			revokeLater = func() { c.Policy.Replace(rules) }
		}, before: func(n *node) {
			go func() {
				<-n.signals
				revokeLater()
				n.srv.Recheck()
			}()
		}},
		{name: "draining", query: "deviceId=d", code: wire.Draining, retry: 1,
			change: func(c *relay.Config) { c.Drain = time.Hour }, before: func(n *node) {
				n.open("deviceId=other")
				n.stop()
				synctest.Wait()
			}},
	} {
		met[tt.code] = true
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %t", tt.name, early), func(t *testing.T) {
				inBubble(t, tt.change, func(n *node) {
					defer n.srv.Kill()
					if tt.before != nil {
						tt.before(n)
					}
					row := tt.code.Row()
					if early {
						// In front, so that a broken query still says it.
						c, err := n.connect(context.Background(), "upgrade=early&"+tt.query)
						if tt.name == "broken query" {
							wantStatus(t, err, http.StatusBadRequest, wire.BadRequest)
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						wantClose(t, c, row.Close, tt.code)
						return
					}
					_, err := n.connect(context.Background(), tt.query)
					p := wantStatus(t, err, row.Status, tt.code)
					if !strings.Contains(p.Detail, tt.detail) {
						t.Errorf("detail %q, want %q in it", p.Detail, tt.detail)
					}
					if strings.Contains(p.Detail, "own words") {
						t.Errorf("the hub's words reach the requester: %q", p.Detail)
					}
					if p.RetryAfter != tt.retry {
						t.Errorf("retry after %d s, want %d", p.RetryAfter, tt.retry)
					}
				})
			})
		}
	}
	// Those that no WebSocket client can provoke.
	met[wire.MethodNotAllowed], met[wire.UpgradeRequired] = true, true
	met[wire.BadSignature] = true // TestSignedURLChanged
	met[wire.AuditFailed] = true  // TestAuditFails
	for _, o := range wire.Outcomes() {
		device := o.Code == wire.BadToken || o.Code == wire.TokenProof || o.Code == wire.BridgeGone || o.Code == wire.OwnerLost
		if o.Status != 0 && !device && !met[o.Code] {
			t.Errorf("no test meets %s", o.Code)
		}
	}
}

func TestPlainRequests(t *testing.T) {
	handshake := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}
	with := func(name, value string) http.Header {
		h := handshake.Clone()
		h.Set(name, value)
		return h
	}
	inBubble(t, nil, func(n *node) {
		for _, tt := range []struct {
			name, method, path string
			header             http.Header
			status             int
			code               wire.Code
		}{
			{"no handshake", "GET", "/bridge/connect?deviceId=d", nil, 426, wire.UpgradeRequired},
			{"early, no handshake", "GET", "/bridge/connect?deviceId=d&upgrade=early", nil, 426, wire.UpgradeRequired},
			{"post", "POST", "/bridge/connect?deviceId=d", handshake, 405, wire.MethodNotAllowed},
			{"old version", "GET", "/bridge/connect?deviceId=d", with("Sec-WebSocket-Version", "8"), 400, wire.BadRequest},
			{"short key", "GET", "/bridge/connect?deviceId=d", with("Sec-WebSocket-Key", "AAAA"), 400, wire.BadRequest},
			{"unknown upgrade", "GET", "/bridge/connect?deviceId=d&upgrade=late", handshake, 400, wire.BadRequest},
			{"another site's page", "GET", "/bridge/connect?deviceId=d", with("Origin", "https://evil.example"), 403, wire.Forbidden},
			{"another site's page, early", "GET", "/bridge/connect?deviceId=d&upgrade=early", with("Origin", "https://evil.example"), 403, wire.Forbidden},
			{"no page at all", "GET", "/bridge/connect?deviceId=d", with("Origin", "null"), 403, wire.Forbidden},
			{"accept by post", "POST", "/bridge/accept?bridgeToken=x", handshake, 405, wire.MethodNotAllowed},
			{"reject by get", "GET", "/bridge/reject?bridgeToken=x", nil, 405, wire.MethodNotAllowed},
			{"accept without token", "GET", "/bridge/accept", handshake, 400, wire.BadToken},
			{"reject without token", "POST", "/bridge/reject", nil, 400, wire.BadToken},
		} {
			req, _ := http.NewRequest(tt.method, "http://relay.test"+tt.path, nil)
			if tt.header != nil {
				req.Header = tt.header.Clone()
			}
			resp, err := n.httpClient().Do(req)
			if err != nil {
				t.Fatal(tt.name, err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			p, err := wire.ParseProblem(body)
			if err != nil || resp.StatusCode != tt.status || p.Code != tt.code || len(body) > 1024 {
				t.Errorf("%s: %d %+v, %v; want %d %s", tt.name, resp.StatusCode, p, err, tt.status, tt.code)
			}
			if tt.status == 405 && resp.Header.Get("Allow") == "" {
				t.Errorf("%s: no Allow header", tt.name)
			}
			if tt.status == 426 && resp.Header.Get("Upgrade") != "websocket" {
				t.Errorf("%s: no Upgrade header", tt.name)
			}
		}
		if len(n.signals) > 0 {
			t.Error("a request that could not be upgraded signalled a device")
		}
	})
}

// A requester of the same site's page is let in.
func TestOriginOfOurOwn(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		h := http.Header{"Origin": {"http://relay.test"}}
		done := make(chan dialed, 1)
		go func() {
			c, err := n.dialer().DialWebSocket(context.Background(), "ws://relay.test/bridge/connect?deviceId=d", h)
			done <- dialed{c, err}
		}()
		device, err := n.accept(<-n.signals)
		got := <-done
		if err != nil || got.err != nil {
			t.Fatal(err, got.err)
		}
		go device.Close()
		wantClose(t, got.conn, wire.CloseNormal, "")
	})
}

// However long and however strange the device's words, the answer fits what a
// WebSocket client keeps.
func TestLongRefusal(t *testing.T) {
	for _, message := range []string{strings.Repeat("x", 3000), strings.Repeat("\"\\<>", 900), strings.Repeat("\x01é", 900)} {
		inBubble(t, failing(&signaler.RefusedError{Refusal: signaler.Refusal{Code: strings.Repeat("c", 500), Message: message}}), func(n *node) {
			_, err := n.connect(context.Background(), "deviceId="+strings.Repeat("d", 128))
			p := wantStatus(t, err, http.StatusConflict, wire.DeviceRefused)
			if p.Detail == "" || p.DeviceCode == "" || p.BridgeID == "" {
				t.Errorf("problem %+v", p)
			}
		})
	}
}

func TestEarly(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, err := n.connect(context.Background(), "deviceId=d&upgrade=early", "v2", "v1")
		if err != nil {
			t.Fatal(err)
		}
		if requester.Subprotocol() != "v2" {
			t.Errorf("subprotocol %q", requester.Subprotocol())
		}
		s := <-n.signals
		if strings.Join(s.Subprotocols, " ") != "v2" {
			t.Errorf("the device is offered %q", s.Subprotocols)
		}
		if _, err := requester.Write([]byte("before the device is there, ")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		device, err := n.accept(s, "v1", "v2")
		if err != nil {
			t.Fatal(err)
		}
		if device.Subprotocol() != "v2" {
			t.Errorf("device has %q", device.Subprotocol())
		}
		go func() {
			requester.Write([]byte("and after"))
			requester.Close()
		}()
		if got := wantClose(t, device, wire.CloseNormal, ""); got != "before the device is there, and after" {
			t.Errorf("got %q", got)
		}
	})
}

func TestEarlySubprotocolRefused(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, err := n.connect(context.Background(), "deviceId=d&upgrade=early", "v2")
		if err != nil {
			t.Fatal(err)
		}
		device, err := n.accept(<-n.signals)
		if err != nil {
			t.Fatal(err)
		}
		wantClose(t, device, wire.ClosePolicy, wire.DeviceRefused)
		wantClose(t, requester, wire.DeviceRefused.Row().Close, wire.DeviceRefused)
	})
}

func TestEarlyRequesterBreaksProtocol(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		raw, err := n.ln.Dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(raw, "GET /bridge/connect?deviceId=d&upgrade=early HTTP/1.1\r\nHost: relay.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		all := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(raw)
			all <- b
		}()
		s := <-n.signals
		raw.Write([]byte{0x81, 0x01, 'x'}) // not masked
		synctest.Wait()
		_, err = n.accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		if _, frame, _ := strings.Cut(string(<-all), "\r\n\r\n"); !strings.HasPrefix(frame, "\x88") || !strings.Contains(frame, "\x03\xea") {
			t.Errorf("got frame %q, want close 1002", frame)
		}
	})
}
