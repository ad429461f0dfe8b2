package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrNotPeer: the address is none that this node may dial.
var ErrNotPeer = errors.New("not the address of a known node")

// Peers are the nodes that may be dialled.
type Peers struct {
	exact  []string // host:port, as listed
	ranges []addrRange
	names  []*name
}

type addrRange struct {
	prefix netip.Prefix
	port   uint16
}

// A name is a DNS name behind which peers are, such as that of a headless Service of
// Kubernetes.
type name struct {
	host string
	port uint16

	mu    sync.Mutex // guards the two below, and held while asking: one question at a time
	addrs []netip.Addr
	asked time.Time
}

const (
	// nameLife is how long an answer of DNS is good. Pods come and go in seconds.
	nameLife = 5 * time.Second
	// nameLeast is the least time between two questions for an address that the last
	// answer did not have: a new node, whose first tokens are out.
	nameLeast = time.Second
)

// ParsePeers reads a list of addresses (10.1.2.3), ranges (10.1.0.0/16) and DNS names
// (relay-nodes.default.svc), each perhaps with :port; without one the node port is port,
// which is this node's own. Every fault comes at once.
func ParsePeers(list []string, port uint16) (*Peers, error) {
	p := new(Peers)
	var errs []error
	for _, item := range list {
		if err := p.add(strings.TrimSpace(item), port); err != nil {
			errs = append(errs, fmt.Errorf("%q %w", item, err))
		}
	}
	if len(list) == 0 {
		errs = append(errs, errors.New("there is none"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

var errPeer = errors.New("is not an address, a range or a DNS name, as 10.1.2.3, 10.1.0.0/16 or relay-nodes.default.svc, each perhaps with :port")

func (p *Peers) add(item string, port uint16) error {
	host := item
	if h, text, err := net.SplitHostPort(item); err == nil {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("has port %q; ports are 1 to 65535", text)
		}
		host, port = h, uint16(n)
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(item, "["), "]")
	}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		if prefix.Bits() == 0 {
			return errors.New("is every address there is; a range of peers is narrower")
		}
		p.ranges = append(p.ranges, addrRange{prefix.Masked(), port})
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() {
			return errors.New("is no address that can be dialled")
		}
		p.exact = append(p.exact, netip.AddrPortFrom(addr.Unmap(), port).String())
		return nil
	}
	if !isName(host) {
		return errPeer
	}
	p.names = append(p.names, &name{host: strings.ToLower(strings.TrimSuffix(host, ".")), port: port})
	return nil
}

// isName: letters, digits, hyphens and underscores between dots (RFC 1123 section 2.1;
// the underscore is used all the same), and not all of it numbers, which is a misspelt
// address.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	letters := false
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
				letters = true
			case '0' <= c && c <= '9', c == '-':
			default:
				return false
			}
		}
	}
	return letters
}

// check says whether owner, an address from a token or from List, may be dialled. It
// asks DNS where only that can tell.
func (n *Node) check(ctx context.Context, owner string) error {
	p := n.cfg.Peers
	if slices.Contains(p.exact, owner) {
		return nil
	}
	host, text, err := net.SplitHostPort(owner)
	if err != nil {
		return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || strconv.FormatUint(port, 10) != text {
		return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil { // a name is a peer only if it is listed itself
		for _, m := range p.names {
			if strings.EqualFold(host, m.host) && uint16(port) == m.port {
				return nil
			}
		}
		return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
	}
	if addr.Zone() != "" || addr != addr.Unmap() || addr.String() != host { // one peer, one text
		return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
	}
	for _, r := range p.ranges {
		if r.port == uint16(port) && r.prefix.Contains(addr) {
			return nil
		}
	}
	var failed error
	for _, m := range p.names {
		if m.port != uint16(port) {
			continue
		}
		addrs, err := m.lookup(ctx, n.cfg.Lookup, func(known []netip.Addr) bool { return slices.Contains(known, addr) })
		if slices.Contains(addrs, addr) {
			return nil
		}
		if err != nil {
			failed = fmt.Errorf("look up peers: %w", err)
		}
	}
	if failed != nil { // it may well be one
		return failed
	}
	return fmt.Errorf("%w: %s", ErrNotPeer, owner)
}

// lookup returns the addresses behind the name. enough says whether those of the last
// answer will do although it is not old yet. When DNS fails, the last answer stays.
func (m *name) lookup(ctx context.Context, ask func(context.Context, string) ([]netip.Addr, error), enough func([]netip.Addr) bool) ([]netip.Addr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := time.Since(m.asked)
	if !m.asked.IsZero() && (age < nameLife && enough(m.addrs) || age < nameLeast) {
		return m.addrs, nil
	}
	addrs, err := ask(ctx, m.host)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		addrs, err = nil, nil // a headless Service without a ready pod
	}
	if err != nil {
		return m.addrs, err
	}
	m.asked, m.addrs = time.Now(), nil
	for _, a := range addrs {
		m.addrs = append(m.addrs, a.Unmap().WithZone(""))
	}
	return m.addrs, nil
}

// List returns the peers that can be named: those listed by address and those that
// DNS tells, without this node. complete is false where a range may hold others, or DNS
// failed.
func (n *Node) List(ctx context.Context) (peers []string, complete bool) {
	p := n.cfg.Peers
	complete = len(p.ranges) == 0
	peers = slices.Clone(p.exact)
	for _, m := range p.names {
		addrs, err := m.lookup(ctx, n.cfg.Lookup, func([]netip.Addr) bool { return true })
		if err != nil {
			n.cfg.Logger.Warn("peers cannot be looked up", "name", m.host, "error", err)
			complete = false
		}
		for _, a := range addrs {
			peers = append(peers, netip.AddrPortFrom(a, m.port).String())
		}
	}
	slices.Sort(peers)
	peers = slices.Compact(peers)
	return slices.DeleteFunc(peers, func(s string) bool { return s == n.cfg.Address }), complete
}
