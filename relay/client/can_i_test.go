package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/wire"
)

func TestCanI(t *testing.T) {
	p, err := policy.Parse(`version: 1
rules:
  - {name: pumps, who: ["*"], devices: [pump-*], targets: [ssh], caps: {idle: 1m}}
`)
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, func(c *relay.Config) { c.Policy = p }, func(t *testing.T, l *lab) {
		got, err := client.CanI(context.Background(), l.client, request("ssh"))
		if err != nil || !got.Allowed || got.Rule != "pumps" || got.Caps == nil || got.Caps.Idle != 60 {
			t.Errorf("got %+v, %v", got, err)
		}
		got, err = client.CanI(context.Background(), l.client, request("ssh", "web"))
		if err != nil || got.Allowed || got.Why != `"anonymous" may reach device "pump-7", but not target "web" there` {
			t.Errorf("got %+v, %v", got, err)
		}
		if n := l.signals.Load(); n != 0 {
			t.Errorf("%d signals", n)
		}
		_, err = client.CanI(context.Background(), l.client, client.Request{Device: "a b"})
		wantError(t, err, wire.BadRequest)
	})
}

// What a relay does not say.
func TestCanIOfStrangers(t *testing.T) {
	const head = "Content-Type: application/json\r\nConnection: close\r\n"
	problem := `{"title":"t","status":401,"code":"unauthenticated"}`
	for name, tt := range map[string]struct {
		answer      string
		code        wire.Code
		noRelay     bool
		unreachable bool
	}{
		"a relay's no":         {"HTTP/1.1 401 Unauthorized\r\n" + head + "\r\n" + problem, wire.Unauthenticated, false, false},
		"an older relay":       {"HTTP/1.1 404 Not Found\r\n" + head + "\r\n404 page not found", wire.BadRequest, true, false},
		"a web page":           {"HTTP/1.1 200 OK\r\n" + head + "\r\n<html>", wire.BadRequest, true, false},
		"neither yes nor no":   {"HTTP/1.1 200 OK\r\n" + head + "\r\n{}", wire.BadRequest, true, false},
		"somewhere else":       {"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n" + head + "\r\n", wire.BadRequest, true, false},
		"a gateway":            {"HTTP/1.1 502 Bad Gateway\r\n" + head + "\r\n", wire.OwnerLost, true, false},
		"too much":             {"HTTP/1.1 200 OK\r\n" + head + "\r\n{\"allowed\":true,\"why\":\"" + strings.Repeat("x", wire.MaxProblem) + "\"}", wire.BadRequest, true, false},
		"no HTTP":              {"SSH-2.0-OpenSSH\r\n", "", false, true},
		"nothing":              {"", "", false, true},
		"cut within the head":  {"HTTP/1.1 200 OK\r\nContent-", "", false, true},
		"cut within the words": {"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"allowed\":", "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dials := 0
			cfg := answers(func(c net.Conn, r *http.Request) {
				dials++
				if r.URL.Path != wire.PathCanI || r.Header.Get(wire.HeaderAPIKey) != "secret-key" {
					t.Errorf("asked %s with %v", r.URL.Path, r.Header)
				}
				io.WriteString(c, tt.answer)
			})
			cfg.APIKey = "secret-key"
			got, err := client.CanI(context.Background(), cfg, request("ssh"))
			if err == nil || got.Allowed {
				t.Fatalf("got %+v, %v", got, err)
			}
			var e *client.Error
			if errors.As(err, new(*client.UnreachableError)) != tt.unreachable || errors.As(err, &e) == tt.unreachable {
				t.Fatalf("got %#v", err)
			}
			if e != nil && (e.Code != tt.code || e.NoRelay != tt.noRelay) {
				t.Errorf("got %+v", e)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "deviceId") {
				t.Errorf("the error says too much: %v", err)
			}
			if dials != 1 {
				t.Errorf("%d requests", dials)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.CanI(ctx, says("x"), request("ssh")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
