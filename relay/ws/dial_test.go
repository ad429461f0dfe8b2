package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
)

// What no error may say.
const (
	secret   = "TOKEN-IN-THE-QUERY"
	password = "PASSWORD-OF-THE-PROXY"
)

func direct(*http.Request) (*url.URL, error) { return nil, nil }

func via(proxy string) func(*http.Request) (*url.URL, error) {
	u, err := url.Parse(proxy)
	return func(*http.Request) (*url.URL, error) { return u, err }
}

func wsURL(s *httptest.Server) string {
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/bridge/accept?bridgeToken=" + secret
}

// listen serves each connection in its own goroutine until the test ends, and
// returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// roots trusts the server's certificate.
func roots(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

// gorillaEcho echoes messages and the subprotocol.
func gorillaEcho(w http.ResponseWriter, r *http.Request) {
	u := websocket.Upgrader{Subprotocols: websocket.Subprotocols(r)}
	c, err := u.Upgrade(w, r, http.Header{"Bridge-Id": {"b1"}})
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, p); err != nil {
			return
		}
	}
}

func coderEcho(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{Subprotocols: websocket.Subprotocols(r)})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, p); err != nil {
			return
		}
	}
}

// echo checks that c is joined with an echo, and closes it.
func echo(t *testing.T, c *Conn) {
	t.Helper()
	want := bytes.Repeat([]byte("0123456789"), 20<<10)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(want); err != nil {
			t.Error(err)
		}
	})
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the echo is wrong: %v", err)
	}
	wg.Wait()
	start := time.Now()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if d := time.Since(start); d > CloseTimeout/2 {
		t.Errorf("Close took %v: there was no handshake", d)
	}
}

func TestDial(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{"gorilla": gorillaEcho, "coder": coderEcho} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(serve)
			defer s.Close()
			d := &Dialer{}
			c, err := d.DialWebSocket(t.Context(), wsURL(s), http.Header{"X-Api-Key": {"k"}}, "bridge.session.v1", "other")
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Subprotocol(); got != "bridge.session.v1" {
				t.Errorf("subprotocol %q", got)
			}
			if name == "gorilla" && c.Header().Get("Bridge-Id") != "b1" {
				t.Errorf("header %v", c.Header())
			}
			echo(t, c)
		})
		t.Run(name+", TLS with a private CA", func(t *testing.T) {
			s := httptest.NewTLSServer(serve)
			defer s.Close()
			d := &Dialer{TLS: roots(s)}
			c, err := d.DialWebSocket(t.Context(), wsURL(s), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Subprotocol(); got != "" {
				t.Errorf("subprotocol %q", got)
			}
			echo(t, c)
		})
	}
}

func TestDialRequest(t *testing.T) {
	got := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r
		w.WriteHeader(http.StatusTeapot)
	}))
	defer s.Close()
	header := http.Header{"X-Api-Key": {"k"}, "Host": {"relay.example"}, "Sec-Websocket-Key": {"mine"}}
	_, err := (&Dialer{}).DialWebSocket(t.Context(), wsURL(s), header, "a", "b")
	if h := (*HandshakeError)(nil); !errors.As(err, &h) || h.Status != http.StatusTeapot {
		t.Fatal(err)
	}
	r := <-got
	if r.Host != "relay.example" || r.URL.RawQuery != "bridgeToken="+secret || r.URL.Path != "/bridge/accept" {
		t.Errorf("asked for %s at %s", r.URL, r.Host)
	}
	if err := CheckUpgrade(r); err != nil {
		t.Errorf("our own handshake: %v", err)
	}
	if got := Offered(r); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("offered %q", got)
	}
	if r.Header.Get("X-Api-Key") != "k" || header.Get("Sec-Websocket-Key") != "mine" || header.Get("Upgrade") != "" {
		t.Errorf("sent %v; the caller's is now %v", r.Header, header)
	}
}

// raw101 is the answer to a handshake, by hand.
func raw101(t *testing.T, c net.Conn, extra string, frames ...[]byte) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	head := "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n" +
		"sec-websocket-accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" + extra + "\r\n"
	c.Write(append([]byte(head), slices.Concat(frames...)...))
	io.Copy(io.Discard, c)
}

// A server that sends its first frames in the same segment as the 101.
func TestDialFirstFramesWithTheAnswer(t *testing.T) {
	for _, size := range []int{0, 1, 100, 3000, 4000, 4096, 8192, 100000} {
		data := strings.Repeat("x", size)
		addr := listen(t, func(c net.Conn) {
			raw101(t, c, "", server(0x82, data), server(0x89, "now"), server(0x82, "more"), closeFrame(1000, ""))
		})
		c, err := (&Dialer{Proxy: direct}).DialWebSocket(t.Context(), "ws://"+addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if string(got) != data+"more" || err != nil {
			t.Errorf("%d bytes: read %d, %v", size, len(got), err)
		}
		c.Close()
	}
}

func TestDialEarlyHints(t *testing.T) {
	addr := listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		raw101(t, c, "", closeFrame(1000, ""))
	})
	c, err := (&Dialer{Proxy: direct}).DialWebSocket(t.Context(), "ws://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	c.Close()
}

