package relay

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// pending are connections of the public listener that wait for a request: new ones, which
// may be in their TLS handshake, and idle ones. One too many throws out the oldest: an
// honest client needs a few round trips, and whoever has taken longest is least likely
// one. So slow strangers never keep others out.
type pending struct {
	max, maxPerAddress int                   // 0: no limit
	trusts             func(netip.Addr) bool // their own limit is the node's
	evicted            func(limit string, from netip.Addr, held time.Duration)

	mu   sync.Mutex // guards all below
	all  map[net.Conn]pendingConn
	from map[netip.Prefix]*list.List // of heldConn, the oldest first
}

type pendingConn struct {
	source netip.Prefix
	held   *list.Element
}

type heldConn struct {
	conn  net.Conn
	addr  netip.Addr
	since time.Time
}

func newPending(c Config) *pending {
	return &pending{
		max: c.MaxPending, maxPerAddress: c.MaxPendingPerAddress, trusts: c.Trusts,
		all: make(map[net.Conn]pendingConn), from: make(map[netip.Prefix]*list.List),
	}
}

// state is an http.Server's ConnState.
func (p *pending) state(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew, http.StateIdle:
		if limit, out := p.add(c); limit != "" {
			connection(out.conn).Close()
			p.evicted(limit, out.addr, time.Since(out.since))
		}
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.remove(c)
	}
}

// add returns what has to go in turn, and for which limit.
func (p *pending) add(c net.Conn) (limit string, out heldConn) {
	var addr netip.Addr
	if tcp, ok := connection(c).RemoteAddr().(*net.TCPAddr); ok {
		addr = tcp.AddrPort().Addr().Unmap()
	}
	source := source(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.from[source]
	if of == nil {
		of = list.New()
		p.from[source] = of
	}
	p.all[c] = pendingConn{source, of.PushBack(heldConn{c, addr, time.Now()})}
	switch {
	case p.maxPerAddress > 0 && of.Len() > p.maxPerAddress && addr.IsValid() && !p.trusts(addr):
		limit = limitAddressPending
	case p.max > 0 && len(p.all) > p.max:
		limit, of = limitPending, p.largest()
	default:
		return "", out
	}
	out = of.Front().Value.(heldConn)
	p.remove(out.conn)
	return limit, out
}

// largest is the source with most connections; of several, that with the oldest.
func (p *pending) largest() (most *list.List) {
	for _, of := range p.from {
		if most == nil || of.Len() > most.Len() ||
			of.Len() == most.Len() && of.Front().Value.(heldConn).since.Before(most.Front().Value.(heldConn).since) {
			most = of
		}
	}
	return most
}

// remove forgets c. One that is not there may be removed, too.
func (p *pending) remove(c net.Conn) {
	e, ok := p.all[c]
	if !ok {
		return
	}
	delete(p.all, c)
	of := p.from[e.source]
	if of.Remove(e.held); of.Len() == 0 {
		delete(p.from, e.source)
	}
}

// connection is the one below TLS and below a PROXY protocol header. Of the former it
// can be closed at once, where TLS would say goodbye first; of the latter, its address
// is known before the header has come, and is the proxy's.
func connection(c net.Conn) net.Conn {
	for {
		switch below := c.(type) {
		case interface{ NetConn() net.Conn }:
			c = below.NetConn()
		case interface{ Raw() net.Conn }:
			c = below.Raw()
		default:
			return c
		}
	}
}

func (s *Server) evicted(limit string, from netip.Addr, held time.Duration) {
	s.limits.count(limit)
	s.calm.Log(slog.LevelWarn, "pending "+limit, "connection closed: too many wait for their request", "limit", limit, "from", from.String(), "held", held.Round(time.Millisecond))
}
