package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// CertPrefix is in front of the name of who comes with a client certificate. No API key
// can have such a name.
const CertPrefix = "cert:"

// Certs authenticates by the client certificate of the request's own TLS connection,
// which net/http's server has verified: see the package comment. The principal has no
// Grants.
type Certs struct{}

// Authenticate returns whose certificate r came with. The error is ErrNoCredentials,
// ErrBadCredentials, ErrExpired or ErrNotYet.
func (Certs) Authenticate(r *http.Request) (*Principal, error) { return certs(r, time.Now()) }

func certs(r *http.Request, now time.Time) (*Principal, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil, ErrNoCredentials
	}
	c := r.TLS.VerifiedChains[0][0]
	name, err := certName(c)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the client certificate %w", ErrBadCredentials, err)
	case now.After(c.NotAfter): // the handshake may be long ago
		return nil, fmt.Errorf("client certificate of %q: %w", name, ErrExpired)
	case now.Before(c.NotBefore):
		return nil, fmt.Errorf("client certificate of %q: %w", name, ErrNotYet)
	}
	return &Principal{Name: CertPrefix + name, Method: MethodCert, Expires: c.NotAfter, Claims: certClaims(c)}, nil
}

// certName takes the most specific name that there is.
func certName(c *x509.Certificate) (string, error) {
	name, cn := "", c.Subject.CommonName
	switch {
	case len(c.URIs) > 0:
		name = c.URIs[0].String()
	case len(c.EmailAddresses) > 0:
		name = c.EmailAddresses[0]
	case len(c.DNSNames) > 0:
		name = c.DNSNames[0]
	case strings.ContainsAny(cn, ":@"):
		// Authorities that check the other names may copy this one from the request.
		return "", errors.New("has a common name like a URI or an e-mail address; these belong into the subject alternative names")
	default:
		name = cn
	}
	if err := checkPersonName(name); err != nil {
		return "", fmt.Errorf("has a name that %w", err)
	}
	return name, nil
}

func certClaims(c *x509.Certificate) map[string][]string {
	claims := make(map[string][]string)
	add := func(name string, values ...string) {
		for _, v := range values {
			if v != "" {
				claims[name] = append(claims[name], v)
			}
		}
	}
	for _, u := range c.URIs {
		add("uri", u.String())
	}
	add("email", c.EmailAddresses...)
	add("dns", c.DNSNames...)
	add("cn", c.Subject.CommonName)
	add("o", c.Subject.Organization...)
	add("ou", c.Subject.OrganizationalUnit...)
	add("issuer", c.Issuer.String())
	return claims
}