func TestDialRefused(t *testing.T) {
	problem := func(n int) string {
		return `{"title":"The device refused.","status":409,"code":"device_refused","detail":"` + strings.Repeat("x", n) + `"}`
	}
	for _, test := range []struct {
		name  string
		serve http.HandlerFunc
		want  int
		body  string
	}{
		{"small", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(409)
			io.WriteString(w, problem(10))
		}, 409, problem(10)},
		{"chunked", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(409)
			for _, b := range problem(5000) { // more than a segment, and more than gorilla keeps
				fmt.Fprintf(w, "%c", b)
				if b == ',' {
					http.NewResponseController(w).Flush()
				}
			}
		}, 409, problem(5000)},
		{"too long", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(502)
			io.WriteString(w, strings.Repeat("y", 100<<10))
		}, 502, strings.Repeat("y", 16<<10)},
		{"empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, 404, ""},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/?x="+secret, http.StatusFound)
		}, 302, ""},
		{"200", func(w http.ResponseWriter, r *http.Request) {}, 200, ""},
		{"gorilla's own", func(w http.ResponseWriter, r *http.Request) {
			(&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return false }}).Upgrade(w, r, nil)
		}, 403, "Forbidden\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(test.serve)
			defer s.Close()
			c, err := (&Dialer{}).DialWebSocket(t.Context(), wsURL(s), nil)
			h, ok := err.(*HandshakeError)
			if !ok || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			if h.Status != test.want || test.want != 302 && string(h.Body) != test.body {
				t.Errorf("got %d %.100q, want %d %.100q", h.Status, h.Body, test.want, test.body)
			}
			if test.name == "small" && h.Header.Get("Retry-After") != "7" {
				t.Errorf("header %v", h.Header)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q has the query", err)
			}
		})
	}
}

// Nothing that goes wrong may put a secret into an error.
func TestDialErrors(t *testing.T) {
	echoTCP := listen(t, func(c net.Conn) { io.Copy(c, c) })
	eof := listen(t, func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) })
	reset := listen(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		c.(*net.TCPConn).SetLinger(0)
	})
	headers := listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X-Filler: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	wrongAccept := listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	noUpgrade := listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	extension := listen(t, func(c net.Conn) { raw101(t, c, "Sec-WebSocket-Extensions: permessage-deflate\r\n") })
	subprotocol := listen(t, func(c net.Conn) { raw101(t, c, "Sec-WebSocket-Protocol: graphql-ws\r\n") })
	refusing := listen(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 403 Blocked by \x1b[31mrule 17\r\nContent-Length: 0\r\n\r\n")
	})
	tlsServer := httptest.NewUnstartedServer(http.HandlerFunc(gorillaEcho))
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0) // bad certificates are the point
	tlsServer.StartTLS()
	t.Cleanup(tlsServer.Close)
	plain := httptest.NewServer(http.HandlerFunc(gorillaEcho))
	t.Cleanup(plain.Close)
	proxy := connectProxy(t, nil, "joe:"+password)
	socks := socksProxy(t, "joe", password)
	q := "/?bridgeToken=" + secret
	for _, test := range []struct {
		name string
		url  string
		d    Dialer
		want string
	}{
		{"no URL", "ws://relay\x7f" + q, Dialer{}, "not a URL"},
		{"bad escape", "ws://relay/%zz" + q, Dialer{}, "not a URL"},
		{"other scheme", "https://relay" + q, Dialer{}, `starts with "https"`},
		{"no host", "ws://" + q, Dialer{}, "no host"},
		{"user in the URL", "ws://joe:" + password + "@relay" + q, Dialer{}, "no host, or a user"},
		{"connection refused", "ws://127.0.0.1:1" + q, Dialer{}, "connection refused"},
		{"not HTTP", "ws://" + echoTCP + q, Dialer{}, "not HTTP"},
		{"end without an answer", "ws://" + eof + q, Dialer{}, "without an answer"},
		{"reset", "ws://" + reset + q, Dialer{}, "reset by peer"},
		{"endless header", "ws://" + headers + q, Dialer{}, "without an answer"},
		{"another's 101", "ws://" + wrongAccept + q, Dialer{}, "another handshake"},
		{"101 without upgrade", "ws://" + noUpgrade + q, Dialer{}, "another handshake"},
		{"unasked extension", "ws://" + extension + q, Dialer{}, "extension"},
		{"unasked subprotocol", "ws://" + subprotocol + q, Dialer{}, "subprotocol"},
		{"unknown CA", wsURL(tlsServer), Dialer{}, "unknown authority"},
		{"another name", wsURL(tlsServer), Dialer{TLS: &tls.Config{RootCAs: roots(tlsServer).RootCAs, ServerName: "other.test"}}, "not other.test"},
		{"TLS to a plain server", "wss" + strings.TrimPrefix(wsURL(plain), "ws"), Dialer{}, "does not look like a TLS handshake"},
		{"plain to a TLS server", "ws" + strings.TrimPrefix(wsURL(tlsServer), "wss"), Dialer{}, "answered 400"},
		{"proxy setting", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "@[::1")}, "proxy setting"},
		{"unknown kind of proxy", wsURL(plain), Dialer{Proxy: via("quic://joe:" + password + "@127.0.0.1:1")}, `scheme "quic"`},
		{"proxy is down", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "@127.0.0.1:1")}, "through proxy 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"proxy wants a password", wsURL(plain), Dialer{Proxy: via("http://" + proxy)}, "the proxy answered 407 Proxy Authentication Required"},
		{"proxy wants another password", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "1@" + proxy)}, "the proxy answered 407"},
		{"proxy cannot reach it", "ws://127.0.0.1:1" + q, Dialer{Proxy: via("http://joe:" + password + "@" + proxy)}, "the proxy answered 502 Bad Gateway"},
		{"proxy has a rule", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "@" + refusing)}, "the proxy answered 403 Blocked by [31mrule 17"},
		{"proxy is an echo", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "@" + echoTCP)}, "not HTTP"},
		{"proxy ends", wsURL(plain), Dialer{Proxy: via("http://joe:" + password + "@" + eof)}, "without an answer"},
		{"https proxy with an unknown CA", wsURL(plain), Dialer{Proxy: via("https://joe:" + password + "@" + tlsServer.Listener.Addr().String())}, "unknown authority"},
		{"socks wants another password", wsURL(plain), Dialer{Proxy: via("socks5://joe:" + password + "1@" + socks)}, "username/password authentication failed"},
		{"socks cannot reach it", "ws://127.0.0.1:1" + q, Dialer{Proxy: via("socks5://joe:" + password + "@" + socks)}, "connection refused"},
		{"socks is an echo", wsURL(plain), Dialer{Proxy: via("socks5://joe:" + password + "@" + echoTCP)}, "through proxy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.d.Proxy == nil {
				test.d.Proxy = direct
			}
			c, err := test.d.DialWebSocket(t.Context(), test.url, http.Header{"X-Api-Key": {password}})
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q in it", err, test.want)
			}
			for _, s := range []string{secret, password, base64.StdEncoding.EncodeToString([]byte("joe:" + password)), "\x1b"} {
				if strings.Contains(err.Error(), s) || strings.Contains(fmt.Sprintf("%+v", err), s) {
					t.Errorf("%q has %q in it", err, s)
				}
			}
		})
	}
}

