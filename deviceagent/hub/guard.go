package hub

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"websocketbridge/relay/ws"
)

// maxPacket is in bytes: a direct method has at most 128 KiB, a message 64 KiB
// (Microsoft Learn, "IoT Hub quotas and throttling"), and then there is the topic.
const maxPacket = 512 << 10

// MQTT control packets a client may get (MQTT 3.1.1 section 2.2.1).
const (
	packetConnack = 2
	packetPublish = 3
	packetSuback  = 9
)

var (
	errCut    = errors.New("the connection ended in the middle of a packet")
	errPacket = errors.New("the hub sent what is not MQTT")
)

// A guard is the connection as paho gets it. It reads whole packets and lets only
// such through as paho can take: paho makes room for whatever length a header claims, up
// to 256 MB, and panics on a SUBACK with more codes than topics. It also
// knows whether the connection ended between two packets.
type guard struct {
	net.Conn // a *tls.Conn or a *webSocket

	publish func() // called for each PUBLISH, before paho gets it
	packet  []byte // whole, and not yet handed out
	head    [5]byte

	mu     sync.Mutex // guards both
	err    error      // why nothing more can be read
	closed bool       // by us
}

func (g *guard) Read(p []byte) (int, error) {
	if len(g.packet) == 0 {
		if err := g.next(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.closed { // in the one form that paho takes for no error
				err = net.ErrClosed
			}
			if g.err == nil {
				g.err = err
			}
			return 0, g.err
		}
	}
	n := copy(p, g.packet)
	g.packet = g.packet[n:]
	return n, nil
}

// closing notes that what ends now was ended by us.
func (g *guard) closing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Close implements net.Conn.
func (g *guard) Close() error {
	g.closing()
	return g.Conn.Close()
}

// ended is why nothing more can be read, or nil.
func (g *guard) ended() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// next reads one packet.
func (g *guard) next() error {
	if _, err := io.ReadFull(g.Conn, g.head[:1]); err != nil {
		return err // between two packets
	}
	size, n := 0, 1
	for more := true; more; n++ {
		if n == len(g.head) {
			return fmt.Errorf("%w: a length of more than four bytes", errPacket)
		}
		if _, err := io.ReadFull(g.Conn, g.head[n:n+1]); err != nil {
			return cut(err)
		}
		size |= int(g.head[n]&0x7f) << (7 * (n - 1))
		more = g.head[n]&0x80 != 0
	}
	kind := g.head[0] >> 4
	switch {
	case size > maxPacket:
		return fmt.Errorf("%w: a packet of %d bytes", errPacket, size)
	case kind == packetSuback && size != 3: // we subscribe to one topic at a time
		return fmt.Errorf("%w: a SUBACK of %d bytes", errPacket, size)
	case kind == packetConnack && size != 2:
		return fmt.Errorf("%w: a CONNACK of %d bytes", errPacket, size)
	}
	b := make([]byte, n+size)
	copy(b, g.head[:n])
	if _, err := io.ReadFull(g.Conn, b[n:]); err != nil {
		return cut(err)
	}
	if kind == packetPublish {
		g.publish()
	}
	g.packet = b
	return nil
}

// cut makes an end within a packet one that is none of the hub's will.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}

// Deadlines are not paho's business: connecting is bounded by a context, writes by
// patient, and a silent connection by pings.
func (g *guard) SetDeadline(time.Time) error      { return nil }
func (g *guard) SetReadDeadline(time.Time) error  { return nil }
func (g *guard) SetWriteDeadline(time.Time) error { return nil }

// closedByPeer says whether a hub that closes a connection without a reason looks
// like err. An end within a TLS record or a packet, a reset and a timeout are the
// network's; some codes of a close frame say that the server goes away.
func closedByPeer(err error, webSocket bool) bool {
	var c *ws.CloseError
	switch {
	case errors.As(err, &c):
		return c.Code != 1001 && c.Code != 1011 && c.Code != 1012 && c.Code != 1013
	case webSocket && errors.Is(err, io.ErrUnexpectedEOF): // no close frame
		return true
	}
	return err == io.EOF
}

// writeTimeout is for the network to take a packet. A connection that takes nothing
// for so long is dead, and paho would wait for ever.
const writeTimeout = 10 * time.Second

// patient is a TCP connection, below TLS and WebSocket, whose every write has a deadline,
// unless somebody has set an earlier one.
type patient struct {
	net.Conn
	mu    sync.Mutex // guards until
	until time.Time
}

func (p *patient) Write(b []byte) (int, error) {
	p.mu.Lock()
	until := time.Now().Add(writeTimeout)
	if !p.until.IsZero() && p.until.Before(until) {
		until = p.until
	}
	p.Conn.SetWriteDeadline(until)
	p.mu.Unlock()
	return p.Conn.Write(b)
}

func (p *patient) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = t
	return p.Conn.SetWriteDeadline(t)
}

func (p *patient) SetDeadline(t time.Time) error {
	p.SetWriteDeadline(t)
	return p.Conn.SetReadDeadline(t)
}

// webSocket is a ws.Conn as a net.Conn.
type webSocket struct{ *ws.Conn }

func (webSocket) SetDeadline(time.Time) error      { return nil }
func (webSocket) SetWriteDeadline(time.Time) error { return nil }
