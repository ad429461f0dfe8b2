package ws

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- RFC 6455 section 1.3: proves that the answer is of a WebSocket server, nothing else
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/proxy"
)

// HandshakeTimeout bounds each step before the upgrade request is sent: TCP,
// proxy, TLS. The answer itself may take as long as the caller's context
// allows: a relay holds it until the device has come.
const HandshakeTimeout = 30 * time.Second

// A Dialer makes client ends. The zero value uses the system's roots and the
// proxy named in the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
type Dialer struct {
	TLS    *tls.Config                                                       // nil: the system's roots
	Proxy  func(*http.Request) (*url.URL, error)                             // nil: http.ProxyFromEnvironment; http, https, socks5
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer; also reaches the proxy
	Config Config
}

// A HandshakeError is an answer that was not 101.
type HandshakeError struct {
	Status int
	Header http.Header
	Body   []byte // the first 16 KiB: a problem body fits, a web page is cut
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("the server answered %d %s instead of 101", e.Status, http.StatusText(e.Status))
}

const (
	maxAnswer     = 64 << 10 // head of an answer; what servers accept of a request, several times
	maxBody       = 16 << 10
	handshakeSize = 4 << 10 // buffer for the answer; what is left over of it is the first frames
)

// DialWebSocket opens rawURL (ws or wss) and offers subprotocols, best first.
// Errors name the host but never the query, which may hold a secret.
func (d *Dialer) DialWebSocket(ctx context.Context, rawURL string, header http.Header, subprotocols ...string) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("the address is not a URL")
	}
	if u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("the address starts with %q, not ws or wss", u.Scheme)
	}
	if u.Hostname() == "" || u.User != nil {
		return nil, errors.New("the address has no host, or a user, which a WebSocket's cannot (RFC 6455 section 3)")
	}
	c, err := d.dialTLS(ctx, u, "http/1.1") // WebSocket over HTTP/2 is another handshake (RFC 8441)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", u.Host, causeOr(ctx, err))
	}
	// Closing is the one thing that ends a read or write whatever deadline is set.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	head, resp, err := handshake(c, u, header, subprotocols)
	if !stop() {
		c.Close()
		return nil, fmt.Errorf("dial %s: %w", u.Host, context.Cause(ctx))
	}
	if err != nil {
		c.Close()
		if h := (*HandshakeError)(nil); errors.As(err, &h) {
			return nil, h
		}
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	conn := NewClient(c, head, d.Config)
	conn.subprotocol, conn.header = resp.Header.Get("Sec-WebSocket-Protocol"), resp.Header
	return conn, nil
}

// DialTLS opens a TLS connection to addr, a host and port, for a protocol that is
// not HTTP, the way a WebSocket would go: through the proxy for https://addr if
// there is one, which then has to allow that port. It negotiates no protocol (ALPN).
func (d *Dialer) DialTLS(ctx context.Context, addr string) (net.Conn, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("%q is not a host and port", addr)
	}
	c, err := d.dialTLS(ctx, &url.URL{Scheme: "wss", Host: addr})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, causeOr(ctx, err))
	}
	return c, nil
}

// handshake asks for the upgrade (RFC 6455 section 4.1). head is what came after the
// answer: a relay that joins at once sends its first frame in the same segment.
func handshake(c net.Conn, u *url.URL, header http.Header, subprotocols []string) (head []byte, resp *http.Response, err error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone()}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Sec-WebSocket-Key", key)
	req.Header.Set("Sec-WebSocket-Version", "13")
	if len(subprotocols) > 0 {
		req.Header.Set("Sec-WebSocket-Protocol", strings.Join(subprotocols, ", "))
	}
	if err := req.Write(c); err != nil {
		return nil, nil, fmt.Errorf("send the handshake: %w", err)
	}
	br := bufio.NewReaderSize(&io.LimitedReader{R: c, N: maxAnswer}, handshakeSize)
	for resp == nil || resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols { // early hints of a CDN, say
		if resp, err = http.ReadResponse(br, req); err != nil {
			return nil, nil, answerError(err)
		}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		c.SetReadDeadline(time.Now().Add(CloseTimeout)) // the body is a courtesy
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return nil, nil, &HandshakeError{resp.StatusCode, resp.Header, body}
	}
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- see the import
	got := resp.Header.Get("Sec-WebSocket-Protocol")
	switch {
	case !hasToken(resp.Header, "Upgrade", "websocket") || !hasToken(resp.Header, "Connection", "upgrade"),
		resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]):
		return nil, nil, errors.New("the server answered 101, but to another handshake than ours; is there a cache in between?")
	case resp.Header.Get("Sec-WebSocket-Extensions") != "":
		return nil, nil, errors.New("the server wants a WebSocket extension that was not offered")
	case got != "" && !slices.Contains(subprotocols, got):
		return nil, nil, errors.New("the server chose a subprotocol that was not offered")
	}
	head, _ = br.Peek(br.Buffered()) // br is garbage from here on, its buffer is ours
	return head, resp, nil
}

