package relay

import (
	"net/http"
	"net/netip"
	"strings"
)

// Who a request really comes from. Proxies in front of a node say it in headers,
// and so can everybody else: the headers of a connection whose own peer is one
// of Config.TrustedProxies are believed, and no others.
//
// X-Forwarded-Proto has no reader: accept URLs start with Config.PublicURL,
// which says wss whatever the last proxy spoke.
const (
	headerForwardedFor  = "X-Forwarded-For"
	headerForwardedHost = "X-Forwarded-Host"
)

// from is the address of whoever sent r, for the log.
func (s *Server) from(r *http.Request) string {
	return clientAddr(r.RemoteAddr, r.Header.Values(headerForwardedFor), s.cfg.TrustedProxies)
}

// forwardedHosts are the hosts that trusted proxies were asked for. With several
// proxies in a row there may be several, and a browser knows the first one only.
func (s *Server) forwardedHosts(r *http.Request) (hosts []string) {
	if peer, ok := parseClient(r.RemoteAddr); !ok || !s.cfg.Trusts(peer) {
		return nil
	}
	for _, line := range r.Header.Values(headerForwardedHost) {
		for host := range strings.SplitSeq(line, ",") {
			if host = strings.TrimSpace(host); host != "" { // the Origin "null" has no host either
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// Trusts says whether what a proxy at addr says is believed.
func (c Config) Trusts(addr netip.Addr) bool { return trusts(c.TrustedProxies, addr) }

func trusts(trusted []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("") // a zone names an interface of ours; no prefix has one
	for _, p := range trusted {
		if p.Contains(addr) || p.Addr().Is4In6() && addr.Is4() && p.Contains(netip.AddrFrom16(addr.As16())) {
			return true
		}
	}
	return false
}

// clientAddr is the address of the client behind a connection from remote, which
// is host:port, given the lines of X-Forwarded-For. Each proxy adds its own peer
// at the right, so the list is read from there for as long as it is trusted
// proxies that were added: the first other address is the client's, and what
// stands left of that is its own words. What is no address ends the walk, too. A
// remote that is no address is nobody's proxy and comes back as it is.
func clientAddr(remote string, forwarded []string, trusted []netip.Prefix) string {
	client, ok := parseClient(remote)
	if !ok {
		return remote
	}
	for i := len(forwarded) - 1; i >= 0; i-- {
		for line, more := forwarded[i], true; more; {
			if !trusts(trusted, client) {
				return client.String()
			}
			item := line
			if at := strings.LastIndexByte(line, ','); at >= 0 {
				line, item = line[:at], line[at+1:]
			} else {
				more = false
			}
			if item = strings.Trim(item, " \t"); item == "" {
				continue // RFC 9110 section 5.6.1.2
			}
			next, ok := parseClient(item)
			if !ok || strings.Contains(item, "%") { // a zone means something on one machine only, and can be any text
				return client.String()
			}
			client = next
		}
	}
	return client.String()
}

// parseClient reads an address as proxies write it: with or without a port, an
// IPv6 one with or without brackets. IPv4 in IPv6 is IPv4.
func parseClient(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	bare := s
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if bare, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(bare, ":") {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(bare)
	return addr.Unmap(), err == nil
}
