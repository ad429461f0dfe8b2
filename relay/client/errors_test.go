package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/test/netfault"
)

// What is said before the upgrade, by a relay and by others.
func TestHandshakeErrors(t *testing.T) {
	foreign := "is this a relay? a proxy in front of it may have answered instead"
	for _, tt := range []struct {
		name, answer string
		want         client.Error
		temporary    bool
	}{
		{"all fields", problem(409, "Retry-After: 7\r\n", `{"title":"The device refused.","status":409,"code":"device_refused","detail":"no","hint":"ask","bridgeId":"b1","deviceCode":"busy","retryAfter":9}`),
			client.Error{Code: wire.DeviceRefused, Status: 409, Detail: "no", Hint: "ask", BridgeID: "b1", DeviceCode: "busy", RetryAfter: 7 * time.Second}, false},
		{"refused for a while", problem(409, "", `{"code":"device_refused","detail":"no","deviceCode":"limit_reached"}`),
			client.Error{Code: wire.DeviceRefused, Status: 409, Detail: "no", DeviceCode: "limit_reached"}, true},
		{"title only", problem(503, "", `{"title":"The node is draining.","code":"draining","retryAfter":3}`),
			client.Error{Code: wire.Draining, Status: 503, Detail: "the node is draining", RetryAfter: 3 * time.Second}, true},
		{"code only", problem(403, "", `{"code":"forbidden"}`),
			client.Error{Code: wire.Forbidden, Status: 403, Detail: "the relay answered 403 Forbidden"}, false},
		{"a code of a newer relay, for now", problem(503, "", `{"code":"solar_storm","detail":"wait"}`),
			client.Error{Code: "solar_storm", Status: 503, Detail: "wait"}, true},
		{"a code of a newer relay, for good", problem(400, "", `{"code":"no_such_moon","detail":"no"}`),
			client.Error{Code: "no_such_moon", Status: 400, Detail: "no"}, false},
		{"bad times", problem(429, "Retry-After: -5\r\n", `{"code":"hub_throttled","detail":"x","retryAfter":-9}`),
			client.Error{Code: wire.HubThrottled, Status: 429, Detail: "x"}, true},
		{"long times", problem(429, "Retry-After: 99999999999999999999\r\n", `{"code":"hub_throttled","detail":"x","retryAfter":9223372036854775807}`),
			client.Error{Code: wire.HubThrottled, Status: 429, Detail: "x"}, true},
		{"a date", problem(429, "Retry-After: Sat, 01 Jan 2000 00:01:00 GMT\r\n", `{"code":"hub_throttled","detail":"x"}`),
			client.Error{Code: wire.HubThrottled, Status: 429, Detail: "x", RetryAfter: time.Minute}, true},
		{"a date gone by", problem(429, "Retry-After: Fri, 31 Dec 1999 00:01:00 GMT\r\n", `{"code":"hub_throttled","detail":"x"}`),
			client.Error{Code: wire.HubThrottled, Status: 429, Detail: "x"}, true},

		{"a proxy's page", "HTTP/1.1 502 Bad Gateway\r\nRetry-After: 2\r\n\r\n<html>", client.Error{Code: wire.OwnerLost, Status: 502,
			Detail: "the relay's address answered 502 Bad Gateway, without saying why", Hint: foreign, NoRelay: true, RetryAfter: 2 * time.Second}, true},
		{"a web site", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", client.Error{Code: wire.BadRequest, Status: 200,
			Detail: "the relay's address answered 200 OK, without saying why", Hint: foreign, NoRelay: true}, false},
		{"a redirect", "HTTP/1.1 301 Moved Permanently\r\nLocation: https://evil.test/\r\n\r\n", client.Error{Code: wire.BadRequest, Status: 301,
			Detail: "the relay's address answered 301 Moved Permanently, without saying why", Hint: foreign, NoRelay: true}, false},
		{"a gateway's 401", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", client.Error{Code: wire.Unauthenticated, Status: 401,
			Detail: "the relay's address answered 401 Unauthorized, without saying why", Hint: foreign, NoRelay: true}, false},
		{"a gateway's 403", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", client.Error{Code: wire.Forbidden, Status: 403,
			Detail: "the relay's address answered 403 Forbidden, without saying why", Hint: foreign, NoRelay: true}, false},
		{"a gateway's 429", "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", client.Error{Code: wire.LimitReached, Status: 429,
			Detail: "the relay's address answered 429 Too Many Requests, without saying why", Hint: foreign, NoRelay: true}, true},
		{"no status of this world", "HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", client.Error{Code: wire.OwnerLost, Status: 599,
			Detail: "the relay's address answered 599, without saying why", Hint: foreign, NoRelay: true}, true},
		{"another API's JSON", problem(404, "", `{"code":17}`), client.Error{Code: wire.BadRequest, Status: 404,
			Detail: "the relay's address answered 404 Not Found, without saying why", Hint: foreign, NoRelay: true}, false},
		{"a huge body", problem(400, "", `{"code":"bad_request","detail":"`+strings.Repeat("x", 100<<10)+`"}`), client.Error{Code: wire.BadRequest, Status: 400,
			Detail: "the relay's address answered 400 Bad Request, without saying why", Hint: foreign, NoRelay: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := client.Dial(context.Background(), says(tt.answer), request())
				e := wantError(t, err, tt.want.Code)
				if !reflect.DeepEqual(*e, tt.want) {
					t.Errorf("got  %+v\nwant %+v", *e, tt.want)
				}
				if e.Temporary() != tt.temporary {
					t.Errorf("temporary: %t", e.Temporary())
				}
				if e.Error() != tt.want.Detail {
					t.Errorf("text %q", e.Error())
				}
			})
		})
	}
}

