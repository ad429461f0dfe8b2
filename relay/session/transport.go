package session

import "net"

// A Transport carries the session's bytes in order, both ways. A WebSocket
// (package ws) is one.
type Transport interface {
	// Read is a byte stream; message boundaries mean nothing.
	Read(p []byte) (int, error)
	// WriteFrame sends b[Headroom():] as one message. It may overwrite all of b;
	// the first Headroom() bytes are its own, for a header. It keeps no part of b.
	// It is called by one goroutine at a time.
	WriteFrame(b []byte) error
	// Headroom is constant for the life of the transport.
	Headroom() int
	// Close unblocks Read and WriteFrame.
	Close() error
}

// NetTransport makes a transport of a stream-oriented connection: a pipe in
// tests, TCP, TLS, a serial line.
func NetTransport(c net.Conn) Transport { return netTransport{c} }

type netTransport struct{ c net.Conn }

func (t netTransport) Read(p []byte) (int, error) { return t.c.Read(p) }
func (t netTransport) Headroom() int              { return 0 }
func (t netTransport) Close() error               { return t.c.Close() }

func (t netTransport) WriteFrame(b []byte) error {
	_, err := t.c.Write(b)
	return err
}
