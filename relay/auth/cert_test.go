package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/auth"
)

func TestCerts(t *testing.T) {
	uri, err := url.Parse("spiffe://example.com/ops")
	if err != nil {
		t.Fatal(err)
	}
	subject := pkix.Name{CommonName: "ops-7", Organization: []string{"Example"}, OrganizationalUnit: []string{"plant", "ops"}}
	for name, tt := range map[string]struct {
		cert x509.Certificate
		want string
		err  error
	}{
		"common name":                   {x509.Certificate{Subject: subject}, "cert:ops-7", nil},
		"DNS":                           {x509.Certificate{Subject: subject, DNSNames: []string{"a.example.com", "b.example.com"}}, "cert:a.example.com", nil},
		"e-mail before DNS":             {x509.Certificate{Subject: subject, DNSNames: []string{"a.example.com"}, EmailAddresses: []string{"ada@example.com"}}, "cert:ada@example.com", nil},
		"URI before all":                {x509.Certificate{Subject: subject, EmailAddresses: []string{"ada@example.com"}, URIs: []*url.URL{uri}}, "cert:spiffe://example.com/ops", nil},
		"common name like a URI":        {x509.Certificate{Subject: pkix.Name{CommonName: "spiffe://example.com/ops"}}, "", auth.ErrBadCredentials},
		"common name like an e-mail":    {x509.Certificate{Subject: pkix.Name{CommonName: "ada@example.com"}}, "", auth.ErrBadCredentials},
		"common name that does nothing": {x509.Certificate{Subject: pkix.Name{CommonName: "a@b"}, DNSNames: []string{"a.example.com"}}, "cert:a.example.com", nil},
		"no name":                       {x509.Certificate{}, "", auth.ErrBadCredentials},
		"name with a line end":          {x509.Certificate{Subject: pkix.Name{CommonName: "a\nb"}}, "", auth.ErrBadCredentials},
		"expired since the handshake":   {x509.Certificate{Subject: subject, NotAfter: now.Add(-time.Second)}, "", auth.ErrExpired},
		"not yet":                       {x509.Certificate{Subject: subject, NotBefore: now.Add(time.Second)}, "", auth.ErrNotYet},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.cert.NotAfter.IsZero() {
				tt.cert.NotAfter = now.Add(time.Hour)
			}
			r := request()
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{&tt.cert}, VerifiedChains: [][]*x509.Certificate{{&tt.cert}}}
			p, err := auth.CertsAt(r, now)
			if !errors.Is(err, tt.err) || (p == nil) != (err != nil) {
				t.Fatalf("%v, %v; want %v", p, err, tt.err)
			}
			if p == nil {
				return
			}
			if p.Name != tt.want || p.Method != auth.MethodCert || !p.Expires.Equal(tt.cert.NotAfter) || len(p.Grants) > 0 {
				t.Errorf("%+v", p)
			}
			if tt.cert.Subject.CommonName == "ops-7" && (!slices.Equal(p.Claims["ou"], []string{"plant", "ops"}) || !slices.Equal(p.Claims["o"], []string{"Example"})) {
				t.Errorf("claims %v", p.Claims)
			}
			if !slices.Equal(p.Claims["dns"], tt.cert.DNSNames) {
				t.Errorf("claims %v", p.Claims)
			}
		})
	}
}

// TestCertsTrustNothingElse: a certificate that nobody verified is none, nor is one that a
// proxy's header speaks of.
func TestCertsTrustNothingElse(t *testing.T) {
	for _, header := range []string{"X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Client-Cert", "Client-Cert"} {
		r := request(header, "Subject=\"CN=ops\"")
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "ops"}, NotAfter: time.Now().Add(time.Hour)}}}
		if p, err := (auth.Certs{}).Authenticate(r); !errors.Is(err, auth.ErrNoCredentials) || p != nil {
			t.Errorf("%v, %v", p, err)
		}
	}
	if _, err := (auth.Certs{}).Authenticate(request()); !errors.Is(err, auth.ErrNoCredentials) {
		t.Error(err)
	}
}

func TestNoKeyIsCalledLikeOthers(t *testing.T) {
	for _, name := range []string{"oidc:ada@example.com", "cert:ops", "oidc:"} {
		if _, err := auth.ParseKeys(name + " " + hash(1)); err == nil || !strings.Contains(err.Error(), "is taken") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
