package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"slices"
	"strings"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/ws"
)

// RELAY_AUTH.
const (
	authKeys = "keys"
	authOIDC = "oidc"
	authCert = "cert"
	authNone = "none"
)

// oidcSettings are RELAY_OIDC_*.
type oidcSettings struct {
	Issuer     string   `envconfig:"ISSUER" desc:"whose tokens are good, as they have it in iss" example:"https://login.microsoftonline.com/TENANT-ID/v2.0"`
	Audience   []string `envconfig:"AUDIENCE" desc:"what tokens have to be for (aud), one of these" example:"api://bridge"`
	NameClaim  string   `envconfig:"NAME_CLAIM" desc:"claim that names the principal; default: preferred_username, or what is next to it" example:"oid"`
	Algorithms []string `envconfig:"ALGORITHMS" default:"RS256,ES256" desc:"what tokens may be signed with: RS, PS or ES with 256, 384 or 512, and EdDSA"`
	CAFile     string   `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's, for the issuer"`
}

// prepareAuth makes who is let in out of RELAY_AUTH. Tokens go first, because whatever is
// no token is a key to API keys; a certificate goes last, because a client sends it with
// everything, and a key or token because it was told to.
func (c *config) prepareAuth(p *prepared, bad complain) {
	for i, kind := range c.Auth {
		switch {
		case !slices.Contains([]string{authKeys, authOIDC, authCert, authNone}, kind):
			bad("AUTH", "%q is not one of %s, %s, %s and %s", kind, authKeys, authOIDC, authCert, authNone)
			return
		case slices.Contains(c.Auth[:i], kind):
			bad("AUTH", "has %s twice", kind)
		case kind == authNone && len(c.Auth) > 1:
			bad("AUTH", "has %s beside others, which lets everybody in; choose", authNone)
		}
	}
	if len(c.Auth) == 0 {
		bad("AUTH", "is empty, which would let nobody in; for example RELAY_AUTH=keys, or RELAY_AUTH=none where everybody may do everything")
	}
	var all []auth.Authenticator
	if c.uses(authOIDC, bad, "OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_NAME_CLAIM", "OIDC_ALGORITHMS", "OIDC_CA_FILE") {
		if o := c.OIDC.prepare(bad); o != nil {
			all = append(all, o)
		}
	}
	if slices.Contains(c.Auth, authKeys) {
		if c.APIKeys == "" {
			bad("API_KEYS", "is missing; make a key with relay hash-key, or set RELAY_AUTH=none where everybody may do everything")
		} else if keys, err := p.followAPIKeys(c.APIKeys); err != nil {
			bad("API_KEYS", "%w", err)
		} else {
			all = append(all, keys)
		}
	}
	if c.uses(authCert, bad, "CLIENT_CA") {
		switch {
		case c.ClientCA == "":
			bad("CLIENT_CA", "is missing; RELAY_AUTH=%s needs it", authCert)
		case c.Plain:
			bad("PLAIN", "is true, and RELAY_AUTH=%s needs TLS here: a proxy in front keeps the client's certificate to itself", authCert)
		case p.tls != nil: // else that is the fault
			if err := p.followClientCA(c.ClientCA); err != nil {
				bad("CLIENT_CA", "%w", err)
			}
		}
		all = append(all, auth.Certs{})
	}
	if slices.Contains(c.Auth, authNone) {
		all = append(all, auth.AllowAll{})
	}
	p.relay.Auth = auth.Any(all...)
}

// uses says whether RELAY_AUTH has kind. Its settings are of no use otherwise.
func (c *config) uses(kind string, bad complain, names ...string) bool {
	if slices.Contains(c.Auth, kind) {
		return true
	}
	for _, name := range names {
		if _, set := os.LookupEnv("RELAY_" + name); set {
			bad(name, "is of no use without %s in RELAY_AUTH, as RELAY_AUTH=keys,%s", kind, kind)
		}
	}
	return false
}

// prepare returns nil for what is faulty.
func (s *oidcSettings) prepare(bad complain) *auth.OIDC {
	cfg := auth.OIDCConfig{Issuer: s.Issuer, Audiences: s.Audience, NameClaim: s.NameClaim, Algorithms: s.Algorithms}
	roots, err := ws.LoadRoots(s.CAFile)
	if err != nil {
		bad("OIDC_CA_FILE", "%w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	cfg.Client = &http.Client{Transport: transport}
	for _, err := range unjoin(cfg.Validate()) {
		field, problem, _ := strings.Cut(err.Error(), ": ")
		bad(map[string]string{"Issuer": "OIDC_ISSUER", "Audiences": "OIDC_AUDIENCE", "Algorithms": "OIDC_ALGORITHMS"}[field], "%s", problem)
	}
	o, err := auth.NewOIDC(cfg)
	if err != nil {
		return nil // said already
	}
	return o
}
