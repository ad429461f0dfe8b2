package c2d

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/gorilla/websocket"
	"golang.org/x/net/proxy"
)

// Where IoT Hub takes AMQP over a WebSocket, and what it is called there.
const (
	webSocketPath = "/$iothub/websocket"
	subprotocol   = "AMQPWSB10"
)

// dialHub opens the connection to the hub: TLS, or a WebSocket in it. raw is the
// TCP connection below.
func (s *Signaler) dialHub(ctx context.Context) (conn, raw net.Conn, err error) {
	dial := s.dialTCP
	if s.cfg.WebSocket {
		dial = s.dialProxied
	}
	tcp, err := dial(ctx, "tcp", s.addr)
	if err != nil {
		return nil, nil, causeOr(ctx, err)
	}
	// Closing is the one thing that ends a read or write whatever deadline is set.
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	conn, err = s.secure(ctx, tcp)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		tcp.Close()
		return nil, nil, err
	}
	return conn, tcp, nil
}

func (s *Signaler) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	t := tls.Client(raw, s.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if !s.cfg.WebSocket {
		return t, nil
	}
	d := websocket.Dialer{
		Subprotocols:      []string{subprotocol},
		NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return t, nil },
	}
	ws, resp, err := d.DialContext(ctx, "wss://"+s.addr+webSocketPath, http.Header{"Host": {s.cfg.HostName}})
	if resp != nil && err != nil {
		return nil, fmt.Errorf("WebSocket: the hub answered %s instead of 101", printable(resp.Status, 100))
	}
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	return newWebSocketConn(ws), nil
}

func (s *Signaler) dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// dialProxied opens a TCP connection to the hub, through the proxy if there is
// one for it.
func (s *Signaler) dialProxied(ctx context.Context, network, addr string) (net.Conn, error) {
	p, err := s.cfg.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: addr}})
	if err != nil {
		return nil, errors.New("the proxy setting is not a URL") // err may quote a password
	}
	if p == nil {
		return s.dialTCP(ctx, network, addr)
	}
	c, err := s.dialProxy(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("through proxy %s: %w", p.Host, err)
	}
	return c, nil
}

func (s *Signaler) dialProxy(ctx context.Context, p *url.URL) (net.Conn, error) {
	addr, port := p.Host, ""
	switch p.Scheme {
	case "http":
		port = "80"
	case "https":
		port = "443"
	case "socks5", "socks5h":
		d, err := proxy.FromURL(p, dialFunc(s.dialTCP))
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", s.addr)
	default:
		return nil, fmt.Errorf("scheme %q is not supported; http, https and socks5 are", p.Scheme)
	}
	if p.Port() == "" {
		addr = net.JoinHostPort(p.Hostname(), port)
	}
	c, err := s.dialTCP(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	tunnel, err := connectProxy(ctx, s.tls, c, p, s.addr)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return tunnel, nil
}

// connectProxy asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). gorilla
// could, but panics on an answer without a reason phrase, and knows no https.
func connectProxy(ctx context.Context, cfg *tls.Config, c net.Conn, p *url.URL, addr string) (net.Conn, error) {
	if p.Scheme == "https" {
		cfg = cfg.Clone()
		cfg.ServerName = p.Hostname()
		t := tls.Client(c, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		c = t
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if p.User != nil {
		pw, _ := p.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(p.User.Username()+":"+pw)))
	}
	if err := req.Write(c); err != nil {
		return nil, err
	}
	// The far end speaks only after we did, so the reader cannot take too much.
	resp, err := http.ReadResponse(bufio.NewReader(&io.LimitedReader{R: c, N: 64 << 10}), req)
	if err != nil { // which may quote our own request, with the password in it
		return nil, errors.New("the proxy gave no HTTP answer")
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the proxy answered %s", printable(resp.Status, 100)) // its words often say which rule
	}
	return c, nil
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

func (f dialFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

// causeOr is the cause of ctx's end, which says more than the error it led to.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// printable is what of a stranger's words may reach a log.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
