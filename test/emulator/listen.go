package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// A socketKind is what a socket speaks, so that DropAll knows which to cut.
type socketKind int

const (
	socketMQTT socketKind = iota
	socketAMQP
	socketHTTP // REST, or a WebSocket before its upgrade
)

func (h *Hub) listen() (err error) {
	for _, l := range []struct {
		what, field, addr string
		to                *net.Listener
	}{
		{"MQTT", "MQTTAddr", h.cfg.MQTTAddr, &h.mqtt}, {"AMQP", "AMQPAddr", h.cfg.AMQPAddr, &h.amqp},
		{"HTTPS", "HTTPSAddr", h.cfg.HTTPSAddr, &h.https}, {"the admin API", "AdminAddr", h.cfg.AdminAddr, &h.admin},
	} {
		if l.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return &ListenError{What: l.what, Field: l.field, Addr: l.addr, Err: err}
		}
		*l.to = ln
	}
	if h.ca, err = newAuthority(); err != nil {
		return fmt.Errorf("make a CA: %w", err)
	}
	names := []string{h.cfg.HostName}
	for _, l := range []net.Listener{h.mqtt, h.amqp, h.https} {
		host, _, _ := net.SplitHostPort(l.Addr().String())
		names = append(names, host)
	}
	cert, err := h.ca.serverCertificate(names...)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	h.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
		// IoT Hub asks for a certificate, takes any, and judges it at CONNECT.
		ClientAuth: tls.RequestClientCert,
	}
	return nil
}

// A ListenError says which address cannot be listened on.
type ListenError struct {
	What  string // MQTT, AMQP, HTTPS, or the admin API
	Field string // of Config
	Addr  string
	Err   error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen for %s: %v", e.What, e.Err) }

func (e *ListenError) Unwrap() error { return e.Err }

// A protocol serves one connection until that ends, and need not close it. state
// is that of the TLS handshake. When ctx ends the connection is closed.
type protocol func(ctx context.Context, c net.Conn, state *tls.ConnectionState)

// acceptTLS serves the connections of a listener until that is closed.
func (h *Hub) acceptTLS(ctx context.Context, ln net.Listener, kind socketKind, serve protocol) error {
	return h.accept(ctx, ln, func(raw net.Conn) {
		c := tls.Server(raw, h.tls)
		defer c.Close()
		if !h.enter(c, kind) {
			return
		}
		defer h.leave(c)
		hello, cancel := context.WithTimeout(ctx, h.cfg.HandshakeTimeout)
		err := c.HandshakeContext(hello)
		cancel()
		if err != nil {
			h.log.Debug("TLS handshake failed", "remote", raw.RemoteAddr().String(), "reason", err)
			return
		}
		state := c.ConnectionState()
		serve(ctx, c, &state)
	})
}

// accept runs serve for each connection, in a goroutine of the crowd.
func (h *Hub) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Such as too many open files: it passes when connections end.
			h.log.Warn("accept failed", "reason", err)
			if !sleep(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		h.crowd.Go(func() { serve(c) })
	}
}

// enter notes a socket; false: the hub stops, or has too many.
func (h *Hub) enter(c net.Conn, kind socketKind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if len(h.sockets) >= h.cfg.MaxConnections {
		h.stats.SocketsRefused++
		return false
	}
	h.sockets[c] = kind
	return true
}

func (h *Hub) leave(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, c)
}

// DropAll cuts every connection of a device or a service, without a goodbye; REST
// goes on.
func (h *Hub) DropAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.devices {
		for r := range d.all {
			h.cut(r, errTold, errDisconnected())
		}
	}
	for c, kind := range h.sockets {
		if kind != socketHTTP {
			hardClose(c)
		}
	}
}

// hardClose closes the TCP connection itself. tls.Conn's Close would say goodbye,
// and wait up to 5 s for a peer that does not read.
func hardClose(c net.Conn) {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	c.Close()
}
