package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"

	"websocketbridge/relay/calm"
	"websocketbridge/relay/wire"
	"websocketbridge/test/netfault"
)

// dialFrom dials with an address of this machine's as its own.
func dialFrom(addr string) func(ctx context.Context, network, to string) (net.Conn, error) {
	d := net.Dialer{}
	if addr != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(addr)}
	}
	return d.DialContext
}

const theProxy = "127.0.0.2" // what the proxies of these tests dial from

// front is a proxy for TCP that says whose connection it passes on.
type front struct {
	addr string
	to   atomic.Value // string: the relay
}

func startFront(t *testing.T, header func(relay net.Addr) []byte) *front {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{addr: ln.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer near.Close()
				far, err := dialFrom(theProxy)(context.Background(), "tcp", f.to.Load().(string))
				if err != nil {
					t.Error(err)
					return
				}
				defer far.Close()
				far.Write(header(far.RemoteAddr()))
				var back sync.WaitGroup
				back.Go(func() {
					io.Copy(near, far)
					near.Close()
				})
				io.Copy(far, near)
				far.Close()
				back.Wait()
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return f
}

// headerFor is the PROXY protocol's header for a client; "" is the proxy itself.
func headerFor(t *testing.T, version byte, client string, to net.Addr) []byte {
	t.Helper()
	h := &proxyproto.Header{Version: version, Command: proxyproto.LOCAL}
	if client != "" {
		h = proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), to)
	}
	b, err := h.Format()
	if err != nil {
		t.Error(err)
	}
	return b
}

// bridged makes a bridge through whatever is in front, and ends it.
func (r *relayRun) bridged() {
	r.t.Helper()
	s, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.echo(s)
	s.Close()
}

// ask dials the relay itself from an address, says first, and then asks as a
// device would. It returns all that comes back.
func (r *relayRun) ask(from, public string, first []byte, forwarded string) string {
	r.t.Helper()
	c, err := dialFrom(from)(context.Background(), "tcp", public)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	request := "GET " + wire.PathAccept + "?bridgeToken=x HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n"
	if forwarded != "" {
		request += "X-Forwarded-For: " + forwarded + "\r\n"
	}
	c.Write(append(first, request+"\r\n"...))
	b, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		r.t.Fatal("no end")
	}
	return string(b)
}

// A proxy for TCP in front of the relay: the client's address is the header's,
// whoever leaves the header out or is no proxy is refused, and nobody stands in
// the way of the others.
func TestProxyProtocol(t *testing.T) {
	for _, version := range []byte{1, 2} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("v%d, TLS %v", version, secure), func(t *testing.T) {
				f := startFront(t, func(relay net.Addr) []byte { return headerFor(t, version, "203.0.113.9:4711", relay) })
				env := map[string]string{"RELAY_TRUSTED_PROXIES": theProxy, "RELAY_PROXY_PROTOCOL": "true", "RELAY_PLAIN": "true", "RELAY_PUBLIC_URL": "ws://" + f.addr}
				if secure {
					env["RELAY_PUBLIC_URL"] = "wss://" + f.addr
					env["RELAY_TLS_CERT"], env["RELAY_TLS_KEY"], env["ca"] = certificate(t)
					delete(env, "RELAY_PLAIN")
				}
				r := start(t, env)
				public := r.log.wait(t, `msg="relay listens" public=(\S+)`)[1]
				f.to.Store(public)
				silent, err := dialFrom(theProxy)(t.Context(), "tcp", public)
				if err != nil {
					t.Fatal(err)
				}
				defer silent.Close()

				r.device("pump-7")
				r.bridged()
				r.log.wait(t, `msg="bridge open" .* from=203\.0\.113\.9 `)

				good := headerFor(t, version, "203.0.113.10:1", silent.RemoteAddr())
				if got := r.ask("127.0.0.1", public, good, ""); got != "" {
					t.Errorf("a stranger got %q", got)
				}
				r.log.wait(t, `level=WARN msg="connection refused: RELAY_PROXY_PROTOCOL lets in only who is in RELAY_TRUSTED_PROXIES" from=127\.0\.0\.1:`)
				if got := r.ask(theProxy, public, nil, ""); got != "" {
					t.Errorf("without a header: %q", got)
				}
				r.log.wait(t, `level=WARN msg="connection ended: a trusted proxy sent no good PROXY protocol header within 10s" from=127\.0\.0\.2:\d+ error="proxyproto: proxy protocol signature not present"`)
				r.bridged()
			})
		}
	}
}