// answerError keeps what the server sent out of the error: it could be our own
// request, with the query in it.
func answerError(err error) error {
	var n net.Error
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server ended the connection without an answer")
	}
	if errors.As(err, &n) {
		return fmt.Errorf("wait for the answer: %w", err)
	}
	return errors.New("the answer is not HTTP/1.1")
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// dialTLS reaches the server: through the proxy if there is one, with TLS if
// the scheme wants it, on which it offers protocols.
func (d *Dialer) dialTLS(ctx context.Context, u *url.URL, protocols ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, HandshakeTimeout, fmt.Errorf("no connection within %v", HandshakeTimeout))
	defer cancel()
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	c, err := d.dialTCP(ctx, u, net.JoinHostPort(u.Hostname(), port))
	if err == nil && u.Scheme == "wss" {
		c, err = startTLS(ctx, c, d.TLS, u.Hostname(), protocols...)
	}
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	return c, nil
}

func (d *Dialer) dialTCP(ctx context.Context, u *url.URL, addr string) (net.Conn, error) {
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	find := d.Proxy
	if find == nil {
		find = http.ProxyFromEnvironment
	}
	like := *u
	like.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	p, err := find(&http.Request{URL: &like})
	if err != nil {
		return nil, errors.New("the proxy setting is not a URL") // err may quote a password
	}
	if p == nil {
		return dial(ctx, "tcp", addr)
	}
	c, err := d.dialProxy(ctx, dial, p, addr)
	if err != nil {
		return nil, fmt.Errorf("through proxy %s: %w", p.Host, err)
	}
	return c, nil
}

func (d *Dialer) dialProxy(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), p *url.URL, addr string) (net.Conn, error) {
	switch p.Scheme {
	case "http", "https":
	case "socks5", "socks5h":
		s, err := proxy.FromURL(p, dialFunc(dial))
		if err != nil {
			return nil, err
		}
		return s.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	default:
		return nil, fmt.Errorf("scheme %q is not supported; http, https and socks5 are", p.Scheme)
	}
	port := p.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[p.Scheme]
	}
	c, err := dial(ctx, "tcp", net.JoinHostPort(p.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if p.Scheme == "https" {
		cfg := d.TLS.Clone() // nil stays nil
		if cfg != nil {
			cfg.ServerName = "" // if set, it is the server's, not the proxy's
		}
		if c, err = startTLS(ctx, c, cfg, p.Hostname(), "http/1.1"); err != nil {
			return nil, err
		}
	}
	if err := connect(ctx, c, p, addr); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connect asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
func connect(ctx context.Context, c net.Conn, p *url.URL, addr string) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if p.User != nil {
		pw, _ := p.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(p.User.Username()+":"+pw)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	// The far end speaks only after we did, so the reader cannot take too much.
	resp, err := http.ReadResponse(bufio.NewReaderSize(&io.LimitedReader{R: c, N: maxAnswer}, 1024), req)
	if err != nil {
		return answerError(err) // else an echo would show the password
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the proxy answered %s", printable(resp.Status)) // its words often say which rule
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// printable is what of a stranger's words may reach a terminal or a log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}

func startTLS(ctx context.Context, c net.Conn, cfg *tls.Config, host string, protocols ...string) (net.Conn, error) {
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg = cfg.Clone()
	cfg.NextProtos = protocols
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	t := tls.Client(Batched(c), cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

// IsLoopback says whether host, from a URL, can only mean this machine.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Transport is for plain requests to the same server, by the same way.
func (d *Dialer) Transport() *http.Transport {
	t := &http.Transport{TLSClientConfig: d.TLS.Clone(), Proxy: d.Proxy, DialContext: d.Dial, TLSHandshakeTimeout: HandshakeTimeout}
	if t.Proxy == nil {
		t.Proxy = http.ProxyFromEnvironment
	}
	return t
}