func TestTransport(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method) }))
	defer s.Close()
	d := &Dialer{TLS: roots(s), Proxy: via("http://joe:" + password + "@" + connectProxy(t, nil, "joe:"+password))}
	tr := d.Transport()
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Post(s.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "POST" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestDialCancel(t *testing.T) {
	cause := errors.New("the user changed her mind")
	// Each stage that can hang, and when it does.
	var held, closed sync.Map
	hang := func(stage string) func(net.Conn) {
		h, c := make(chan struct{}), make(chan struct{})
		held.Store(stage, h)
		closed.Store(stage, c)
		return func(conn net.Conn) {
			b := make([]byte, 1)
			conn.Read(b) // it has spoken, and waits for an answer
			close(h)
			io.Copy(io.Discard, conn)
			close(c)
		}
	}
	dial := func(stage string) (d Dialer, url string) {
		addr := listen(t, hang(stage))
		switch stage {
		case "answer":
			return Dialer{Proxy: direct}, "ws://" + addr
		case "TLS":
			return Dialer{Proxy: direct}, "wss://" + addr
		case "CONNECT":
			return Dialer{Proxy: via("http://" + addr)}, "ws://relay.test"
		case "TLS to the proxy":
			return Dialer{Proxy: via("https://" + addr)}, "ws://relay.test"
		case "SOCKS":
			return Dialer{Proxy: via("socks5://" + addr)}, "ws://relay.test"
		}
		panic(stage)
	}
	for _, stage := range []string{"answer", "TLS", "CONNECT", "TLS to the proxy", "SOCKS"} {
		t.Run(stage, func(t *testing.T) {
			d, url := dial(stage)
			ctx, cancel := context.WithCancelCause(t.Context())
			h, _ := held.Load(stage)
			go func() {
				<-h.(chan struct{})
				cancel(cause)
			}()
			c, err := d.DialWebSocket(ctx, url+"/?bridgeToken="+secret, nil)
			if !errors.Is(err, cause) || c != nil {
				t.Errorf("got %v, want the cause", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q has the query", err)
			}
			ch, _ := closed.Load(stage)
			select {
			case <-ch.(chan struct{}):
			case <-time.After(5 * time.Second):
				t.Error("the socket is still open")
			}
		})
	}
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := (&Dialer{Proxy: direct}).DialWebSocket(ctx, "ws://127.0.0.1:1", nil); !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
	t.Run("after it", func(t *testing.T) {
		s := httptest.NewServer(http.HandlerFunc(gorillaEcho))
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		c, err := (&Dialer{}).DialWebSocket(ctx, wsURL(s), nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // belongs to the dial alone
		echo(t, c)
	})
}
