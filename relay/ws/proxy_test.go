package ws

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// connectProxy is an HTTP proxy that knows CONNECT and nothing else. With a
// config it speaks TLS, with a user ("name:password") it asks for it.
func connectProxy(t *testing.T, cfg *tls.Config, user string) string {
	return listen(t, func(c net.Conn) {
		if cfg != nil {
			c = tls.Server(c, cfg)
		}
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil || r.Method != http.MethodConnect {
			io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
			return
		}
		if user != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(user)) {
			io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
			return
		}
		to, err := net.Dial("tcp", r.RequestURI)
		if err != nil {
			io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
		join(c, to)
	})
}

// join copies both ways until one way ends.
func join(a, b net.Conn) {
	go func() {
		io.Copy(a, b)
		a.Close()
	}()
	io.Copy(b, a)
	b.Close()
}

// socksProxy is as much of RFC 1928 and 1929 as a CONNECT needs.
func socksProxy(t *testing.T, user, pass string) string {
	return listen(t, func(c net.Conn) {
		read := func(n int) []byte {
			b := make([]byte, n)
			io.ReadFull(c, b)
			return b
		}
		methods := read(int(read(2)[1]))
		if user != "" {
			if !slices.Contains(methods, 2) {
				c.Write([]byte{5, 0xff})
				return
			}
			c.Write([]byte{5, 2})
			u := read(int(read(2)[1]))
			p := read(int(read(1)[0]))
			if string(u) != user || string(p) != pass {
				c.Write([]byte{1, 1})
				return
			}
			c.Write([]byte{1, 0})
		} else {
			c.Write([]byte{5, 0})
		}
		req := read(4)
		var host string
		switch req[3] {
		case 1:
			host = net.IP(read(4)).String()
		case 3:
			host = string(read(int(read(1)[0])))
		case 4:
			host = net.IP(read(16)).String()
		}
		to, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(read(2)))))
		if err != nil {
			c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		join(c, to)
	})
}

func TestDialThroughProxy(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(gorillaEcho))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(gorillaEcho))
	defer secure.Close()
	proxyTLS := &tls.Config{Certificates: secure.TLS.Certificates}
	user := "joe:" + password
	for _, test := range []struct {
		name, proxy string
	}{
		{"http", "http://" + connectProxy(t, nil, "")},
		{"http with a password", "http://" + user + "@" + connectProxy(t, nil, user)},
		{"https", "https://" + connectProxy(t, proxyTLS, "")},
		{"https with a password", "https://" + user + "@" + connectProxy(t, proxyTLS, user)},
		{"socks5", "socks5://" + socksProxy(t, "", "")},
		{"socks5 with a password", "socks5://" + user + "@" + socksProxy(t, "joe", password)},
		{"socks5h", "socks5h://" + socksProxy(t, "", "")},
	} {
		for _, s := range []*httptest.Server{plain, secure} {
			t.Run(test.name+" to "+s.URL[:strings.Index(s.URL, ":")], func(t *testing.T) {
				cfg := roots(secure)
				if s == secure {
					cfg.ServerName = "example.com" // in the test certificate too; the proxy must not be asked for it
				}
				var dialled atomic.Int32
				var asked atomic.Pointer[http.Request]
				d := &Dialer{
					TLS: cfg,
					Proxy: func(r *http.Request) (*url.URL, error) {
						asked.Store(r)
						return url.Parse(test.proxy)
					},
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						dialled.Add(1)
						if !strings.HasSuffix(test.proxy, addr) {
							t.Errorf("dialled %s, not the proxy", addr)
						}
						return (&net.Dialer{}).DialContext(ctx, network, addr)
					},
				}
				c, err := d.DialWebSocket(t.Context(), wsURL(s), nil)
				if err != nil {
					t.Fatal(err)
				}
				echo(t, c)
				if dialled.Load() != 1 {
					t.Errorf("dialled %d times", dialled.Load())
				}
				if got := asked.Load().URL; got.Scheme+"://"+got.Host != s.URL {
					t.Errorf("the proxy was chosen for %s, want %s", got, s.URL)
				}
			})
		}
	}
}

// The proxy's name, not the server's, is asked of the proxy's certificate.
func TestDialProxyName(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(gorillaEcho))
	defer secure.Close()
	var name atomic.Value
	addr := connectProxy(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name.Store(h.ServerName)
		return &secure.TLS.Certificates[0], nil
	}}, "")
	cfg := roots(secure)
	cfg.ServerName = "example.com"
	d := &Dialer{TLS: cfg, Proxy: via("https://" + addr)}
	c, err := d.DialWebSocket(t.Context(), wsURL(secure), nil)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	if got := name.Load(); got != "" { // an IP address is never sent (RFC 6066 section 3)
		t.Errorf("the proxy was asked for %q", got)
	}
}
