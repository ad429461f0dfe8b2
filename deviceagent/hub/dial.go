package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"websocketbridge/relay/ws"
)

// path is where a hub takes both MQTT and AMQP by WebSocket. ($servicebus is Event
// Hubs'.)
const path = "/$iothub/websocket"

// A wire is a connection to the hub's front door: TLS, perhaps with a WebSocket in
// it, perhaps through a proxy.
type wire struct {
	*guard
	raw net.Conn // what is below TLS
}

// hangUp ends the connection without a word, whatever is under way on it.
func (w *wire) hangUp() {
	w.closing()
	w.raw.Close()
}

// dial reaches the hub. publish is called for each PUBLISH that comes. Errors name hosts and never secrets.
func (s *Source) dial(ctx context.Context, publish func()) (*wire, error) {
	var w wire
	d := ws.Dialer{
		TLS: s.tls, Proxy: s.cfg.Proxy,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := s.cfg.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w.raw = &patient{Conn: c}
			return w.raw, nil
		},
		Config: ws.Config{Ping: -1, Dead: -1}, // MQTT has its own pings
	}
	if !s.cfg.WebSocket {
		c, err := d.DialTLS(ctx, s.cfg.Addr)
		if err != nil {
			return nil, err
		}
		w.guard = &guard{Conn: c, publish: publish}
		return &w, nil
	}
	c, err := d.DialWebSocket(ctx, "wss://"+s.cfg.Addr+path, http.Header{"Host": {s.cfg.server()}}, "mqtt")
	if err != nil {
		return nil, err
	}
	w.guard = &guard{Conn: webSocket{c}, publish: publish}
	return &w, nil
}

// tlsConfig is the caller's with the name and the certificate of this identity.
func (c Config) tlsConfig() *tls.Config {
	t := c.TLS.Clone()
	if t == nil {
		t = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if t.ServerName == "" {
		t.ServerName = c.server()
	}
	if cert := c.Certificate; cert != nil {
		// Not t.Certificates: crypto/tls sends none of those if the hub's list of
		// authorities lacks their issuer, and a self-signed one is in no list.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return t
}

// checkCertificate says what a hub does not: it closes the connection of an expired
// certificate without a word.
func (c Config) checkCertificate(now time.Time) error {
	if c.Certificate == nil || c.Certificate.Leaf == nil {
		return nil
	}
	switch leaf := c.Certificate.Leaf; {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("this device's certificate expired on %s, or its clock is wrong", leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("this device's certificate is valid from %s on, and it is %s here; is the clock right?",
			leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// blocked says whether err may be a firewall or a proxy that lets nobody out to port
// 8883: whatever is neither the hub's certificate nor its name.
func blocked(err error) bool {
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	return !errors.As(err, &cert) && !errors.As(err, &dns)
}
