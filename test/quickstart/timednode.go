package main

import (
	"bytes"
	"context"
	"net"
	"sync"

	"websocketbridge/relay/cluster"
)

// What shows how several nodes share the work. All of it only looks on.

// timedListener is a node's, behind the front.
type timedListener struct {
	net.Listener
	tl   *timeline
	name string
}

func (l *timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	switch l.tl.entered(&l.tl.atNode) {
	case theRequester:
		l.tl.mark("front", "gives it to "+l.name)
		return &timedRequester{Conn: c, tl: l.tl, name: l.name}, nil
	case theDevice:
		l.tl.mark("front", "gives it to "+l.name)
	}
	return c, nil
}

// timedRequester is the requester's connection at its node, which answers it once the
// device is there.
type timedRequester struct {
	net.Conn
	tl   *timeline
	name string
	once sync.Once
}

func (c *timedRequester) Write(b []byte) (int, error) {
	c.once.Do(func() {
		if bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
			c.tl.mark(c.name, "joins the device with the requester, and answers both")
		}
	})
	return c.Conn.Write(b)
}

// timedDialer is a node's way to its peers.
type timedDialer struct {
	tl    *timeline
	name  string
	names map[string]string // of nodes, by the address of their node port
}

func (d *timedDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.tl.mark(d.name, "reads in the token that "+d.names[addr]+" owns the bridge, and passes it on to its node port, "+addr)
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, addr)
}

// timedKeys see when a peer proves itself.
type timedKeys struct {
	cluster.Keys
	tl   *timeline
	name string
}

func (k *timedKeys) CheckMAC(purpose string, data, mac []byte) error {
	err := k.Keys.CheckMAC(purpose, data, mac)
	if err == nil && purpose == "node peer" { // relay/cluster/doc.go: the proof of who dials
		k.tl.mark(k.name, "has the other node's proof that it belongs to this relay")
	}
	return err
}
