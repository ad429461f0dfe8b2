// Package authtest is a small OpenID Connect provider for tests: discovery, keys that
// rotate, signed tokens, and the device flow with everything that can be answered there.
package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A Key signs tokens.
type Key struct {
	ID     string
	Alg    jose.SignatureAlgorithm
	Secret any // what go-jose signs with
}

// NewKey makes a key for ES256.
func NewKey(id string) Key {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return Key{id, jose.ES256, k}
}

// NewRSAKey makes a key for RS256.
func NewRSAKey(id string, bits int) Key {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return Key{id, jose.RS256, k}
}

// Public is the public half of k.
func (k Key) Public() crypto.PublicKey { return k.Secret.(crypto.Signer).Public() }

// A Provider is one issuer. It is the handler of everything below its address.
type Provider struct {
	Issuer string
	Life   time.Duration // of access tokens

	mu      sync.Mutex // guards all below
	keys    []Key      // the first signs
	jwks    []byte     // instead of the keys, if not nil
	down    bool
	fetches int
	claims  map[string]any // of the tokens that it gives
	pending []string       // what the token endpoint answers before a token
	refuse  string         // what it answers a refresh
	refresh string         // the one refresh token that is good
	issued  []string       // every token that it gave, for tests that look for them
	forms   []url.Values   // what the token endpoint was sent
}

// New makes a provider with one key.
func New(issuer string) *Provider {
	return &Provider{Issuer: issuer, Life: time.Hour, keys: []Key{NewKey("key-1")}}
}

// Start serves a new provider on a loopback address until stop is called.
func Start() (p *Provider, stop func()) {
	p = New("")
	srv := httptest.NewServer(p)
	p.Issuer = srv.URL
	return p, srv.Close
}

// Client reaches the provider, whatever its address, without a network.
func (p *Provider) Client() *http.Client { return &http.Client{Transport: transport{p}} }

type transport struct{ *Provider }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	down := t.down
	t.mu.Unlock()
	if down {
		return nil, fmt.Errorf("dial %s: connection refused", r.URL.Host)
	}
	rec := httptest.NewRecorder()
	t.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// SetDown makes the provider answer 503, or through Client nothing.
func (p *Provider) SetDown(down bool) { p.set(func() { p.down = down }) }

// SetKeys replaces all keys; the first one signs.
func (p *Provider) SetKeys(keys ...Key) { p.set(func() { p.keys, p.jwks = keys, nil }) }

// SetJWKS makes the key set a text of the test's.
func (p *Provider) SetJWKS(text string) { p.set(func() { p.jwks = []byte(text) }) }

// SetClaims are those of the tokens that the device flow gives, besides iss, iat and exp.
func (p *Provider) SetClaims(c map[string]any) { p.set(func() { p.claims = c }) }

// SetPending is what the token endpoint answers, in turn, before it gives a token.
func (p *Provider) SetPending(codes ...string) { p.set(func() { p.pending = codes }) }

// SetRefuse makes refreshing fail with this code, if it is not empty.
func (p *Provider) SetRefuse(code string) { p.set(func() { p.refuse = code }) }

func (p *Provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// Fetches is how often the keys were asked for, also in vain.
func (p *Provider) Fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// Issued is every token that was given.
func (p *Provider) Issued() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.issued)
}

// Forms is what the token endpoint was sent.
func (p *Provider) Forms() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.forms)
}

// Key is the one that signs.
func (p *Provider) Key() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[0]
}

// Sign makes a token of claims with the key that signs.
func (p *Provider) Sign(claims map[string]any) string { return SignWith(p.Key(), nil, claims) }

// SignWith makes a token with any key. Header adds to the header and, with nil, takes
// away.
func SignWith(k Key, header, claims map[string]any) string {
	head := map[string]any{"alg": string(k.Alg), "typ": "JWT"}
	if k.ID != "" {
		head["kid"] = k.ID
	}
	maps.Copy(head, header)
	maps.DeleteFunc(head, func(_ string, v any) bool { return v == nil })
	delete(head, "alg") // go-jose's own
	opts := (&jose.SignerOptions{})
	for name, v := range head {
		opts.WithHeader(jose.HeaderKey(name), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.Alg, Key: k.Secret}, opts)
	if err != nil {
		panic(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		panic(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	base := strings.TrimSuffix(p.Issuer, "/")
	path := r.URL.Path
	if u, err := url.Parse(base); err == nil {
		path = strings.TrimPrefix(path, u.Path)
	}
	if path == "/keys" {
		p.fetches++
	}
	switch {
	case p.down:
		http.Error(w, "maintenance", http.StatusServiceUnavailable)
	case path == "/.well-known/openid-configuration":
		answer(w, http.StatusOK, map[string]any{
			"issuer": p.Issuer, "jwks_uri": base + "/keys", "token_endpoint": base + "/token", "authorization_endpoint": base + "/auth",
			"device_authorization_endpoint": base + "/device", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		})
	case path == "/keys" && p.jwks != nil:
		w.Header().Set("Content-Type", "application/json")
		w.Write(p.jwks)
	case path == "/keys":
		var set jose.JSONWebKeySet
		for _, k := range p.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: k.ID, Use: "sig", Algorithm: string(k.Alg)})
		}
		answer(w, http.StatusOK, set)
	case path == "/device" && r.Method == http.MethodPost:
		answer(w, http.StatusOK, map[string]any{
			"device_code": "device-code-secret", "user_code": "ABCD-EFGH", "verification_uri": base + "/activate", "expires_in": 60, "interval": 1,
		})
	case path == "/token" && r.Method == http.MethodPost:
		p.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

// token is called with mu held.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	p.forms = append(p.forms, r.PostForm)
	switch r.PostForm.Get("grant_type") {
	case "urn:ietf:params:oauth:grant-type:device_code":
		if len(p.pending) > 0 {
			code := p.pending[0]
			p.pending = p.pending[1:]
			refuse(w, code)
			return
		}
	case "refresh_token":
		switch {
		case p.refuse != "":
			refuse(w, p.refuse)
			return
		case r.PostForm.Get("refresh_token") != p.refresh:
			refuse(w, "invalid_grant") // each is good once
			return
		}
	default:
		refuse(w, "unsupported_grant_type")
		return
	}
	now := time.Now()
	c := map[string]any{"iss": p.Issuer, "iat": now.Unix(), "exp": now.Add(p.Life).Unix(), "jti": rand.Text()}
	maps.Copy(c, p.claims)
	access := SignWith(p.keys[0], nil, c)
	p.refresh = "refresh-" + rand.Text()
	p.issued = append(p.issued, access, p.refresh)
	answer(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "refresh_token": p.refresh, "expires_in": int(p.Life / time.Second),
	})
}

func refuse(w http.ResponseWriter, code string) {
	answer(w, http.StatusBadRequest, map[string]any{"error": code, "error_description": "said by the provider: " + code})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
