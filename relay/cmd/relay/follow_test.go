package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/sas"
)

// A key that is taken out is refused at once, and its open bridge lives.
func TestReplaceAPIKeys(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_RELOAD": "10ms"})
	r.device("pump-7")
	open, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	file := os.Getenv("RELAY_API_KEYS")
	newKey := auth.NewAPIKey()
	hash, err := auth.HashKey(newKey)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, "night-shift "+hash+"\nci "+mustHash(t)+"\n")
	r.log.wait(t, "level=INFO msg=reloaded setting=RELAY_API_KEYS keys=2\n")
	if _, err := r.dial(); !refused(err, wire.Unauthenticated) {
		t.Errorf("the old key: %v", err)
	}
	r.key = newKey
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.echo(s)
	r.echo(open)

	// Who may write a line may be anybody.
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	r.log.wait(t, "level=ERROR .*setting=RELAY_API_KEYS .*mode 0666 lets others")
	if s, err := r.dial(); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	r.log.wait(t, "level=INFO .*in the file again.* setting=RELAY_API_KEYS\n")
}

func mustHash(t *testing.T) string {
	t.Helper()
	hash, err := auth.HashKey(auth.NewAPIKey())
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// selfSigned is a certificate for 127.0.0.1 and a name, and its key, in PEM.
func selfSigned(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// shown is the name in the certificate that a new handshake gets.
func (r *relayRun) shown() string {
	r.t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "wss://"), r.dialer().TLS)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].DNSNames[0]
}

// New handshakes get the new certificate, once its key is there; the bridge over the old
// one goes on.
func TestReplaceCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, ca := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.pem")
	oldCert, oldKey := selfSigned(t, "old.example")
	newCert, newKey := selfSigned(t, "new.example")
	put(t, ca, oldCert+newCert)
	put(t, certFile, oldCert)
	put(t, keyFile, oldKey)
	r := start(t, map[string]string{"RELAY_TLS_CERT": certFile, "RELAY_TLS_KEY": keyFile, "RELAY_RELOAD": "10ms", "ca": ca})
	r.device("pump-7")
	open, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	put(t, certFile, newCert)
	r.log.wait(t, `level=ERROR .*setting="RELAY_TLS_CERT, RELAY_TLS_KEY" reason="tls: private key does not match public key"`)
	if got := r.shown(); got != "old.example" {
		t.Errorf("half way: %s", got)
	}
	put(t, keyFile, newKey)
	r.log.wait(t, `level=INFO msg=reloaded setting="RELAY_TLS_CERT, RELAY_TLS_KEY" names="new.example 127.0.0.1" not_after=20`)
	if got := r.shown(); got != "new.example" {
		t.Errorf("in the end: %s", got)
	}
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.echo(s)
	r.echo(open)
}

