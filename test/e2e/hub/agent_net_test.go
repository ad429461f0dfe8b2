package hub_test

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// agentProxy is an HTTP proxy that asks for joe:pass%word and opens tunnels to where
// hosts says, or to where it is told.
type agentProxy struct {
	url     *url.URL
	hosts   map[string]string
	tunnels atomic.Int64
	shut    atomic.Bool // refuses everything
}

func newAgentProxy(t *testing.T, hosts map[string]string) *agentProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &agentProxy{hosts: hosts, url: &url.URL{Scheme: "http", User: url.UserPassword("joe", "pass%word"), Host: ln.Addr().String()}}
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			work.Go(func() {
				defer c.Close()
				p.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return p
}

func (p *agentProxy) serve(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	switch {
	case err != nil || r.Method != http.MethodConnect:
		return
	case r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("joe:pass%word")):
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	case p.shut.Load():
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	to, err := net.Dial("tcp", cmp.Or(p.hosts[r.RequestURI], r.RequestURI))
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer to.Close()
	p.tunnels.Add(1)
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(c, to)
		c.Close()
	})
	io.Copy(to, c)
	to.Close()
	back.Wait()
}

// through is for Config.Proxy.
func (p *agentProxy) through(*http.Request) (*url.URL, error) { return p.url, nil }

// An agentConn swallows everything, both ways, once it is frozen.
type agentConn struct {
	net.Conn
	frozen atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *agentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.frozen.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *agentConn) Write(p []byte) (int, error) {
	if c.frozen.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *agentConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