// Which of the addresses that are said is the client's.
func TestProxyProtocolAddresses(t *testing.T) {
	r := start(t, map[string]string{"RELAY_TRUSTED_PROXIES": theProxy + ",10.0.0.0/8", "RELAY_PROXY_PROTOCOL": "true", "RELAY_PLAIN": "true"})
	public := r.log.wait(t, `msg="relay listens" public=(\S+)`)[1]
	to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(public))
	for _, tt := range []struct{ name, client, forwarded, want string }{
		{"the header's", "203.0.113.1:1", "", "203.0.113.1"},
		{"not what the client says", "203.0.113.2:1", "6.6.6.6", "203.0.113.2"},
		{"that of a proxy behind the proxy", "10.0.0.1:1", "6.6.6.6, 203.0.113.3", "203.0.113.3"},
		{"IPv6", "[2001:db8::4]:1", "", "2001:db8::4"},
		{"the proxy's health check", "", "", theProxy},
		{"a proxy that names nobody", "", "203.0.113.5", "203.0.113.5"},
	} {
		for _, version := range []byte{1, 2} {
			got := r.ask(theProxy, public, headerFor(t, version, tt.client, to), tt.forwarded)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("%s, v%d: got %q", tt.name, version, got)
			}
		}
		r.log.wait(t, fmt.Sprintf(`(?s)(msg="device refused"[^\n]* from=%s .*){2}`, strings.ReplaceAll(tt.want, ".", `\.`)))
	}
	unix := &proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.UnixStream, SourceAddr: &net.UnixAddr{Name: "/a", Net: "unix"}, DestinationAddr: &net.UnixAddr{Name: "/b", Net: "unix"}}
	b, err := unix.Format()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.ask(theProxy, public, b, ""); got != "" {
		t.Errorf("a client without an address got %q", got)
	}
	r.log.wait(t, `error="the client in the header has no TCP address"`)
}

// A proxy for HTTP in front of the relay says whose request it is, and a stranger
// says so in vain.
func TestForwardedFor(t *testing.T) {
	var to atomic.Value
	transport := &http.Transport{DialContext: dialFrom(theProxy)}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: to.Load().(string)})
		p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"] // as most proxies do: the client's own words stay
		p.SetXForwarded()
	}})
	defer proxy.Close()
	defer transport.CloseIdleConnections()
	r := start(t, map[string]string{"RELAY_TRUSTED_PROXIES": theProxy, "RELAY_PLAIN": "true", "RELAY_PUBLIC_URL": strings.Replace(proxy.URL, "http", "ws", 1)})
	public := r.log.wait(t, `msg="relay listens" public=(\S+)`)[1]
	to.Store(public)
	r.client = "127.0.0.3"
	r.device("pump-7")
	r.bridged()
	r.log.wait(t, `msg="bridge open" .* from=127\.0\.0\.3 `)

	r.key = "wsb_wrong"
	if _, err := r.dial(); !refused(err, wire.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	r.log.wait(t, `msg="bridge refused" .* from=127\.0\.0\.3 reason=unauthenticated`)

	r.ask("127.0.0.4", strings.TrimPrefix(proxy.URL, "http://"), nil, "6.6.6.6")
	r.log.wait(t, `msg="device refused" .* from=127\.0\.0\.4 `)
	r.ask("127.0.0.5", public, nil, "6.6.6.6")
	r.log.wait(t, `msg="device refused" .* from=127\.0\.0\.5 `)
}

// peers is a listener whose connections come from an address.
type peers struct {
	net.Listener
	addr net.Addr
}

func (l peers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return addressed{c, l.addr}, err
}

type addressed struct {
	net.Conn
	addr net.Addr
}

func (c addressed) RemoteAddr() net.Addr { return c.addr }

func proxiesOnly(ln net.Listener) *proxyListener {
	trusted := netip.MustParseAddr(theProxy)
	return &proxyListener{Listener: ln, trusts: func(a netip.Addr) bool { return a.Unmap() == trusted }, calm: &calm.Log{To: slog.New(slog.DiscardHandler)}}
}

