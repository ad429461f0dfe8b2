package entra_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/entra"
)

// tokens is a TokenCredential that counts.
type tokens struct {
	life time.Duration
	asks atomic.Int64
	slow time.Duration
	err  atomic.Pointer[error]
}

func (c *tokens) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n := c.asks.Add(1)
	if len(o.Scopes) != 1 || o.Scopes[0] != "https://iothubs.azure.net/.default" {
		return azcore.AccessToken{}, fmt.Errorf("scopes %q", o.Scopes)
	}
	t := time.NewTimer(c.slow)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return azcore.AccessToken{}, ctx.Err()
	}
	if err := c.err.Load(); err != nil {
		return azcore.AccessToken{}, *err
	}
	return azcore.AccessToken{Token: fmt.Sprint("jwt", n), ExpiresOn: time.Now().Add(c.life)}, nil
}

func (c *tokens) fail(err error) {
	if err == nil {
		c.err.Store(nil)
		return
	}
	c.err.Store(&err)
}

func want(t *testing.T, s credential.Source, text string) credential.Token {
	t.Helper()
	tok, err := s.Token(t.Context())
	if err != nil || tok.Text != text || tok.Kind != credential.Bearer {
		t.Fatalf("got %q, %v, want %q", tok.Text, err, text)
	}
	return tok
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tokens{life: time.Hour}
		s := entra.FromTokenCredential(c)
		first := want(t, s, "Bearer jwt1")
		if got := time.Until(first.Expires); got != time.Hour {
			t.Errorf("expires in %v", got)
		}
		time.Sleep(40*time.Minute - time.Second)
		want(t, s, "Bearer jwt1")
		c.fail(errors.New("the directory is down"))
		time.Sleep(time.Second)
		want(t, s, "Bearer jwt1") // asks, and lives with the answer
		for range 100 {
			want(t, s, "Bearer jwt1")
		}
		if n := c.asks.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(30 * time.Second)
		c.slow = time.Hour
		start := time.Now()
		want(t, s, "Bearer jwt1")
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("it took %v to take the old one", got)
		}
		c.slow = 0
		time.Sleep(19 * time.Minute)
		want(t, s, "Bearer jwt1") // to its end, or almost
		time.Sleep(time.Until(first.Expires) - 10*time.Second)
		if _, err := s.Token(t.Context()); err == nil || err.Error() != "entra: credential: the directory is down" {
			t.Errorf("got %v", err)
		}
		c.fail(nil)
		asked := c.asks.Load()
		want(t, s, fmt.Sprint("Bearer jwt", asked+1))
	})
}

// A hundred callers make one request; a slow renewal holds up one of them.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tokens{life: time.Hour, slow: time.Second}
		s := entra.FromTokenCredential(c)
		all := func(text string) {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { want(t, s, text) })
			}
			wg.Wait()
		}
		all("Bearer jwt1")
		time.Sleep(45 * time.Minute)
		var slow atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				start := time.Now()
				if _, err := s.Token(t.Context()); err != nil {
					t.Error(err)
				}
				if time.Since(start) > 0 {
					slow.Add(1)
				}
			})
		}
		wg.Wait()
		if c.asks.Load() != 2 || slow.Load() != 1 {
			t.Errorf("asked %d times, %d were slow", c.asks.Load(), slow.Load())
		}
		want(t, s, "Bearer jwt2")
	})
}

// Whoever asks may leave: the others ask again, and hear no cause that is not theirs.
func TestAskerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tokens{life: time.Hour, slow: time.Second}
		s := entra.FromTokenCredential(c)
		left := errors.New("requester left")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { _, err := s.Token(ctx); done <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { want(t, s, "Bearer jwt2") })
		}
		waiter, cancelWaiter := context.WithCancelCause(t.Context())
		wg.Go(func() {
			if _, err := s.Token(waiter); !errors.Is(err, left) {
				t.Errorf("a waiter that left: %v", err)
			}
		})
		synctest.Wait()
		cancelWaiter(left)
		synctest.Wait()
		cancel(left)
		if err := <-done; !errors.Is(err, left) {
			t.Errorf("got %v", err)
		}
		wg.Wait()
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tokens{life: time.Hour}
		s := entra.FromTokenCredential(c)
		forget := s.(interface{ Forget(credential.Token) }).Forget
		first := want(t, s, "Bearer jwt1")
		forget(first) // too new: it would be asked for at each call
		want(t, s, "Bearer jwt1")
		time.Sleep(time.Minute)
		forget(credential.Token{Text: "another"})
		want(t, s, "Bearer jwt1")
		forget(first)
		want(t, s, "Bearer jwt2")
	})
}

// A machine whose clock is ahead gets tokens that are over.
func TestExpired(t *testing.T) {
	s := entra.FromTokenCredential(&tokens{life: -time.Minute})
	if _, err := s.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Error(err)
	}
}

// A directory answers as Entra ID does.
type directory struct {
	*httptest.Server
	mu     sync.Mutex // guards both
	status int
	forms  []string
}

