package emulator

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// eventually waits for a state that no channel tells of.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 20 s", what)
		}
	}
}

func (l *lab) ports() []string { return []string{l.MQTTAddr(), l.AMQPAddr(), l.HTTPSAddr()} }

func (l *lab) dialTLS(addr string) (*tls.Conn, error) {
	return tls.Dial("tcp", addr, &tls.Config{RootCAs: l.RootCAs(), ServerName: "localhost"})
}

func TestCertificate(t *testing.T) {
	l := serveHub(t, Config{HostName: "hub.example"})
	for _, addr := range l.ports() {
		for _, name := range []string{"hub.example", "localhost", "127.0.0.1", "::1"} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: l.RootCAs(), ServerName: name})
			if err != nil {
				t.Errorf("%s at %s: %v", name, addr, err)
				continue
			}
			c.Close()
		}
		if c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: l.RootCAs(), ServerName: "hub2.example"}); err == nil {
			c.Close()
			t.Error("the certificate is for every name")
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(l.CAPEM()) || !pool.Equal(l.RootCAs()) {
		t.Error("CAPEM is not RootCAs")
	}
	// A certificate is asked for, on every port.
	for _, addr := range l.ports() {
		asked := false
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: l.RootCAs(), ServerName: "localhost", MaxVersion: tls.VersionTLS12,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return new(tls.Certificate), nil
			}})
		if err != nil || !asked {
			t.Errorf("%s: asked %t, %v", addr, asked, err)
			continue
		}
		c.Close()
	}
}

func TestNewSaysWhichAddress(t *testing.T) {
	l := serveHub(t, Config{})
	_, err := New(Config{AMQPAddr: l.AMQPAddr()})
	e, ok := errors.AsType[*ListenError](err)
	if !ok || e.Field != "AMQPAddr" || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "listen for AMQP") {
		t.Errorf("got %v", err)
	}
	h, err := New(Config{AdminAddr: "[::1]:0"})
	if err != nil {
		t.Fatal(err)
	}
	if h.AdminAddr() == "" || h.Close() != nil || h.Close() != nil {
		t.Error("a hub that never ran does not close")
	}
}

// Connections that say nothing, at every stage, end by themselves.
func TestSilence(t *testing.T) {
	l := serveHub(t, Config{HandshakeTimeout: 3 * time.Second})
	open := map[string]net.Conn{}
	for what, addr := range map[string]string{"MQTT": l.MQTTAddr(), "AMQP": l.AMQPAddr(), "HTTPS": l.HTTPSAddr()} {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		secure, err := l.dialTLS(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer secure.Close()
		open[what+" before TLS"], open[what+" within TLS"] = raw, secure
	}
	for what, c := range open {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still open after 20 s", what)
		}
	}
	eventually(t, "no socket is left", func() bool { return l.Stats().SocketsOpen == 0 })
}

func TestConnectionCap(t *testing.T) {
	l := serveHub(t, Config{MaxConnections: 3})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for _, addr := range l.ports() {
		c, err := l.dialTLS(addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for _, addr := range l.ports() {
		if c, err := l.dialTLS(addr); err == nil {
			open = append(open, c)
			t.Errorf("%s takes a fourth", addr)
		}
	}
	if s := l.Stats(); s.SocketsOpen != 3 || s.SocketsRefused != 3 {
		t.Errorf("stats %+v", s)
	}
	open[0].Close()
	eventually(t, "room again", func() bool { return l.Stats().SocketsOpen == 2 })
	c, err := l.dialTLS(l.AMQPAddr())
	if err != nil {
		t.Fatal(err)
	}
	open = append(open, c)
}

// Run ends while connections of every kind are open, and calls too.
func TestRunEnds(t *testing.T) {
	h, err := New(Config{AdminAddr: "127.0.0.1:0", Devices: []Device{{ID: "d"}}, Faults: Faults{REST: &AnswerFault{Stall: true}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	l := &lab{TB: t, Hub: h}
	_, link := on(t, h, dev)
	for _, addr := range l.ports() {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c, err := l.dialTLS(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if addr == h.HTTPSAddr() {
			io.WriteString(c, "GET /twins/d HTTP/1.1\r\nHost: localhost\r\nAuthorization: "+l.serviceToken("service")+"\r\n\r\n")
		}
	}
	follow, err := net.Dial("tcp", h.AdminAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	io.WriteString(follow, "GET /events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	follow.Read(make([]byte, 1))
	eventually(t, "all are in", func() bool { return h.Stats().SocketsOpen == 6 })
	start := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("Run took %v to end", d)
	}
	if link.cause() != errStopped {
		t.Errorf("the link was closed with %v", link.cause())
	}
	if _, err := h.attach(dev, newCoreLink(), time.Time{}); err == nil {
		t.Error("a stopped hub takes a link")
	}
	if c, err := net.Dial("tcp", h.MQTTAddr()); err == nil {
		c.Close()
		t.Error("a stopped hub listens")
	}
}

// Ten thousand connections of garbage: nine in ten are none of TLS, the others
// are rubbish within TLS. Nothing is left of them.
func TestGarbage(t *testing.T) {
	const total, inTLS = 10_000, 10
	l := serveHub(t, Config{})
	client := &tls.Config{RootCAs: l.RootCAs(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	garbage := make([]byte, 1<<10)
	rand.Read(garbage)
	garbage[0] |= 0x80 // a record of no TLS version
	throw := func(i int) {
		addr := l.ports()[i%3]
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if i%inTLS == 0 {
			c = tls.Client(c, client)
		}
		c.Write(garbage) // the hub may have gone already
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s keeps garbage waiting", addr)
		}
	}
	for i := range 100 { // what is made once
		throw(i)
	}
	goroutines, heap := settled(l)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				throw(i)
			}
		})
	}
	for i := range total {
		work <- i
	}
	close(work)
	wg.Wait()
	after, heapAfter := settled(l)
	if after > goroutines+5 {
		t.Errorf("%d goroutines, and %d before", after, goroutines)
	}
	if heapAfter > heap+8<<20 {
		t.Errorf("%d bytes of heap, and %d before", heapAfter, heap)
	}
	l.wants(l.ask("GET", "/devices", ""), 200, "") // and it works
}

// settled returns goroutines and heap once every socket is gone.
func settled(l *lab) (goroutines int, heap uint64) {
	l.Helper()
	eventually(l.TB, "no socket is left", func() bool { return l.Stats().SocketsOpen == 0 })
	last := -1
	eventually(l.TB, "goroutines ended", func() bool {
		n := runtime.NumGoroutine()
		same := n == last
		last = n
		return same
	})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return last, m.HeapAlloc
}