// A certificate and its key that come one after the other, between two looks and the
// next, are no fault; half of them stays one.
func TestHalfAPair(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	oldCert, oldKey := selfSigned(t, "old.example")
	newCert, newKey := selfSigned(t, "new.example")
	put(t, certFile, oldCert)
	put(t, keyFile, oldKey)
	var p prepared
	if err := p.followCertificate(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	var log lines
	look := func() string {
		before := len(log.String())
		p.watched[0].look(slog.New(slog.NewTextHandler(&log, nil)), false)
		return log.String()[before:]
	}
	name := func() string {
		c, err := p.tls.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.DNSNames[0]
	}
	put(t, certFile, newCert)
	if got := look(); got != "" || name() != "old.example" {
		t.Errorf("the first look at a half: %q, %s", got, name())
	}
	put(t, keyFile, newKey)
	if got := look(); !strings.Contains(got, "msg=reloaded") || name() != "new.example" {
		t.Errorf("the whole: %q, %s", got, name())
	}
	put(t, keyFile, oldKey)
	if got := look() + look() + look(); strings.Count(got, "does not match") != 1 || name() != "new.example" {
		t.Errorf("a half that stays: %q, %s", got, name())
	}
}

// Garbage in each file: what was in force stays, the log says so once and quotes nothing.
func TestGarbage(t *testing.T) {
	dir := t.TempDir()
	cert, key, ca := certificate(t)
	keys := filepath.Join(dir, "token-keys")
	put(t, keys, token.NewKey().Reveal())
	r := start(t, map[string]string{"RELAY_TLS_CERT": cert, "RELAY_TLS_KEY": key, "ca": ca, "RELAY_TOKEN_KEYS_FILE": keys, "RELAY_RELOAD": "10ms"})
	r.device("pump-7")
	open, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for path, setting := range map[string]string{
		cert: "RELAY_TLS_CERT, RELAY_TLS_KEY", key: "RELAY_TLS_CERT, RELAY_TLS_KEY", keys: "RELAY_TOKEN_KEYS_FILE", os.Getenv("RELAY_API_KEYS"): "RELAY_API_KEYS",
	} {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r.log.Reset()
		put(t, path, garbage+"\n"+garbage)
		r.log.wait(t, `level=ERROR msg="not reloaded; what was in force stays" setting="?`+setting)
		s, err := r.dial()
		if err != nil {
			t.Fatalf("with garbage in %s: %v", path, err)
		}
		r.echo(s)
		s.Close()
		r.echo(open)
		raise(t, syscall.SIGHUP)
		r.log.wait(t, `(?s)level=ERROR .*level=ERROR`)
		put(t, path, string(good))
		r.log.wait(t, `level=INFO msg="what is in force is in the file again" setting="?`+setting)
		if text := r.log.String(); strings.Contains(text, garbage) {
			t.Errorf("quoted:\n%s", text)
		}
	}
	raise(t, syscall.SIGHUP)
	r.log.wait(t, `level=INFO msg="reloaded: nothing changed"`)
}

// The hub's key is rotated as the portal does it, and a requester does not notice. What
// would need another signaler is refused.
func TestReplaceHubKey(t *testing.T) {
	const newKey = "bmV3LWh1Yi1rZXktbmV3LWh1Yi1rZXktbmV3LWh1Yi0="
	cert, key, ca := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	var known atomic.Pointer[[]string] // the hub's two keys
	known.Store(&[]string{hubKey, newKey})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tok, err := sas.ParseToken(r.Header.Get("Authorization"))
		for _, k := range *known.Load() {
			if err == nil && tok.Verify(k) {
				json.NewEncoder(w).Encode(map[string]any{"status": 409, "payload": map[string]string{"code": "busy", "message": "as " + tok.Policy}})
				return
			}
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "hub")
	put(t, file, serviceOf+"\n")
	url, log := hubRelay(t, map[string]string{
		"RELAY_SIGNALER": "method", "RELAY_HUB_CONNECTION_STRING_FILE": file, "RELAY_RELOAD": "10ms",
		"RELAY_HUB_HTTPS_ADDR": srv.Listener.Addr().String(), "RELAY_HUB_CA_FILE": ca,
	})
	toldAs := func(policy string) {
		t.Helper()
		if p := ask(t, url); p.Code != wire.DeviceRefused || !strings.Contains(p.Detail, "busy: as "+policy) {
			t.Errorf("got %+v, want one told as %s", p, policy)
		}
	}
	toldAs("service")
	for _, tt := range []struct{ text, want string }{
		{strings.Replace(serviceOf, "hub.example", "other.example", 1), "names another hub than hub.example.com; restart to use it"},
		{serviceOf + ";GatewayHostName=gateway.example", "names another gateway than before, or none; restart to use it"},
		{aDevicesKey, "is a device's"},
		{strings.Replace(serviceOf, "=service", "=registryRead", 1), "has no ServiceConnect"},
		{strings.Replace(serviceOf, hubKey, hubKey[:9], 1), "not base64"},
		{garbage, "a part without ="},
	} {
		put(t, file, tt.text)
		log.wait(t, `level=ERROR .*setting=RELAY_HUB_CONNECTION_STRING_FILE .*`+tt.want)
		toldAs("service")
	}
	put(t, file, strings.NewReplacer("=service", "=bridges", hubKey, newKey).Replace(serviceOf))
	log.wait(t, `level=INFO msg=reloaded setting=RELAY_HUB_CONNECTION_STRING_FILE hub=hub.example.com policy=bridges`)
	known.Store(&[]string{newKey})
	toldAs("bridges")
	for _, secret := range []string{newKey, garbage} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

// The signaler with a lasting connection is told of a new key.
func TestHubKeyRenews(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub")
	put(t, file, serviceOf)
	for via, want := range map[string]bool{viaC2D: true, viaAuto: true, viaMethod: false} {
		setenv(t, map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": via, "RELAY_HUB_CONNECTION_STRING_FILE": file})
		c, p, err := load(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		s, err := openSignals(c, p.hub, p.log)
		if err != nil {
			t.Fatal(err)
		}
		s.close()
		if got := p.hub.renew != nil; got != want {
			t.Errorf("%s: told of a new key: %t", via, got)
		}
	}
	told := 0
	h := &hub{name: "hub.example.com", renew: func() { told++ }}
	(&hubSettings{ConnectionString: serviceOf}).fromConnectionString(h, func(string, string, ...any) { t.Error("a fault") })
	var p prepared
	p.followHub(h, serviceOf)
	put(t, file, strings.Replace(serviceOf, "=service", "=bridges", 1))
	p.watched[0].look(slog.New(slog.DiscardHandler), false)
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	tok, err := h.credential.Token(context.Background())
	if got, perr := sas.ParseToken(tok.Text); err != nil || perr != nil || got.Policy != "bridges" {
		t.Errorf("got %v, %v, %v", got, err, perr)
	}
}

// SIGHUP goes on to be heeded while the node drains.
func TestReloadWhileDraining(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_RELOAD": "0"})
	r.device("pump-7")
	open, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	raise(t, syscall.SIGTERM)
	r.log.wait(t, "msg=draining bridges=1")
	raise(t, syscall.SIGHUP)
	r.log.wait(t, `msg="reloaded: nothing changed"`)
	r.echo(open)
	open.Close()
	r.wait()
}