func newDirectory(t *testing.T) *directory {
	d := &directory{status: 200}
	d.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
			tenant := d.URL + "/contoso.example"
			json.NewEncoder(w).Encode(map[string]string{"issuer": tenant, "authorization_endpoint": tenant + "/authorize", "token_endpoint": tenant + "/token"})
			return
		}
		r.ParseForm()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.forms = append(d.forms, r.Form.Encode())
		if d.status != 200 {
			w.WriteHeader(d.status)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x","error_codes":[7000215]}`)
			return
		}
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"jwt-%d"}`, len(d.forms))
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *directory) says(status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = status
}

// Azidentity itself, with each kind that asks a directory.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	cert, token := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "token")
	writeCertificate(t, cert, time.Now().Add(time.Hour))
	os.WriteFile(token, []byte("assertion"), 0o600)
	for _, tt := range []struct {
		cfg  entra.Config
		form string
	}{
		{entra.Config{Kind: entra.ClientSecret, ClientSecret: "hunter2-secret"}, "client_secret=hunter2-secret"},
		{entra.Config{Kind: entra.ClientCertificate, CertificateFile: cert}, "client_assertion="},
		{entra.Config{Kind: entra.WorkloadIdentity, TokenFile: token}, "client_assertion=assertion"},
	} {
		t.Run(string(tt.cfg.Kind), func(t *testing.T) {
			d := newDirectory(t)
			tt.cfg.TenantID, tt.cfg.ClientID, tt.cfg.AuthorityHost, tt.cfg.HTTPClient = "contoso.example", "client", d.URL, d.Client()
			s, err := entra.New(tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			d.says(401)
			_, err = s.Token(t.Context())
			var e *entra.Error
			if !errors.As(err, &e) || e.Unavailable() || !strings.HasPrefix(err.Error(), "entra: "+string(tt.cfg.Kind)+": answered 401 invalid_client: AADSTS7000215: Invalid client secret provided.;") {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\r\n") || strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("got %q", err)
			}
			d.says(200)
			if got := want(t, s, "Bearer jwt-2"); time.Until(got.Expires) < 50*time.Minute {
				t.Errorf("expires in %v", time.Until(got.Expires))
			}
			d.mu.Lock()
			if !strings.Contains(d.forms[1], tt.form) || !strings.Contains(d.forms[1], "scope=https%3A%2F%2Fiothubs.azure.net%2F.default") {
				t.Errorf("asked with %s", d.forms[1])
			}
			d.mu.Unlock()
		})
	}
	t.Run("not there", func(t *testing.T) {
		d := newDirectory(t)
		s, err := entra.New(entra.Config{Kind: entra.ClientSecret, TenantID: "contoso.example", ClientID: "client", ClientSecret: "x", AuthorityHost: d.URL, HTTPClient: d.Client()})
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func writeCertificate(t *testing.T, file string, until time.Time) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	like := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, like, like, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Everything that is wrong is said at once, field by field.
func TestValidate(t *testing.T) {
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	old, junk := filepath.Join(dir, "old.pem"), filepath.Join(dir, "junk.pem")
	writeCertificate(t, old, time.Now().Add(-time.Hour))
	os.WriteFile(junk, []byte("junk"), 0o600)
	for _, tt := range []struct {
		cfg  entra.Config
		want []string
	}{
		{entra.Config{}, []string{`Kind: "" is none of`}},
		{entra.Config{Kind: "default"}, []string{`Kind: "default" is none of`}},
		{entra.Config{Kind: entra.ManagedIdentity}, nil},
		{entra.Config{Kind: entra.ManagedIdentity, ClientID: "x"}, nil},
		{entra.Config{Kind: entra.AzureCLI, TenantID: "contoso.example"}, nil},
		{entra.Config{Kind: entra.ManagedIdentity, TenantID: "x", ClientSecret: "hunter2"}, []string{"TenantID: is set, but managed-identity", "ClientSecret: is set, but"}},
		{entra.Config{Kind: entra.ClientSecret}, []string{"TenantID: is missing", "ClientID: is missing", "ClientSecret: is missing"}},
		{entra.Config{Kind: entra.ClientSecret, TenantID: "a b", ClientID: "c", ClientSecret: "hunter2", AuthorityHost: "http://x"}, []string{`TenantID: "a b"`, `AuthorityHost: "http://x"`}},
		{entra.Config{Kind: entra.ClientCertificate, TenantID: "t", ClientID: "c"}, []string{"CertificateFile: is missing"}},
		{entra.Config{Kind: entra.ClientCertificate, TenantID: "t", ClientID: "c", CertificateFile: filepath.Join(dir, "none")}, []string{"CertificateFile: open "}},
		{entra.Config{Kind: entra.ClientCertificate, TenantID: "t", ClientID: "c", CertificateFile: junk, CertificatePassword: "hunter2"}, []string{"CertificateFile: " + junk}},
		{entra.Config{Kind: entra.ClientCertificate, TenantID: "t", ClientID: "c", CertificateFile: old}, []string{"CertificateFile: " + old + ": the certificate expired on"}},
		{entra.Config{Kind: entra.WorkloadIdentity}, []string{"TenantID: is missing", "ClientID: is missing", "TokenFile: is missing"}},
		{entra.Config{Kind: entra.WorkloadIdentity, TenantID: "t", ClientID: "c", TokenFile: filepath.Join(dir, "none")}, []string{"TokenFile: stat "}},
	} {
		err := tt.cfg.Validate()
		var lines []string
		if err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if len(lines) != len(tt.want) {
			t.Errorf("%v: got %v, want %q", tt.cfg, err, tt.want)
			continue
		}
		for i := range lines {
			if !strings.HasPrefix(lines[i], tt.want[i]) || strings.Contains(lines[i], "hunter2") {
				t.Errorf("%v: got %q, want %q", tt.cfg, lines[i], tt.want[i])
			}
		}
		if _, newErr := entra.New(tt.cfg); (newErr == nil) != (err == nil) {
			t.Errorf("%v: New says %v", tt.cfg, newErr)
		}
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	c := entra.Config{Kind: entra.ClientSecret, TenantID: "t", ClientSecret: "hunter2", CertificatePassword: "hunter2"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "p", &c)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "p", &c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%t"} {
		fmt.Fprintf(&log, verb, c)
		fmt.Fprintf(&log, verb, &c)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error(log.String())
	}
	var hex strings.Builder
	fmt.Fprintf(&hex, "%x", c)
	if strings.Contains(hex.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Error(hex.String())
	}
}
