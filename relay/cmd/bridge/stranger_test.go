package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// strangers answer where a relay should. They return the address for
// BRIDGE_RELAY and a function that ends them.
var strangers = map[string]func(l *lab, ts *testscript.TestScript) (string, func()){
	// A proxy in front of the relay that knows nothing of WebSockets.
	"strip": func(l *lab, ts *testscript.TestScript) (string, func()) {
		target := &url.URL{Scheme: "http", Host: l.addr}
		return server(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Upgrade")
			r.Out.Header.Del("Connection")
		}})
	},
	"page": func(*lab, *testscript.TestScript) (string, func()) { return server(http.NotFoundHandler()) },
	"gateway": func(*lab, *testscript.TestScript) (string, func()) {
		return server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<html>Bad Gateway</html>")
		}))
	},
	// Speaks TLS, and is addressed without.
	"tls-only": func(*lab, *testscript.TestScript) (string, func()) {
		srv := quiet(http.NotFoundHandler())
		srv.StartTLS()
		return "ws://" + srv.Listener.Addr().String(), srv.Close
	},
	"hang-up": func(_ *lab, ts *testscript.TestScript) (string, func()) {
		return listener(ts, func(c net.Conn) { c.Read(make([]byte, 4096)); c.Close() })
	},
	"not-http": func(_ *lab, ts *testscript.TestScript) (string, func()) {
		return listener(ts, func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n\r\n"); c.Close() })
	},
	"gone": func(_ *lab, ts *testscript.TestScript) (string, func()) {
		addr, stop := listener(ts, func(c net.Conn) { c.Close() })
		stop()
		return addr, func() {}
	},
	// TLS with certificates that a person may meet; ca.pem trusts their issuer.
	"tls-expired": func(l *lab, ts *testscript.TestScript) (string, func()) {
		return l.tlsStranger(ts, time.Now().Add(-time.Hour), net.IPv4(127, 0, 0, 1))
	},
	"tls-other-name": func(l *lab, ts *testscript.TestScript) (string, func()) {
		return l.tlsStranger(ts, time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 9))
	},
	// An HTTP proxy that wants a password.
	"proxy": func(_ *lab, ts *testscript.TestScript) (string, func()) {
		addr, stop := server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusProxyAuthRequired)
		}))
		ts.Setenv("HTTPS_PROXY", "http"+addr[len("ws"):])
		return "wss://relay.test", stop
	},
}

func (l *lab) startStranger(ts *testscript.TestScript, args []string) {
	start := strangers[args[0]]
	if start == nil {
		ts.Fatalf("there is no stranger %q", args[0])
	}
	addr, stop := start(l, ts)
	l.strangers = append(l.strangers, stop)
	ts.Setenv("BRIDGE_RELAY", addr)
}

func quiet(h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = discard
	return srv
}

func server(h http.Handler) (string, func()) {
	srv := quiet(h)
	srv.Start()
	return "ws://" + srv.Listener.Addr().String(), srv.Close
}

func listener(ts *testscript.TestScript, serve func(net.Conn)) (string, func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	}()
	return "ws://" + ln.Addr().String(), func() { ln.Close(); <-ended }
}

// tlsStranger serves a certificate of its own that ends at a time and is for an
// address.
func (l *lab) tlsStranger(ts *testscript.TestScript, until time.Time, ip net.IP) (string, func()) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{ip}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	ts.Check(err)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	ts.Check(os.WriteFile(filepath.Join(l.work, "ca.pem"), pemOf(cert), 0o600))
	srv := quiet(http.NotFoundHandler())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	return "wss://" + srv.Listener.Addr().String(), srv.Close
}

func pemOf(cert tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
}
