package deviceagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"websocketbridge/relay/wire"
)

// A Target is one local destination. Its Dial returns a connection that
// io.Copy can fill and empty, and whose Close ends a Read and a Write under way;
// a CloseWrite method, if it has one, carries a half-close.
type Target interface {
	Dial(ctx context.Context) (net.Conn, error)
	// String says what it is, for the owner's log.
	String() string
}

// Targets is what a device's owner allows. Nothing else can be reached. The zero
// value allows nothing.
type Targets struct {
	names    map[string]Target
	patterns []pattern
}

// ParseTargets reads the owner's list. An entry is
//
//	NAME=tcp:HOST:PORT     a TCP port, here or on a host this device can reach
//	NAME=unix:/PATH        a Unix socket; @NAME is one without a file (Linux)
//	NAME=echo: or echo     a target that sends back what it gets
//	tcp:HOSTS:PORTS        any target the requester calls HOST:PORT, where HOSTS is an
//	                       address, a network (10.0.0.0/24), a name, "*.suffix" or "*",
//	                       and PORTS is a port, a range (8000-8099) or "*"
//
// A pattern with an address or a network matches addresses only and one with a
// name matches names only, so a name can never smuggle an address past the list.
// IPv6 addresses are in brackets, as in [fd00::1]:22. Every fault is reported at once.
func ParseTargets(entries []string) (*Targets, error) {
	t := new(Targets)
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

// Add allows a target of the host program's own under a name. It must not be
// called any more when an agent runs with t.
func (t *Targets) Add(name string, target Target) error {
	if err := wire.CheckTarget(name); err != nil {
		return fmt.Errorf("has a name that %w", err)
	}
	if target == nil {
		return errors.New("is nil")
	}
	if _, ok := t.names[name]; ok {
		return errors.New("has a name that is there already")
	}
	if t.names == nil {
		t.names = make(map[string]Target)
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
		if _, err := netip.ParseAddr(host); err != nil && !isName(canonicalName(host)) {
			return fmt.Errorf("has a host that is neither a name nor an address, %q", host)
		}
		n, err := parsePort(port)
		if err != nil {
			return err
		}
		return t.Add(name, tcp(host, n))
	case "unix":
		if !filepath.IsAbs(rest) && !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "@") { // Windows takes both slashes
			return errors.New("needs a whole path, as in unix:/run/docker.sock")
		}
		return t.Add(name, dialer{"unix", rest})
	case "echo":
		if rest != "" {
			return fmt.Errorf("has %q behind echo:, which takes nothing", rest)
		}
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
		if p.from <= n && n <= p.to && p.match(host) {
			return tcp(host, n), true
		}
	}
	return nil, false
}

// named reports whether an entry has this name.
func (t *Targets) named(name string) bool { return t.names[name] != nil }

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
	text string
	hosts
	from, to uint16
}

func parsePattern(s string) (pattern, error) {
	p := pattern{text: "tcp:" + s}
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return p, errors.New("needs hosts and ports, as in tcp:192.168.1.0/24:80-90")
	}
	var err error
	if p.from, p.to, err = parsePorts(s[i+1:]); err != nil {
		return p, err
	}
	host := unbracket(s[:i])
	if host == s[:i] && strings.Contains(host, ":") && !strings.Contains(host, "/") {
		return p, errors.New("needs brackets around an IPv6 address, as in tcp:[fd00::1]:22")
	}
	p.hosts, err = parseHosts(host)
	return p, err
}

func parsePorts(s string) (from, to uint16, err error) {
	if s == "*" {
		return 1, 65535, nil
	}
	first, last, ranged := strings.Cut(s, "-")
	if from, err = parsePort(first); err != nil || !ranged {
		return from, from, err
	}
	if to, err = parsePort(last); err == nil && from > to {
		err = fmt.Errorf("has an empty range of ports, %s", s)
	}
	return from, to, err
}

// dialer is a target behind a socket.
type dialer struct{ network, addr string }

func tcp(host string, port uint16) dialer {
	return dialer{"tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))}
}

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
