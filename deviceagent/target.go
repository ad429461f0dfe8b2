package deviceagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"websocketbridge/relay/wire"
)

// A Target is one local destination. Its Dial returns a connection that
// io.Copy can fill and empty; a CloseWrite method, if it has one, carries a
// half-close.
type Target interface {
	Dial(ctx context.Context) (net.Conn, error)
	// String says what it is, for the owner's log.
	String() string
}

// Targets is what a device's owner allows. Nothing else can be reached.
type Targets struct {
	names    map[string]Target
	patterns []pattern
}

// ParseTargets reads the owner's list. An entry is
//
//	NAME=tcp:HOST:PORT     a TCP port, here or on a host this device can reach
//	NAME=unix:/PATH        a Unix socket
//	echo                   a target of that name that sends back what it gets
//	tcp:HOSTS:PORTS        any target the requester calls HOST:PORT, where HOSTS is an
//	                       address, a network (10.0.0.0/24), a name, "*.suffix" or "*",
//	                       and PORTS is a port, a range (8000-8099) or "*"
//
// A pattern with an address or a network matches addresses only and one with a
// name matches names only, so a name can never smuggle an address past the list.
// Every fault is reported at once.
func ParseTargets(entries []string) (*Targets, error) {
	t := &Targets{names: make(map[string]Target)}
	var errs []error
	for _, e := range entries {
		if err := t.parse(strings.TrimSpace(e)); err != nil {
			errs = append(errs, fmt.Errorf("target %q %w", e, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// Add allows a target of the host program's own under a name.
func (t *Targets) Add(name string, target Target) error {
	if err := wire.CheckTarget(name); err != nil {
		return fmt.Errorf("name %w", err)
	}
	if _, ok := t.names[name]; ok {
		return errors.New("has a name that is there already")
	}
	t.names[name] = target
	return nil
}

func (t *Targets) parse(e string) error {
	if e == "echo" {
		return t.Add("echo", Echo{})
	}
	name, spec, named := strings.Cut(e, "=")
	if !named {
		rest, ok := strings.CutPrefix(e, "tcp:")
		if !ok {
			return errors.New("is neither NAME=tcp:HOST:PORT, NAME=unix:/PATH, echo, nor a pattern tcp:HOSTS:PORTS")
		}
		p, err := parsePattern(rest)
		if err != nil {
			return err
		}
		t.patterns = append(t.patterns, p)
		return nil
	}
	kind, rest, _ := strings.Cut(spec, ":")
	switch kind {
	case "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil || host == "" {
			return errors.New("needs a host and a port, as in tcp:127.0.0.1:22")
		}
		if _, err := parsePort(port); err != nil {
			return err
		}
		return t.Add(name, dialer{"tcp", rest})
	case "unix":
		if rest == "" {
			return errors.New("needs a path, as in unix:/run/docker.sock")
		}
		return t.Add(name, dialer{"unix", rest})
	case "echo":
		return t.Add(name, Echo{})
	}
	return fmt.Errorf("has kind %q; tcp, unix and echo are known", kind)
}

// Find returns the target that a requester's name means.
func (t *Targets) Find(name string) (Target, bool) {
	if target, ok := t.names[name]; ok {
		return target, true
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, false
	}
	n, err := parsePort(port)
	if err != nil {
		return nil, false
	}
	for _, p := range t.patterns {
		if p.match(host, n) {
			return dialer{"tcp", name}, true
		}
	}
	return nil, false
}

// Names lists what there is, for the owner.
func (t *Targets) Names() []string {
	out := slices.Sorted(maps.Keys(t.names))
	for _, p := range t.patterns {
		out = append(out, p.text)
	}
	return out
}

// pattern is an entry without a name.
type pattern struct {
	text     string
	network  netip.Prefix // valid: addresses only
	name     string       // otherwise: names only; "*" is both
	from, to uint16
}

func parsePattern(s string) (pattern, error) {
	p := pattern{text: "tcp:" + s}
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return p, errors.New("needs hosts and ports, as in tcp:192.168.1.0/24:80-90")
	}
	hosts, ports := strings.ToLower(strings.Trim(s[:i], "[]")), s[i+1:]
	first, last, ranged := strings.Cut(ports, "-")
	var err error
	switch {
	case ports == "*":
		p.from, p.to = 1, 65535
	case ranged:
		if p.from, err = parsePort(first); err == nil {
			p.to, err = parsePort(last)
		}
		if err == nil && p.from > p.to {
			err = fmt.Errorf("has an empty range of ports, %s", ports)
		}
	default:
		p.from, err = parsePort(ports)
		p.to = p.from
	}
	if err != nil {
		return p, err
	}
	if a, err := netip.ParseAddr(hosts); err == nil {
		p.network = netip.PrefixFrom(a, a.BitLen())
		return p, nil
	}
	if strings.Contains(hosts, "/") {
		if p.network, err = netip.ParsePrefix(hosts); err != nil {
			return p, fmt.Errorf("has a network that is none, %q", hosts)
		}
		return p, nil
	}
	if hosts != "*" && strings.Contains(strings.TrimPrefix(hosts, "*."), "*") {
		return p, errors.New(`may have a star only as "*" or in front of a name, as in *.plant.example`)
	}
	p.name = hosts
	return p, nil
}

func (p pattern) match(host string, port uint16) bool {
	if port < p.from || port > p.to {
		return false
	}
	if p.name == "*" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err == nil {
		return p.network.IsValid() && a.Zone() == "" && p.network.Contains(a.Unmap())
	}
	return !p.network.IsValid() && matchHost(p.name, host, "")
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("has port %q, which is not between 1 and 65535", s)
	}
	return uint16(n), nil
}

// dialer is a target behind a socket.
type dialer struct{ network, addr string }

func (d dialer) String() string { return d.network + ":" + d.addr }

func (d dialer) Dial(ctx context.Context) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, d.network, d.addr)
	if err == nil {
		return c, nil
	}
	// The requester reads it: what was dialled and why it failed, in few words.
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: no answer in time", d.addr)
	}
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		err = oe.Err
	}
	if se := (interface{ Unwrap() error })(nil); errors.As(err, &se) && se.Unwrap() != nil {
		err = se.Unwrap() // "connect: connection refused" without the "connect:"
	}
	return nil, fmt.Errorf("%s: %w", d.addr, err)
}

// Echo is a target that sends back what it gets, and ends when its sender does.
type Echo struct{}

func (Echo) String() string { return "echo" }

// Dial returns one end of a pipe; the other is copied back to itself.
func (Echo) Dial(context.Context) (net.Conn, error) {
	r, w := io.Pipe()
	return &echoConn{r: r, w: w}, nil
}
