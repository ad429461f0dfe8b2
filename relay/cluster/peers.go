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

	asking chan struct{} // full while somebody uses what is below: one question at a time
	addrs  []netip.Addr  // the last answer; replaced, never changed
	asked  time.Time
	err    error // why the last question had no answer
}

func newName(a address) *name {
	return &name{host: a.host, port: a.port, asking: make(chan struct{}, 1)}
}

const (
	// nameLife is how long an answer of DNS is good. Pods come and go in seconds.
	nameLife = 5 * time.Second
	// nameLeast is the least time between two questions, such as for an address that the
	// last answer did not have: a new node, whose first tokens are out.
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
	a, host := address{port: port}, item
	if h, text, err := net.SplitHostPort(item); err == nil {
		if a.port, err = parsePort(text); err != nil {
			return err
		}
		host = h
	} else if strings.HasPrefix(item, "[") && strings.HasSuffix(item, "]") {
		host = item[1 : len(item)-1]
	}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		if ip := prefix.Addr(); ip.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(ip.Unmap(), prefix.Bits()-96)
		}
		if prefix.Bits() == 0 {
			return errors.New("is every address there is; a range of peers is narrower")
		}
		p.ranges = append(p.ranges, addrRange{prefix.Masked(), a.port})
		return nil
	}
	switch err := a.setHost(host); {
	case err == errHost:
		return errPeer
	case err != nil:
		return err
	case a.ip.IsValid():
		p.exact = append(p.exact, a.String())
	default:
		p.names = append(p.names, newName(a))
	}
	return nil
}

// An address is host:port with one way to write it, so that two of them are of one node
// if their texts are equal, and what was checked is what is dialled.
type address struct {
	host string
	ip   netip.Addr // if host is one
	port uint16
}

func (a address) String() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }

var errHost = errors.New("is not host:port with an address or a DNS name")

// parseAddress reads any way to write an address. Its errors continue a sentence.
func parseAddress(s string) (a address, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, errors.New("is not host:port")
	}
	if a.port, err = parsePort(port); err != nil {
		return address{}, err
	}
	return a, a.setHost(host)
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("has port %.20q; ports are 1 to 65535", s)
	}
	return uint16(n), nil
}

func (a *address) setHost(host string) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if !isName(host) {
			return errHost
		}
		a.host = strings.ToLower(strings.TrimSuffix(host, "."))
		return nil
	}
	switch a.ip = ip.Unmap(); {
	case a.ip.Zone() != "":
		return errors.New("has a zone, which another machine does not know")
	case a.ip.IsUnspecified():
		return errors.New("is every address of a machine; peers need one")
	case a.ip.IsMulticast():
		return errors.New("is a multicast address; nobody can dial that")
	}
	a.host = a.ip.String()
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
	a, err := parseAddress(owner)
	if err != nil || a.String() != owner {
		return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
	}
	if !a.ip.IsValid() { // a name is a peer only if it is listed itself
		if !slices.ContainsFunc(p.names, func(m *name) bool { return m.host == a.host && m.port == a.port }) {
			return fmt.Errorf("%w: %.80q", ErrNotPeer, owner)
		}
		return nil
	}
	if slices.Contains(p.exact, owner) || slices.ContainsFunc(p.ranges, func(r addrRange) bool { return r.port == a.port && r.prefix.Contains(a.ip) }) {
		return nil
	}
	var failed error
	for _, m := range p.names {
		if m.port != a.port {
			continue
		}
		addrs, err := n.lookup(ctx, m, func(known []netip.Addr) bool { return slices.Contains(known, a.ip) })
		if slices.Contains(addrs, a.ip) {
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
// answer will do although it is not old yet. When DNS fails, the last answer stays. DNS
// gets half the time of a dial, so that the other half is left to use that answer.
func (n *Node) lookup(ctx context.Context, m *name, enough func([]netip.Addr) bool) ([]netip.Addr, error) {
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if age := time.Since(m.asked); !m.asked.IsZero() && (age < nameLeast || age < nameLife && m.err == nil && enough(m.addrs)) {
		return m.addrs, m.err
	}
	patience := n.cfg.DialTimeout / 2
	asking, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer of DNS within %v", patience))
	defer cancel()
	addrs, err := n.cfg.Lookup(asking, m.host)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		addrs, err = nil, nil // a headless Service without a ready pod
	}
	if err != nil {
		err = because(asking, err)
		if ctx.Err() == nil { // otherwise it says nothing of DNS
			m.asked, m.err = time.Now(), err
		}
		return m.addrs, err
	}
	m.asked, m.err, m.addrs = time.Now(), nil, nil
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
	named := func(m *name) (all []string) {
		addrs, err := n.lookup(ctx, m, func([]netip.Addr) bool { return true })
		if err != nil {
			n.cfg.Logger.Warn("peers cannot be looked up", "name", m.host, "error", err)
			complete = false
		}
		for _, a := range addrs {
			all = append(all, netip.AddrPortFrom(a, m.port).String())
		}
		return all
	}
	peers = slices.Clone(p.exact)
	for _, m := range p.names {
		peers = append(peers, named(m)...)
	}
	own := []string{n.cfg.Address}
	if n.own != nil && len(p.names) > 0 { // a name among names, as in a StatefulSet
		own = append(own, named(n.own)...)
	}
	slices.Sort(peers)
	return slices.DeleteFunc(slices.Compact(peers), func(s string) bool { return slices.Contains(own, s) }), complete
}
