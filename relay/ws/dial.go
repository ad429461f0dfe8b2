package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
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
	Body   []byte // the first 1024 bytes
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("the server answered %d %s instead of 101", e.Status, http.StatusText(e.Status))
}

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
	var raw *headConn
	g := websocket.Dialer{
		Subprotocols: subprotocols,
		NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.dialTLS(ctx, u)
			if err != nil {
				return nil, err
			}
			raw = &headConn{Conn: c}
			return raw, nil
		},
	}
	plain := *u
	plain.Scheme = "ws" // dialTLS has done that part
	// gorilla heeds the context's deadline while it waits for the answer, but not
	// its cancellation.
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(watch, func() {
		if ctx.Err() != nil && raw != nil {
			raw.Close()
		}
	})
	c, resp, err := g.DialContext(ctx, plain.String(), header)
	if err == nil && !stop() {
		raw.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		if errors.Is(err, websocket.ErrBadHandshake) && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(resp.Body)
			return nil, &HandshakeError{resp.StatusCode, resp.Header, body}
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	conn := NewClient(raw.Conn, raw.rest, d.Config)
	conn.subprotocol, conn.header = c.Subprotocol(), resp.Header
	return conn, nil
}

// dialTLS reaches the server: through the proxy if there is one, with TLS if
// the scheme wants it.
func (d *Dialer) dialTLS(ctx context.Context, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, HandshakeTimeout, fmt.Errorf("no connection within %v", HandshakeTimeout))
	defer cancel()
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	c, err := d.dialTCP(ctx, u, net.JoinHostPort(u.Hostname(), port))
	if err != nil || u.Scheme == "ws" {
		return c, err
	}
	return startTLS(ctx, c, d.TLS, u.Hostname())
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
		if c, err = startTLS(ctx, c, d.TLS, p.Hostname()); err != nil {
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
		return causeOr(ctx, err)
	}
	// The far end speaks only after we did, so the reader cannot take too much.
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1024), req)
	if err != nil {
		return causeOr(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy answered %s", resp.Status)
	}
	if !stop() {
		return causeOr(ctx, context.Canceled)
	}
	return nil
}

func startTLS(ctx context.Context, c net.Conn, cfg *tls.Config, host string) (net.Conn, error) {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"} // WebSocket over HTTP/2 is another handshake (RFC 8441)
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, causeOr(ctx, err)
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

// headConn gives gorilla no byte past the blank line that ends the head of the
// answer; what arrived after it waits in rest. A refusal's body may be read at
// will once the head is done.
type headConn struct {
	net.Conn
	seen int    // how much of the blank line has been read
	done bool   // all of it
	rest []byte // read from Conn after it, not yet handed on
}

const blankLine = "\r\n\r\n"

func (c *headConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if c.done {
		return n, err
	}
	for i, b := range p[:n] {
		switch b {
		case blankLine[c.seen]:
			c.seen++
		case '\r':
			c.seen = 1
		default:
			c.seen = 0
		}
		if c.seen == len(blankLine) {
			c.done = true
			c.rest = bytes.Clone(p[i+1 : n])
			return i + 1, err
		}
	}
	return n, err
}
