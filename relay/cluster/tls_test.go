package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/relay/cluster"
)

// An authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate that ends in so long.
func (a *authority) issue(t testing.TB, in time.Duration) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(in),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// identity is a certificate of one authority and trust in another.
func identity(cert tls.Certificate, roots *x509.CertPool) *tls.Config {
	return cluster.MutualTLS(func() (tls.Certificate, *x509.CertPool) { return cert, roots })
}

func selfTLS(t testing.TB) *tls.Config {
	t.Helper()
	c, err := cluster.SelfTLS()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ownerOn serves the node port of an owner through the kernel, and returns its address.
// It answers 410, and counts.
func ownerOn(t testing.TB, set func(*cluster.Config)) (addr string, asked *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int32)
	serve(t, node(t, set), ln, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusGone)
	})
	return ln.Addr().String(), asked
}

func withTLS(c *tls.Config) func(*cluster.Config) {
	return func(cfg *cluster.Config) { cfg.TLS = c }
}

func TestTLSKinds(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	good, foreign, old := ours.issue(t, time.Hour), theirs.issue(t, time.Hour), ours.issue(t, -time.Minute)
	both := ours.pool()
	both.AddCert(theirs.cert)
	mutual := identity(good, ours.pool())
	for _, c := range []struct {
		name        string
		dials, owns *tls.Config
		good        bool
	}{
		{"none", nil, nil, true},
		{"self", selfTLS(t), selfTLS(t), true},
		{"mutual", mutual, mutual, true},
		{"an authority is replaced", identity(foreign, both), identity(good, both), true},
		{"TLS at the dialling node only", selfTLS(t), nil, false},
		{"TLS at the owner only", nil, selfTLS(t), false},
		{"mutual TLS at the dialling node only", mutual, nil, false},
		{"mutual TLS at the owner only", nil, mutual, false},
		{"self against mutual", selfTLS(t), mutual, false},
		{"mutual against self", mutual, selfTLS(t), false},
		{"the dialling node's certificate is foreign", identity(foreign, both), mutual, false},
		{"the owner's certificate is foreign", mutual, identity(foreign, both), false},
		{"the dialling node's certificate has expired", identity(old, ours.pool()), mutual, false},
		{"the owner's certificate has expired", mutual, identity(old, ours.pool()), false},
		{"no certificate at the dialling node", &tls.Config{InsecureSkipVerify: true}, mutual, false},
		{"no authority at the dialling node", identity(good, nil), mutual, false},
		{"no authority at the owner", mutual, identity(good, nil), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, asked := ownerOn(t, withTLS(c.owns))
			n := node(t, func(cfg *cluster.Config) {
				cfg.TLS, cfg.Peers = c.dials, parsePeers(t, addr)
			})
			a, err := n.Ask(t.Context(), addr, accept(t))
			if c.good {
				if err != nil || a.Status != http.StatusGone || asked.Load() != 1 {
					t.Fatal(a, err)
				}
				return
			}
			if !errors.Is(err, cluster.ErrProof) || asked.Load() != 0 {
				t.Fatalf("%v; asked %d times", err, asked.Load())
			}
			if !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "do the nodes have the same token keys, and the same kind of TLS?") {
				t.Errorf("no help: %v", err)
			}
		})
	}
}

func TestMutualTLSRenewed(t *testing.T) {
	ours, later := newAuthority(t, "ours"), newAuthority(t, "later")
	type id struct {
		cert  tls.Certificate
		roots *x509.CertPool
	}
	var now atomic.Pointer[id]
	now.Store(&id{ours.issue(t, -time.Minute), ours.pool()})
	renewed := cluster.MutualTLS(func() (tls.Certificate, *x509.CertPool) { return now.Load().cert, now.Load().roots })
	addr, _ := ownerOn(t, withTLS(renewed))
	n := node(t, func(cfg *cluster.Config) { cfg.TLS, cfg.Peers = renewed, parsePeers(t, addr) })
	ask := func() error { _, err := n.Ask(t.Context(), addr, accept(t)); return err }
	if err := ask(); !errors.Is(err, cluster.ErrProof) {
		t.Errorf("expired: %v", err)
	}
	now.Store(&id{ours.issue(t, time.Hour), ours.pool()})
	if err := ask(); err != nil {
		t.Error(err)
	}
	now.Store(&id{later.issue(t, time.Hour), later.pool()})
	if err := ask(); err != nil {
		t.Error(err)
	}
	now.Store(&id{ours.issue(t, time.Hour), later.pool()})
	if err := ask(); !errors.Is(err, cluster.ErrProof) {
		t.Errorf("an authority that is gone: %v", err)
	}
}

// Who has two TLS connections cannot pass a proof from one to the other; who passes on
// the bytes below TLS may, but reads nothing.
func TestTLSManInTheMiddle(t *testing.T) {
	for _, inside := range []bool{true, false} {
		addr, asked := ownerOn(t, withTLS(selfTLS(t)))
		n := node(t, func(cfg *cluster.Config) {
			cfg.TLS, cfg.Peers = selfTLS(t), parsePeers(t, addr)
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dialler, left := tcpPair(t)
				right, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				if inside {
					left, right = tls.Server(left, selfTLS(t)), tls.Client(right, selfTLS(t))
				}
				var man sync.WaitGroup
				for _, way := range [][2]net.Conn{{left, right}, {right, left}} {
					man.Go(func() {
						io.Copy(way[0], way[1])
						left.Close()
						right.Close()
					})
				}
				t.Cleanup(func() { left.Close(); right.Close(); man.Wait() })
				return dialler, nil
			}
		})
		_, err := n.Ask(t.Context(), addr, accept(t))
		if inside && (!errors.Is(err, cluster.ErrProof) || asked.Load() != 0) {
			t.Errorf("a man with two TLS connections: %v", err)
		}
		if !inside && (err != nil || asked.Load() != 1) {
			t.Errorf("a man who passes on bytes: %v", err)
		}
	}
}

// Without an authority package x509 would take the system's: any certificate of the web.
func TestMutualTLSNoAuthority(t *testing.T) {
	ca := newAuthority(t, "ours")
	err := identity(ca.issue(t, time.Hour), nil).VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.cert}})
	if err == nil || !strings.Contains(err.Error(), "there is no authority") {
		t.Error(err)
	}
}
