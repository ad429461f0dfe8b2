package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// tlsEcho sends back what it gets and notes what the handshake agreed on.
func tlsEcho(t *testing.T, s *httptest.Server, seen chan<- tls.ConnectionState) string {
	return listen(t, func(c net.Conn) {
		t := tls.Server(c, &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"http/1.1"}})
		if t.Handshake() == nil {
			seen <- t.ConnectionState()
		}
		io.Copy(t, t)
	})
}

func TestDialTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	user := "joe:" + password
	for _, test := range []struct{ name, proxy string }{
		{"direct", ""},
		{"http with a password", "http://" + user + "@" + connectProxy(t, nil, user)},
		{"https", "https://" + connectProxy(t, &tls.Config{Certificates: s.TLS.Certificates}, "")},
		{"socks5", "socks5://" + socksProxy(t, "", "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := make(chan tls.ConnectionState, 1)
			addr := tlsEcho(t, s, seen)
			var asked string
			cfg := roots(s)
			cfg.ServerName = "example.com"
			d := &Dialer{TLS: cfg, Proxy: func(r *http.Request) (*url.URL, error) {
				asked = r.URL.String()
				if test.proxy == "" {
					return nil, nil
				}
				return url.Parse(test.proxy)
			}}
			c, err := d.DialTLS(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if asked != "https://"+addr {
				t.Errorf("the proxy was chosen for %s, want https://%s", asked, addr)
			}
			if got := <-seen; got.NegotiatedProtocol != "" || got.ServerName != "example.com" {
				t.Errorf("the server was asked for %q and protocol %q", got.ServerName, got.NegotiatedProtocol)
			}
			go io.WriteString(c, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); string(b) != "hello" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

func TestDialTLSErrors(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	addr := s.Listener.Addr().String()
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	user := "joe:" + password
	for _, test := range []struct {
		name, addr, want string
		d                Dialer
	}{
		{"no port", "hub.example.com", `"hub.example.com" is not a host and port`, Dialer{Proxy: direct}},
		{"an unknown CA", addr, "dial " + addr + ": tls: failed to verify certificate", Dialer{Proxy: direct}},
		{"nobody there", "127.0.0.1:1", "dial 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused", Dialer{Proxy: direct}},
		{"a proxy that says no", addr, "the proxy answered 407 Proxy Authentication Required", Dialer{TLS: roots(s), Proxy: via("http://" + user + "@" + connectProxy(t, nil, "jane:x"))}},
		{"a server that says nothing", silent, "dial " + silent + ": too late", Dialer{Proxy: direct}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wait := 10 * time.Second
			if test.addr == silent {
				wait = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), wait, errors.New("too late"))
			defer cancel()
			_, err := test.d.DialTLS(ctx, test.addr)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s in it", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("the proxy's password is in %v", err)
			}
		})
	}
}
