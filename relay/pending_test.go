package relay_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/cluster"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// street is a node on a real network, for addresses.
type street struct {
	t   *testing.T
	srv *relay.Server
	ln  net.Listener
	log testlog.Buffer
}

func newStreet(t *testing.T, wrap func(net.Listener) net.Listener, change func(*relay.Config)) *street {
	t.Helper()
	s := &street{t: t}
	var err error
	if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	cfg := relay.Config{
		PublicURL: "ws://relay.test", Auth: auth.AllowAll{}, Keys: mustRing(t), Drain: -1, Logger: slog.New(slog.NewTextHandler(&s.log, nil)),
		Signaler: signalFunc(func(context.Context, *signaler.Signal) error { return signaler.ErrDeviceNotFound }),
	}
	change(&cfg)
	if s.srv, err = relay.New(cfg); err != nil {
		t.Fatal(err)
	}
	on := relay.Listeners{Public: s.ln}
	if wrap != nil {
		on.Public = wrap(s.ln)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.srv.Run(ctx, on) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// dial opens a connection from an address and waits until the node holds so many.
func (s *street) dial(from string, held int) net.Conn {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", s.ln.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	s.holds(held)
	return c
}

// holds waits until so many connections wait for a request.
func (s *street) holds(n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d connections are held", n), func() bool { return s.srv.PendingConns() == n })
}

func (s *street) until(what string, is func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not so: %s; %d are held, and refused were %v", what, s.srv.PendingConns(), s.srv.Refused())
		}
		<-time.After(time.Millisecond)
	}
}

// gone says whether the node closes c; one that it keeps answers a request.
func (s *street) gone(c net.Conn, t *tls.Config) bool {
	s.t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if t != nil {
		c = tls.Client(c, t)
	}
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	b, rerr := io.ReadAll(c)
	if late := errors.Join(err, rerr); errors.Is(late, os.ErrDeadlineExceeded) {
		s.t.Fatal(late)
	}
	return err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 404")
}

// Of connections without a request the oldest go: of the address that has too many, and
// where all have too many together, of the one that has most.
func TestPendingConnections(t *testing.T) {
	server, err := cluster.SelfTLS()
	if err != nil {
		t.Fatal(err)
	}
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"plain": nil,
		"TLS":   func(ln net.Listener) net.Listener { return tls.NewListener(ln, server) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStreet(t, wrap, func(c *relay.Config) { c.MaxPending, c.MaxPendingPerAddress = 6, 3 })
			var client *tls.Config
			if wrap != nil {
				client = &tls.Config{InsecureSkipVerify: true, ServerName: "x", MinVersion: tls.VersionTLS12}
			}
			var slow []net.Conn
			for i := range 5 {
				slow = append(slow, s.dial("127.0.0.2", min(i+1, 3)))
			}
			honest := s.dial("127.0.0.1", 4)
			other := []net.Conn{s.dial("127.0.0.3", 5), s.dial("127.0.0.3", 6), s.dial("127.0.0.3", 6)}
			s.until("two and one are counted", func() bool {
				got := s.srv.Refused()
				return got["address_pending"] == 2 && got["pending"] == 1
			})
			for i, c := range []net.Conn{slow[0], slow[1], slow[2], slow[3], slow[4], honest, other[0], other[1], other[2]} {
				if gone := s.gone(c, client); gone != (i < 3) {
					t.Errorf("connection %d is gone: %t", i, gone)
				}
			}
			s.holds(0)
			if log := s.log.String(); !strings.Contains(log, `level=WARN msg="connection closed: too many wait for their request" limit=address_pending from=127.0.0.2 held=`) {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// A connection between two requests counts, one with a request under way does not, and a
// trusted proxy's do not count by address.
func TestPendingStates(t *testing.T) {
	s := newStreet(t, nil, func(c *relay.Config) {
		c.MaxPendingPerAddress = 1
		c.TrustedProxies = prefixes("127.0.0.9/32")
	})
	idle := s.dial("127.0.0.2", 1)
	if _, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024)
	idle.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := idle.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 404") {
		t.Fatalf("%q, %v", b[:n], err)
	}
	s.holds(1)
	s.dial("127.0.0.2", 1).Close()
	if _, err := idle.Read(b); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the idle one is still there: %v", err)
	}
	s.holds(0)
	for i := range 5 {
		s.dial("127.0.0.9", i+1)
	}
}

// A TLS handshake that never ends is cut off like a head that never does.
func TestSlowTLS(t *testing.T) {
	server, err := cluster.SelfTLS()
	if err != nil {
		t.Fatal(err)
	}
	hello := clientHello(t)
	for _, sent := range [][]byte{nil, hello[:1], hello[:len(hello)/2], hello} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(context.Background())
			srv, err := relay.New(relay.Config{PublicURL: "ws://x", Auth: auth.AllowAll{}, Keys: mustRing(t), Drain: -1, Signaler: signalFunc(nil)})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			ln := netfault.NewListener()
			go func() { done <- srv.Run(ctx, relay.Listeners{Public: tls.NewListener(ln, server)}) }()
			c, err := ln.Dial(ctx, "", "")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go c.Write(sent)
			io.Copy(io.Discard, c)
			if took := time.Since(began); took < 9*second || took > 11*second {
				t.Errorf("%d bytes of a handshake: ended after %v", len(sent), took)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// clientHello is the first that a TLS client sends.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		tls.Client(near, &tls.Config{ServerName: "relay.test"}).Handshake()
		near.Close()
	}()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}
