package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
	"websocketbridge/test/front"
)

// maxNodes fits the picture, where a node's number has one digit.
const maxNodes = 9

// aRelay is the relay as the others know it.
type aRelay struct {
	url   string // where requester and device reach it
	admin string // URL of its first node's admin listener
	key   string // the requester's
}

// A part of the picture runs until ctx ends.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// startRelay starts the nodes, and in front of several the front.
func (d *demo) startRelay(start starter, hub *aHub, tl *timeline) (*aRelay, error) {
	n := 2
	if d.nodes > 1 {
		n += 2 * d.nodes
	}
	ports, err := listen(n)
	if err != nil {
		return nil, err
	}
	key, keys, err := newKey()
	var parts []part
	if err == nil {
		parts, err = d.makeNodes(start, hub, tl, keys, ports)
	}
	if err != nil {
		for _, l := range ports {
			l.Close()
		}
		return nil, err
	}
	for _, p := range parts {
		start(p.name, p.run)
	}
	return &aRelay{"ws://" + ports[0].Addr().String(), "http://" + ports[1].Addr().String(), key}, nil
}

// makeNodes makes what runs on the ports: the one that all know, the operator's, and
// two for each of several nodes.
func (d *demo) makeNodes(start starter, hub *aHub, tl *timeline, keys *auth.Keys, ports []net.Listener) ([]part, error) {
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		return nil, err
	}
	makeNode := func(name, does string, self *cluster.Node, log *slog.Logger, on relay.Listeners) (part, error) {
		s, err := hub.signaler(start, log)
		if err != nil {
			return part{}, err
		}
		node, err := relay.New(relay.Config{
			PublicURL: "ws://" + ports[0].Addr().String(), Cluster: self, Signaler: &timedSignaler{s, tl, name, does, d.hub.via()},
			Keys: ring, Auth: keys, Drain: -1, DialBack: d.dialBack, Logger: log,
		})
		return part{name, func(ctx context.Context) error { return node.Run(ctx, on) }}, err
	}
	entrance, admin := &timedEntrance{ports[0], tl}, ports[1]
	log := d.log.With("part", "relay")
	if d.nodes == 1 {
		p, err := makeNode("relay", "hands", nil, log, relay.Listeners{Public: entrance, Admin: admin})
		return []part{p}, err
	}
	public, forPeers := ports[2:2+d.nodes], ports[2+d.nodes:]
	names := make(map[string]string) // by address for peers
	for i, l := range forPeers {
		names[l.Addr().String()] = fmt.Sprintf("node %d", i+1)
	}
	peers, err := cluster.ParsePeers(slices.Collect(maps.Keys(names)), 0)
	if err != nil {
		return nil, err
	}
	parts := []part{d.makeFront(entrance, public)}
	for i, l := range forPeers {
		addr := l.Addr().String()
		name, log := names[addr], log.With("node", i+1)
		cert, err := cluster.SelfTLS()
		if err != nil {
			return nil, err
		}
		self, err := cluster.New(cluster.Config{
			Address: addr, Peers: peers, Keys: &timedKeys{ring, tl, name}, TLS: cert, Dial: (&timedDialer{tl, name, names}).dial, Logger: log,
		})
		if err != nil {
			return nil, err
		}
		on := relay.Listeners{Public: &timedListener{public[i], tl, name}, Node: l}
		if i == 0 {
			on.Admin = admin
		}
		p, err := makeNode(name, "owns the bridge, and hands", self, log, on)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// makeFront makes what hands each connection to the next node: the first one, the
// requester's, to node 1, and the second, the device's, to node 2.
func (d *demo) makeFront(entrance net.Listener, public []net.Listener) part {
	var backends []string
	for _, l := range public {
		backends = append(backends, l.Addr().String())
	}
	if d.turns != nil {
		backends = d.turns(backends)
	}
	f := front.New(front.Config{Backends: backends, Logger: d.log.With("part", "front")})
	return part{"front", func(ctx context.Context) error { return f.Run(ctx, entrance) }}
}

// listen opens n ports, or none.
func listen(n int) ([]net.Listener, error) {
	var all []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func newKey() (string, *auth.Keys, error) {
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		return "", nil, err
	}
	keys, err := auth.ParseKeys("quickstart " + hash)
	return key, keys, err
}
