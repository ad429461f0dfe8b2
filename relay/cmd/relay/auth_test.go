package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

// refusal dials with cfg on top of what r knows, and returns what the relay says.
func (r *relayRun) refusal(change func(*client.Config)) *client.Error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := client.Config{URL: r.url, Dialer: r.dialer()}
	change(&cfg)
	s, err := client.Dial(ctx, cfg, client.Request{Device: "pump-7", Targets: []string{"echo"}})
	if err == nil {
		s.Close()
		r.t.Fatal("it has a bridge")
	}
	var e *client.Error
	if !errors.As(err, &e) {
		r.t.Fatalf("%v is no refusal", err)
	}
	return e
}

func bearer(token string) func(*client.Config) {
	return func(c *client.Config) { c.Header = http.Header{"Authorization": {"Bearer " + token}} }
}

// Tokens and API keys side by side; tokens that are not good; an issuer that is away when
// the relay starts.
func TestServeOIDC(t *testing.T) {
	idp, stop := authtest.Start()
	defer stop()
	idp.SetDown(true)
	r := start(t, map[string]string{
		"RELAY_PLAIN": "true", "RELAY_AUTH": "keys,oidc", "RELAY_OIDC_ISSUER": idp.Issuer, "RELAY_OIDC_AUDIENCE": "api://bridge,other",
	})
	r.device("pump-7")
	token := func(aud string, life time.Duration) string {
		return idp.Sign(map[string]any{"iss": idp.Issuer, "aud": aud, "sub": "1", "preferred_username": "ada@example.com", "exp": time.Now().Add(life).Unix()})
	}
	good := token("api://bridge", time.Hour)
	away := r.refusal(bearer(good))
	if away.Code != wire.AuthUnavailable || away.Status != http.StatusServiceUnavailable || !away.Temporary() || away.RetryAfter == 0 {
		t.Errorf("without the issuer: %+v", away)
	}
	r.log.wait(t, `msg="bridge refused".* reason=auth_unavailable .*credentials cannot be checked now: keys of http://127.0.0.1:\d+: 503`)
	s, err := r.dial() // keys need no issuer
	if err != nil {
		t.Fatal(err)
	}
	r.echo(s)
	s.Close()

	idp.SetDown(false)
	deadline := time.Now().Add(patience)
	e := r.refusal(bearer(good))
	for ; e.Code == wire.AuthUnavailable && time.Now().Before(deadline); e = r.refusal(bearer(good)) { // the relay asks again after a while
		time.Sleep(50 * time.Millisecond)
	}
	if e.Code != wire.Forbidden || e.Detail != `"oidc:ada@example.com" may reach nothing: no rule of this relay is for this principal` {
		t.Errorf("a good token: %+v", e)
	}
	for name, bad := range map[string]string{"expired": token("api://bridge", -time.Hour), "for another": token("api://else", time.Hour), "changed": good[:len(good)-4] + "AAAA"} {
		if e := r.refusal(bearer(bad)); e.Code != wire.Unauthenticated || strings.Contains(e.Detail, "else") {
			t.Errorf("%s: %+v", name, e)
		}
	}
	r.log.wait(t, `reason=unauthenticated .*it is for audience [^ ]*api://else`)
	for _, secret := range []string{good, good[strings.LastIndexByte(good, '.')+1:], r.key} {
		if strings.Contains(r.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// An authorityOf makes client certificates.
type authorityOf struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authorityOf {
	t.Helper()
	a := &authorityOf{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue adds a certificate to what a client has.
func (a *authorityOf) issue(name string, usage x509.ExtKeyUsage) func(*client.Config) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return func(c *client.Config) { // whatever authorities the relay names
		c.Dialer.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
		}
	}
}

// Client certificates of one authority, which is replaced; keys beside them; no word of
// a certificate of another's.
func TestServeClientCertificates(t *testing.T) {
	cert, key, ca := certificate(t)
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	clients := filepath.Join(t.TempDir(), "clients.pem")
	put(t, clients, first.pem)
	r := start(t, map[string]string{
		"RELAY_TLS_CERT": cert, "RELAY_TLS_KEY": key, "ca": ca, "RELAY_RELOAD": "10ms", "RELAY_AUTH": "cert,keys", "RELAY_CLIENT_CA": clients,
	})
	r.device("pump-7")
	ops, night := first.issue("ops-7", x509.ExtKeyUsageClientAuth), second.issue("night", x509.ExtKeyUsageClientAuth)
	forbidden := func(name string, as func(*client.Config)) {
		t.Helper()
		if e := r.refusal(as); e.Code != wire.Forbidden || !strings.HasPrefix(e.Detail, `"cert:`+name+`" may reach nothing`) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	stranger := func(name string, as func(*client.Config)) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cfg := client.Config{URL: r.url, APIKey: r.key, Dialer: r.dialer()}
		as(&cfg)
		if _, err := client.Dial(ctx, cfg, client.Request{Device: "pump-7", Targets: []string{"echo"}}); !errors.As(err, new(*client.UnreachableError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	forbidden("ops-7", ops)
	stranger("another authority", night)
	stranger("a server's certificate", first.issue("ops-8", x509.ExtKeyUsageServerAuth))
	if e := r.refusal(func(*client.Config) {}); e.Code != wire.Unauthenticated {
		t.Errorf("no certificate: %+v", e)
	}
	for name, as := range map[string]func(*client.Config){"a key alone": func(*client.Config) {}, "a key beside a certificate": ops} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cfg := client.Config{URL: r.url, APIKey: r.key, Dialer: r.dialer()}
		as(&cfg)
		s, err := client.Dial(ctx, cfg, client.Request{Device: "pump-7", Targets: []string{"echo"}})
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.echo(s)
		s.Close()
	}
	if e := r.refusal(func(c *client.Config) { ops(c); c.APIKey = "wsb_wrongCAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw5" }); e.Code != wire.Unauthenticated {
		t.Errorf("a wrong key beside a certificate: %+v", e)
	}
	put(t, clients, second.pem)
	r.log.wait(t, `msg=reloaded setting=RELAY_CLIENT_CA authorities="?CN=second`)
	forbidden("night", night)
	stranger("the authority from before", ops)
}