// A header that never comes is waited for ten seconds, and by nobody else.
func TestProxyHeaderTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := netfault.NewListener()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
		served := make(chan error)
		go func() { served <- srv.Serve(proxiesOnly(peers{ln, &net.TCPAddr{IP: net.ParseIP(theProxy), Port: 1}})) }()
		for _, start := range []string{"", "PRO", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02"} {
			slow, err := ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go io.WriteString(slow, start)
			synctest.Wait()

			other, err := ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			go io.WriteString(other, "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if b, _ := io.ReadAll(other); !bytes.HasSuffix(b, []byte("203.0.113.9:4711")) || time.Since(began) > time.Second {
				t.Errorf("%q: another one got %q after %v", start, b, time.Since(began))
			}
			other.Close()
			if b, _ := io.ReadAll(slow); len(b) > 0 || time.Since(began) < 9*time.Second || time.Since(began) > 11*time.Second {
				t.Errorf("%q: %q after %v", start, b, time.Since(began))
			}
			slow.Close()
		}
		srv.Close()
		<-served
	})
}

// Whoever takes a connection over may go on with the TCP connection below it:
// what came with the header has been read by then.
func TestProxiedConnBelow(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const head, early, late = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n", "sent at once, ", "and sent later"
	got := make(chan string, 1)
	hijacked := make(chan struct{}, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		hijacked <- struct{}{}
		tcp, ok := c.(interface{ TCPConn() (*net.TCPConn, bool) }).TCPConn()
		if !ok {
			t.Error("no TCP connection")
			return
		}
		tcp.SetReadDeadline(time.Now().Add(patience))
		buffered, _ := rw.Peek(rw.Reader.Buffered())
		rest, err := io.ReadAll(tcp)
		if err != nil {
			t.Error(err)
		}
		got <- string(buffered) + string(rest)
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
	})}
	served := make(chan error)
	go func() { served <- srv.Serve(proxiesOnly(ln)) }()
	for _, version := range []byte{1, 2} {
		for _, pad := range []int{0, 100, 150, 200, 250, 300, 5000} { // the library reads 256 bytes at a time, net/http 4096
			c, err := dialFrom(theProxy)(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			first := append(headerFor(t, version, "203.0.113.9:1", ln.Addr()), strings.Replace(head, "\r\n\r\n", "\r\nX: "+strings.Repeat("x", pad)+"\r\n\r\n", 1)+early...)
			c.Write(first)
			<-hijacked
			io.WriteString(c, late)
			c.(*net.TCPConn).CloseWrite()
			if text := <-got; text != early+late {
				t.Errorf("v%d, %d: got %q", version, pad, text)
			}
			c.Close()
		}
	}
	srv.Close()
	<-served
}

// memory is a connection with some bytes in it.
type memory struct {
	net.Conn
	*bytes.Reader
}

func (m memory) Read(p []byte) (int, error)       { return m.Reader.Read(p) }
func (m memory) WriteTo(io.Writer) (int64, error) { panic("not used") }
func (memory) RemoteAddr() net.Addr               { return &net.TCPAddr{IP: net.ParseIP(theProxy), Port: 9} }
func (memory) SetReadDeadline(time.Time) error    { return nil }

type one struct{ net.Conn }

func (o one) Accept() (net.Conn, error) { return o.Conn, nil }
func (o one) Addr() net.Addr            { return o.RemoteAddr() }

// Whatever a proxy sends, the address is one (net/http asks for it where a panic
// ends the process), and what follows the header is unchanged.
func FuzzProxiedConn(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nGET /"))
	f.Add([]byte("PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nrest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02rest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00rest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x13\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"))
	f.Add(slices.Concat([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8"), make([]byte, 216)))
	f.Fuzz(func(t *testing.T, sent []byte) {
		c, err := proxiesOnly(one{memory{Reader: bytes.NewReader(sent)}}).Accept()
		if err != nil {
			t.Fatal(err)
		}
		addr := c.RemoteAddr().String()
		if _, err := netip.ParseAddrPort(addr); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(c)
		if err == nil && !bytes.HasSuffix(sent, text) {
			t.Fatalf("%q became %q", sent, text)
		}
		if own := (memory{}).RemoteAddr().String(); err != nil && (addr != own || len(text) > 0) {
			t.Fatalf("%v, and yet %s and %q", err, cmp.Or(addr, "no address"), text)
		}
	})
}
