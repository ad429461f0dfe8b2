package handoff

import (
	"net"
	"sync"
	"time"
)

// limited is a listener that tells those who are too many and lets them go. First
// it waits for a place: one may just be given back, and a client that is answered
// before it has written its request takes the answer for a fault.
type limited struct {
	net.Listener
	room chan struct{}  // one place each
	over func(net.Conn) // says so; the connection is closed after
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		full := time.NewTimer(lingerTime)
		select {
		case l.room <- struct{}{}:
			full.Stop()
			return &place{Conn: c, free: sync.OnceFunc(func() { <-l.room })}, nil
		case <-full.C:
			c.SetDeadline(time.Now().Add(lingerTime))
			l.over(c)
			linger(c)
			c.Close()
		}
	}
}

// A place is a connection that counts until it is closed.
type place struct {
	net.Conn
	free func()
}

func (p *place) Close() error {
	defer p.free()
	return p.Conn.Close()
}

func (p *place) CloseWrite() error {
	if w, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
