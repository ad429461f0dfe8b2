package e2e_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A corporate network: the relay has a certificate of a private CA, and the only
// way to it, for the device and for the requester, is a proxy that wants a
// password.
func TestProxyAndPrivateCA(t *testing.T) {
	ca, cert, key := privateCA(t, "relay.test")
	w := newTown(t, "echo")
	w.agent.Kill()
	w.relay.Kill()
	proxy := startProxy(t, map[string]string{"relay.test:443": w.publicAddr}, "user", "pass%word")
	w.relayEnv = append(without(w.relayEnv, "RELAY_PLAIN"), "RELAY_TLS_CERT="+cert, "RELAY_TLS_KEY="+key, "RELAY_PUBLIC_URL=wss://relay.test")
	through := "HTTPS_PROXY=http://user:pass%25word@" + proxy.addr
	w.agentEnv = append(without(w.agentEnv, "AGENT_RELAY_HOSTS"), "AGENT_RELAY_HOSTS=relay.test", "AGENT_CA_FILE="+ca, through)
	w.bridgeEnv = append(without(w.bridgeEnv, "BRIDGE_RELAY"), "BRIDGE_RELAY=wss://relay.test", "BRIDGE_CA_FILE="+ca, through)
	w.startRelay()
	w.startAgent()
	_, local := w.tunnel()
	echoes(t, local)
	if n := proxy.tunnels.Load(); n != 2 {
		t.Errorf("%d tunnels through the proxy, want the requester's and the device's", n)
	}

	// A device's no has to find the same way.
	refused := w.bridge("raw", device, "nowhere")
	refused.Exits(7)

	// Without the CA, and without the password, it says which of the two.
	for _, tt := range []struct{ replace, with, want string }{
		{"BRIDGE_CA_FILE", "BRIDGE_ALLOW_PLAIN=false", "certificate"},
		{"HTTPS_PROXY", "HTTPS_PROXY=http://user:wrong@" + proxy.addr, "407"},
	} {
		env := append(without(w.bridgeEnv, tt.replace), tt.with)
		p := start(t, env, "bridge", "stdio", device, "echo")
		p.Exits(3)
		if out := p.String(); !strings.Contains(out, tt.want) || strings.Contains(out, "pass") {
			t.Errorf("got %q, want %s in it", out, tt.want)
		}
	}
}

func without(env []string, name string) (out []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return out
}

// proxy is an HTTP proxy that opens tunnels to where hosts says.
type proxy struct {
	addr    string
	hosts   map[string]string
	auth    string
	tunnels atomic.Int64
}

func startProxy(t *testing.T, hosts map[string]string, user, password string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	p := &proxy{addr: ln.Addr().String(), hosts: hosts, auth: req.Header.Get("Authorization")}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() {
				defer c.Close()
				p.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if req.Header.Get("Proxy-Authorization") != p.auth {
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
		return
	}
	addr, ok := p.hosts[req.Host]
	if req.Method != http.MethodConnect || !ok {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	far, err := net.Dial("tcp", addr)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer far.Close()
	p.tunnels.Add(1)
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(far, in)
		far.Close()
	}()
	io.Copy(c, far)
}

// privateCA makes a CA and a certificate of it for host, as PEM files.
func privateCA(t *testing.T, host string) (caFile, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := template(1, "a private CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := template(2, host)
	leaf.DNSNames = []string{host}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER)
}
