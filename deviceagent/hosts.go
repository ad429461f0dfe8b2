package deviceagent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// hosts is one entry of a list of hosts.
type hosts struct {
	any     bool
	network netip.Prefix // valid: addresses, and no names
	name    string       // in lower case, without the dot at the end
	suffix  string       // ".example.com": names that end so
}

// parseHosts says why s is no entry.
func parseHosts(s string) (hosts, error) {
	if s == "*" {
		return hosts{any: true}, nil
	}
	if strings.Contains(s, "/") {
		n, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return hosts{}, fmt.Errorf("has a network that is none, %q", s)
		case n.Addr().Is4In6():
			return hosts{}, errors.New("has a network of IPv4 addresses in the form of IPv6; write it as IPv4")
		case n != n.Masked():
			return hosts{}, fmt.Errorf("has a network whose address is %v; is %v meant?", n.Addr(), n.Masked())
		}
		return hosts{network: n}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return hosts{}, errors.New("has an address with a zone, which only * can match")
		}
		a = a.Unmap()
		return hosts{network: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	name, starred := strings.CutPrefix(s, "*.")
	name = canonicalName(name)
	switch {
	case s == "":
		return hosts{}, errors.New("has no host")
	case strings.Contains(name, "*"):
		return hosts{}, errors.New(`may have a star only as "*" or in front of a name, as in "*.example.com"`)
	case !isName(name):
		return hosts{}, fmt.Errorf("has a host that is neither a name nor an address, %q", s)
	case starred:
		return hosts{suffix: "." + name}, nil
	}
	return hosts{name: name}, nil
}

// match says whether host, of a URL or in front of a port, is in the entry.
func (h hosts) match(host string) bool {
	if h.any {
		return host != ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return h.network.IsValid() && a.Zone() == "" && h.network.Contains(a.Unmap())
	}
	host = canonicalName(host)
	if !isName(host) {
		return false
	}
	return host == h.name || h.suffix != "" && strings.HasSuffix(host, h.suffix)
}

// canonicalName folds ASCII only: for Unicode the Kelvin sign is a k, too, and what
// resolvers and proxies make of it is theirs.
func canonicalName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, strings.TrimSuffix(s, "."))
}

// isName reports whether s can only be a name. Resolvers read more as addresses
// than netip does, 127.1 and 0x7f000001 among them; all of those end in a number,
// and no name in use does (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	var label string
	for label = range strings.SplitSeq(s, ".") {
		if label == "" {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return !('0' <= label[0] && label[0] <= '9' && (strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x")))
}

// relayHost is one entry of Config.RelayHosts.
type relayHost struct {
	hosts
	port string // "": any
}

func parseRelayHost(s string) (relayHost, error) {
	if strings.Contains(s, "/") {
		return relayHost{}, errors.New("is a URL; name the host only")
	}
	host, port := s, ""
	if h, p, err := net.SplitHostPort(s); err == nil {
		if p == "" {
			return relayHost{}, errors.New("has an empty port")
		}
		n, err := parsePort(p)
		if err != nil {
			return relayHost{}, err
		}
		host, port = h, strconv.Itoa(int(n))
	} else {
		host = unbracket(s)
	}
	h, err := parseHosts(host)
	return relayHost{h, port}, err
}

// match judges the host and port of a URL.
func (h relayHost) match(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "http": "80", "wss": "443", "https": "443"}[u.Scheme]
	}
	return (h.port == "" || h.port == port) && h.hosts.match(u.Hostname())
}

// unbracket returns the inside of an IPv6 address or network in brackets.
func unbracket(s string) string {
	if in, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(in, "]") && strings.Contains(in, ":") {
		return in[:len(in)-1]
	}
	return s
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("has port %q, which is not between 1 and 65535", s)
	}
	return uint16(n), nil
}