// An address that does not answer.
func TestUnreachable(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"hangs up":     says(""),
		"speaks SSH":   says("SSH-2.0-OpenSSH_9.9\r\n"),
		"other 101":    says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n"),
		"no such host": {URL: "ws://relay.test", AllowPlain: true, Dialer: ws.Dialer{Proxy: netfault.NoProxy, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no such host") }}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.APIKey = "SECRET"
			_, err := client.Dial(t.Context(), cfg, client.Request{Device: device, Data: "PRIVATE"})
			var u *client.UnreachableError
			if !errors.As(err, &u) || !strings.Contains(err.Error(), "relay.test") || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("got %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cfg := answers(func(_ net.Conn, _ *http.Request) { cancel(errors.New("enough")); <-ctx.Done() })
	if _, err := client.Dial(ctx, cfg, request()); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
}

// A server that repeats what it was sent, in every place it can, gets no secret
// into an error.
func TestNoSecretInErrors(t *testing.T) {
	const secret = "s3cr3t-k3y"
	for name, answer := range map[string]func(echo string) string{
		"as headers": func(e string) string { return "HTTP/1.1 400 " + e + "\r\nX: " + e + "\r\nContent-Length: 0\r\n\r\n" },
		"as a body":  func(e string) string { return "HTTP/1.1 500 x\r\n\r\n" + e },
		"as itself":  func(e string) string { return e + "\r\n\r\n" },
	} {
		cfg := answers(func(c net.Conn, r *http.Request) {
			fmt.Fprint(c, answer(r.Header.Get("X-Api-Key")+r.Header.Get("Authorization")))
		})
		cfg.APIKey = secret
		cfg.Header = http.Header{"Authorization": {"Bearer " + secret}}
		_, err := client.Dial(t.Context(), cfg, request())
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, addr := range []string{
		"wss://user:" + secret + "@relay.test", "https://user:" + secret + " x@relay.test", "ftp://user:" + secret + "@relay.test", "wss://?key=" + secret, "user:" + secret + "@relay.test",
		"wss://relay.test/?key=" + secret, "ws://relay.test#" + secret, secret + "@", "wss://u:" + secret + "?x@relay", "%zz@" + secret,
	} {
		if _, err := client.ParseURL(addr, false); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", addr, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		addr  string
		plain bool
		want  string // a URL, or a part of the fault
	}{
		{"wss://relay.test", false, "wss://relay.test"},
		{"https://relay.test:8443/front/", false, "wss://relay.test:8443/front/"},
		{"HTTPS://Relay.test", false, "wss://Relay.test"},
		{"ws://127.0.0.1:8080", false, "ws://127.0.0.1:8080"},
		{"http://localhost:8080", false, "ws://localhost:8080"},
		{"ws://[::1]:8080", false, "ws://[::1]:8080"},
		{"ws://relay.test", true, "ws://relay.test"},
		{"ws://relay.test", false, "in clear"},
		{"http://relay.test", false, "in clear"},
		{"ws://localhost.evil.test", false, "in clear"},
		{"ws://127.0.0.1.evil.test", false, "in clear"},
		{"", false, "is not a URL"},
		{"relay.test", false, "is not a URL"},
		{"relay.test:8443", false, "does not start with wss://"},
		{"localhost:8080", false, "does not start with wss://"},
		{"ssh://relay.test", true, "does not start with wss://"},
		{"wss:relay.test", false, "has no host"},
		{"wss:///x", false, "has no host"},
		{"wss://:443", false, "has no host"},
		{"wss://relay.test/?a=b", false, "a query"},
		{"wss://relay.test/#f", false, "a fragment"},
		{"wss://u@relay.test/", false, "a user"},
		{"wss://relay.test:x", false, "is not a URL"},
		{"wss://re lay.test", false, "is not a URL"},
	} {
		u, err := client.ParseURL(tt.addr, tt.plain)
		switch {
		case err != nil && !strings.Contains(err.Error(), tt.want), err == nil && u.String() != tt.want:
			t.Errorf("%q: got %v, %v; want %q", tt.addr, u, err, tt.want)
		}
	}
}

// What cannot work is said without asking anybody, and not tried again.
func TestBadRequests(t *testing.T) {
	asked := false
	cfg := answers(func(net.Conn, *http.Request) { asked = true })
	small := cfg
	small.Session.InitialWindow = 1
	for name, tt := range map[string]struct {
		cfg client.Config
		req client.Request
	}{
		"address":        {client.Config{URL: "relay.test"}, request()},
		"session":        {small, request()},
		"no device":      {cfg, client.Request{}},
		"device":         {cfg, client.Request{Device: "a/b"}},
		"empty target":   {cfg, request("")},
		"two in one":     {cfg, request("ssh,web")},
		"space":          {cfg, request("a b")},
		"many targets":   {cfg, request(strings.Split(strings.Repeat("a ", 17), " ")[:17]...)},
		"too much data":  {cfg, client.Request{Device: device, Data: strings.Repeat("x", wire.MaxRequestData+1)}},
		"data not UTF-8": {cfg, client.Request{Device: device, Data: "\xff"}},
	} {
		_, err := client.Dial(t.Context(), tt.cfg, tt.req)
		if e := wantError(t, err, wire.BadRequest); e.Temporary() || e.Status != 0 || e.Detail == "" {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	if asked {
		t.Error("somebody was asked")
	}
}

// What is sent is what the caller said.
func TestRequest(t *testing.T) {
	got := make(chan *http.Request, 1)
	cfg := answers(func(_ net.Conn, r *http.Request) { got <- r })
	cfg.URL, cfg.APIKey, cfg.Header = "ws://relay.test/front/", "k", http.Header{"X-Trace": {"t"}, "X-Api-Key": {"old"}}
	client.Dial(t.Context(), cfg, client.Request{Device: "a?#b", Targets: []string{"ssh", "10.0.0.1:22"}, Data: "x=y&z ü"})
	r := <-got
	q := r.URL.Query()
	if r.URL.Path != "/front/bridge/connect" || q.Get("deviceId") != "a?#b" || q.Get("target") != "ssh,10.0.0.1:22" || q.Get("requestData") != "x=y&z ü" || len(q) != 3 {
		t.Errorf("got %v", r.URL)
	}
	if v := r.Header.Values("X-Api-Key"); len(v) != 1 || v[0] != "k" || r.Header.Get("X-Trace") != "t" || r.Header.Get("Sec-WebSocket-Protocol") != wire.SessionV1 {
		t.Errorf("got %v", r.Header)
	}
	if cfg.Header.Get("X-Api-Key") != "old" {
		t.Error("the caller's header was changed")
	}
	client.DialRaw(t.Context(), cfg, request())
	if r = <-got; r.URL.RawQuery != "deviceId=pump-7" || r.Header.Get("Sec-WebSocket-Protocol") != "" {
		t.Errorf("got %v %v", r.URL, r.Header)
	}
}

func TestExplain(t *testing.T) {
	if client.Explain(nil) != nil {
		t.Error("nil is something")
	}
	if plain := errors.New("x"); client.Explain(plain) != plain {
		t.Error("another error is changed")
	}
	for _, tt := range []struct {
		in        ws.CloseError
		want      client.Error
		temporary bool
	}{
		{ws.CloseError{Code: 1012, Reason: "draining: the node stops"}, client.Error{Code: wire.Draining, Close: 1012, Detail: "the node stops", Hint: wire.Draining.Row().Hint}, true},
		{ws.CloseError{Code: 1008, Reason: "max_bytes"}, client.Error{Code: wire.MaxBytes, Close: 1008, Detail: "the bridge reached its most bytes"}, false},
		{ws.CloseError{Code: 1011, Reason: "the target's connection failed"}, client.Error{Close: 1011, Detail: "the target's connection failed"}, true},
		{ws.CloseError{Code: 1001, Reason: ""}, client.Error{Code: wire.PeerLost, Close: 1001, Detail: "the other end closed the WebSocket with code 1001"}, true},
		{ws.CloseError{Code: 1013, Reason: "later"}, client.Error{Code: wire.PeerLost, Close: 1013, Detail: "later"}, true},
		{ws.CloseError{Code: 3000, Reason: "solar_storm: wait"}, client.Error{Close: 3000, Detail: "solar_storm: wait (close code 3000)"}, true},
	} {
		err := client.Explain(fmt.Errorf("read: %w", &tt.in))
		e := wantError(t, err, tt.want.Code)
		if !reflect.DeepEqual(*e, tt.want) || e.Temporary() != tt.temporary {
			t.Errorf("%v: got  %+v, temporary %t\nwant %+v", &tt.in, *e, e.Temporary(), tt.want)
		}
	}
}
