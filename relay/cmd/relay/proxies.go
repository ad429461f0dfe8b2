package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"

	"websocketbridge/relay/calm"
)

// parseProxies reads a list of addresses and ranges, and says everything that is
// wrong with it.
func parseProxies(list []string) ([]netip.Prefix, error) {
	var (
		out    []netip.Prefix
		faults []string
	)
	for _, item := range list {
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(item); err == nil && addr.Zone() == "" {
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		if !prefix.IsValid() {
			faults = append(faults, fmt.Sprintf("%.60q is not an address or a range, as 10.0.0.0/8", item))
			continue
		}
		out = append(out, prefix)
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	return out, nil
}

// proxyHeaderTimeout is what package relay gives the head of a request.
const proxyHeaderTimeout = 10 * time.Second

// A proxyListener is for proxies that say whose connection they pass on in front
// of it (PROXY protocol, versions 1 and 2). They all have to, and nobody else is
// let in: who could leave the header out would be taken for the proxy.
//
// Accept waits for no header, or one silent peer would keep all others out; the
// first use of a connection does. It is no proxyproto.Listener, whose Accept
// fails, and ends the server, if a connection that it refuses fails to close.
type proxyListener struct {
	net.Listener
	trusts func(netip.Addr) bool
	calm   *calm.Log // a wrong setting, perhaps, or port scans
}

// Accept returns the next connection of a proxy's.
func (l *proxyListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peer, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !l.trusts(peer.AddrPort().Addr()) {
			c.Close()
			l.calm.Log(slog.LevelWarn, "stranger", "connection refused: RELAY_PROXY_PROTOCOL lets in only who is in RELAY_TRUSTED_PROXIES", "from", c.RemoteAddr().String())
			continue
		}
		return &proxiedConn{listener: l, Conn: proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.REQUIRE),
			proxyproto.SetReadHeaderTimeout(proxyHeaderTimeout), proxyproto.ValidateHeader(checkProxyHeader))}, nil
	}
}

// checkProxyHeader wants a client that has an address. Without one, as with the
// proxy's own health checks (LOCAL, and UNKNOWN in version 1), the client is the
// proxy.
func checkProxyHeader(h *proxyproto.Header) error {
	if h.Command.IsLocal() {
		return nil
	}
	if _, _, ok := h.TCPAddrs(); !ok {
		return errors.New("the client in the header has no TCP address")
	}
	return nil
}

// A proxiedConn is one connection; its RemoteAddr is the client's. The first
// Read, Write or RemoteAddr waits for the header. Raw and TCPConn are the
// connection below, for whoever has read at least once: until then some of the
// peer's bytes may have come with the header.
type proxiedConn struct {
	*proxyproto.Conn
	listener *proxyListener
	told     sync.Once
}

// CloseWrite is the TCP connection's, which package pump looks for at the end of
// a bridge and proxyproto.Conn hides.
func (c *proxiedConn) CloseWrite() error {
	if half, ok := c.Raw().(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements net.Conn.
func (c *proxiedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && c.ProxyHeader() == nil && !errors.Is(err, net.ErrClosed) { // by us, when the node stops
		c.told.Do(func() {
			c.listener.calm.Log(slog.LevelWarn, "headless", "connection ended: a trusted proxy sent no good PROXY protocol header within "+proxyHeaderTimeout.String(),
				"from", c.Raw().RemoteAddr().String(), "error", err.Error())
		})
	}
	return n, err
}
