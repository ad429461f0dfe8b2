package auth_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
)

const (
	tenant      = "11111111-2222-3333-4444-555555555555"
	otherTenant = "99999999-2222-3333-4444-555555555555"
	entraIssuer = "https://login.microsoftonline.com/" + tenant + "/v2.0"
	entraV1     = "https://sts.windows.net/" + tenant + "/"
	audience    = "api://bridge"
)

func newOIDC(t testing.TB, p *authtest.Provider, change func(*auth.OIDCConfig)) *auth.OIDC {
	t.Helper()
	cfg := auth.OIDCConfig{Issuer: p.Issuer, Audiences: []string{audience, "bridge-2"}, Client: p.Client()}
	if change != nil {
		change(&cfg)
	}
	o, err := auth.NewOIDC(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// with is a good token's claims, changed; nil takes one away.
func with(changes ...any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": entraIssuer, "aud": audience, "sub": "subject-1", "oid": "object-1", "tid": tenant, "preferred_username": "ada@example.com",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for i := 0; i < len(changes); i += 2 {
		c[changes[i].(string)] = changes[i+1]
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func bearer(token string) *http.Request { return request("Authorization", "Bearer "+token) }

// unsigned makes a token whose header says what it likes.
func unsigned(header string, claims map[string]any, signature string) string {
	b, _ := json.Marshal(claims)
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(header)) + "." + e.EncodeToString(b) + "." + e.EncodeToString([]byte(signature))
}

func TestOIDC(t *testing.T) {
	p := authtest.New(entraIssuer)
	rsaKey, weak := authtest.NewRSAKey("rsa", 2048), authtest.NewRSAKey("weak", 1024)
	second := authtest.NewKey("key-2")
	p.SetKeys(authtest.NewKey("key-1"), rsaKey, weak, second)
	key := p.Key()
	stranger := authtest.NewKey(key.ID)
	o := newOIDC(t, p, nil)
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	// The public key is known to everybody: as an HMAC's secret, it proves nothing.
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	hmacKey := authtest.Key{ID: "rsa", Alg: jose.HS256, Secret: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
	for name, tt := range map[string]struct {
		token string
		want  string // the principal
		err   error
		says  string // in the error
	}{
		"good":                    {p.Sign(with()), "oidc:ada@example.com", nil, ""},
		"good, RS256":             {authtest.SignWith(rsaKey, nil, with()), "oidc:ada@example.com", nil, ""},
		"good, another key":       {authtest.SignWith(second, nil, with()), "oidc:ada@example.com", nil, ""},
		"good, an access token":   {authtest.SignWith(key, map[string]any{"typ": "at+jwt"}, with()), "oidc:ada@example.com", nil, ""},
		"good, no typ":            {authtest.SignWith(key, map[string]any{"typ": nil}, with()), "oidc:ada@example.com", nil, ""},
		"several audiences":       {p.Sign(with("aud", []string{"else", "bridge-2"})), "oidc:ada@example.com", nil, ""},
		"version 1":               {p.Sign(with("iss", entraV1, "preferred_username", nil, "upn", "ada@example.com")), "oidc:ada@example.com", nil, ""},
		"application":             {p.Sign(with("preferred_username", nil, "sub", "object-1", "azp", "app-1")), "oidc:app:app-1", nil, ""},
		"application by idtyp":    {p.Sign(with("preferred_username", nil, "idtyp", "app", "appid", "app-1")), "oidc:app:app-1", nil, ""},
		"person without a name":   {p.Sign(with("preferred_username", nil, "azp", "app-1")), "oidc:sub:object-1", nil, ""},
		"subject only":            {p.Sign(with("preferred_username", nil, "oid", nil)), "oidc:sub:subject-1", nil, ""},
		"no not-before":           {p.Sign(with("nbf", nil)), "oidc:ada@example.com", nil, ""},
		"fraction of a second":    {p.Sign(with("exp", float64(at(time.Hour))+0.5)), "oidc:ada@example.com", nil, ""},
		"expired":                 {p.Sign(with("exp", at(-time.Hour))), "", auth.ErrExpired, ""},
		"not yet":                 {p.Sign(with("nbf", at(time.Hour))), "", auth.ErrNotYet, ""},
		"never expires":           {p.Sign(with("exp", nil)), "", auth.ErrBadCredentials, "never expires"},
		"expires in words":        {p.Sign(with("exp", "tomorrow")), "", auth.ErrBadCredentials, "exp is no time"},
		"expires beyond time":     {p.Sign(with("exp", 1e300)), "", auth.ErrBadCredentials, "exp is no time"},
		"expires at null":         {p.Sign(with("exp", 0)), "", auth.ErrBadCredentials, "exp is no time"},
		"not before in words":     {p.Sign(with("nbf", "now")), "", auth.ErrBadCredentials, "nbf is no time"},
		"wrong key":               {authtest.SignWith(stranger, nil, with()), "", auth.ErrBadCredentials, "signature"},
		"key of another kind":     {authtest.SignWith(authtest.Key{ID: "rsa", Alg: key.Alg, Secret: key.Secret}, nil, with()), "", auth.ErrBadCredentials, "signature"},
		"weak key":                {authtest.SignWith(weak, nil, with()), "", auth.ErrBadCredentials, "a key that the issuer does not have"},
		"unknown key":             {authtest.SignWith(authtest.NewKey("key-9"), nil, with()), "", auth.ErrBadCredentials, "a key that the issuer does not have"},
		"missing kid":             {authtest.SignWith(key, map[string]any{"kid": nil}, with()), "", auth.ErrBadCredentials, "kid"},
		"wrong audience":          {p.Sign(with("aud", "https://graph.microsoft.com")), "", auth.ErrBadCredentials, `"https://graph.microsoft.com"`},
		"no audience":             {p.Sign(with("aud", nil)), "", auth.ErrBadCredentials, "audience"},
		"part of an audience":     {p.Sign(with("aud", "api://bridg")), "", auth.ErrBadCredentials, "audience"},
		"wrong issuer":            {p.Sign(with("iss", "https://login.example.com")), "", auth.ErrBadCredentials, `"https://login.example.com"`},
		"issuer with a slash":     {p.Sign(with("iss", entraIssuer+"/")), "", auth.ErrBadCredentials, "issuer"},
		"no issuer":               {p.Sign(with("iss", nil)), "", auth.ErrBadCredentials, "issuer"},
		"issuers, several":        {p.Sign(with("iss", []string{entraIssuer})), "", auth.ErrBadCredentials, "issuer"},
		"other tenant":            {p.Sign(with("iss", strings.ReplaceAll(entraIssuer, tenant, otherTenant))), "", auth.ErrBadCredentials, otherTenant},
		"other tenant, version 1": {p.Sign(with("iss", strings.ReplaceAll(entraV1, tenant, otherTenant))), "", auth.ErrBadCredentials, otherTenant},
		"tid of another tenant":   {p.Sign(with("tid", otherTenant)), "", auth.ErrBadCredentials, otherTenant},
		"tids, several":           {p.Sign(with("tid", []string{tenant})), "", auth.ErrBadCredentials, "tenant"},
		"alg none":                {unsigned(`{"alg":"none","kid":"key-1"}`, with(), ""), "", auth.ErrBadCredentials, "RS256 or ES256"},
		"alg None":                {unsigned(`{"alg":"None","kid":"key-1"}`, with(), ""), "", auth.ErrBadCredentials, "RS256 or ES256"},
		"HS256 by the public key": {authtest.SignWith(hmacKey, nil, with()), "", auth.ErrBadCredentials, "RS256 or ES256"},
		"another algorithm":       {authtest.SignWith(authtest.Key{ID: "rsa", Alg: jose.PS256, Secret: rsaKey.Secret}, nil, with()), "", auth.ErrBadCredentials, "RS256 or ES256"},
		"no alg":                  {unsigned(`{"kid":"key-1"}`, with(), "x"), "", auth.ErrBadCredentials, ""},
		"its own key":             {authtest.SignWith(stranger, map[string]any{"jwk": jose.JSONWebKey{Key: stranger.Public(), KeyID: key.ID}}, with()), "", auth.ErrBadCredentials, ""},
		"another kind of JWT":     {authtest.SignWith(key, map[string]any{"typ": "logout+jwt"}, with()), "", auth.ErrBadCredentials, "typ"},
		"critical extension":      {authtest.SignWith(key, map[string]any{"crit": []string{"x"}, "x": 1}, with()), "", auth.ErrBadCredentials, ""},
		"no signature":            {cutSignature(p.Sign(with())), "", auth.ErrBadCredentials, ""},
		"changed claims":          {swapClaims(p.Sign(with()), with("preferred_username", "root")), "", auth.ErrBadCredentials, "signature"},
		"huge":                    {p.Sign(with("groups", make([]string, 6000))), "", auth.ErrBadCredentials, "more than 12288 bytes"},
		"garbage":                 {"eyJ9.e30.AAAA", "", auth.ErrBadCredentials, ""},
		"no claims":               {authtest.SignWith(key, nil, nil), "", auth.ErrBadCredentials, ""},
		"no name at all":          {p.Sign(with("preferred_username", nil, "oid", nil, "sub", nil)), "", auth.ErrBadCredentials, "names nobody"},
		"name with a line end":    {p.Sign(with("preferred_username", "ada\nroot")), "", auth.ErrBadCredentials, "does not print"},
		"name that hides":         {p.Sign(with("preferred_username", "ada\u202e")), "", auth.ErrBadCredentials, "does not print"},
		"long name":               {p.Sign(with("preferred_username", strings.Repeat("a", 201))), "", auth.ErrBadCredentials, "200 bytes"},
		"name like a subject":     {p.Sign(with("preferred_username", "sub:object-2")), "", auth.ErrBadCredentials, "something else"},
		"name like an app":        {p.Sign(with("preferred_username", "app:app-1")), "", auth.ErrBadCredentials, "something else"},
		"API key":                 {opsKey, "", auth.ErrNoCredentials, ""},
		"API key with dots":       {"SG.abcdefghijklmnop.qrstuvwxyz0123456789", "", auth.ErrNoCredentials, ""},
		"five parts, encrypted":   {"eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d", "", auth.ErrNoCredentials, ""},
		"empty":                   {"", "", auth.ErrNoCredentials, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := o.Authenticate(bearer(tt.token))
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%v, want %v with %q", err, tt.err, tt.says)
			}
			if err != nil {
				if got != nil {
					t.Errorf("principal %q with %v", got.Name, err)
				}
				if tt.token != "" && strings.Contains(err.Error(), tt.token) {
					t.Error("the error quotes the token")
				}
				return
			}
			if got.Name != tt.want || got.Method != auth.MethodOIDC || got.Expires.Sub(now) < 59*time.Minute {
				t.Errorf("%+v, want %s", got, tt.want)
			}
			if err := got.Allow("pump-7", "ssh"); !errors.Is(err, auth.ErrForbidden) || !strings.Contains(err.Error(), "no rule of this relay is for this principal") {
				t.Errorf("without a policy: %v", err)
			}
		})
	}
}

func cutSignature(token string) string { return token[:strings.LastIndexByte(token, '.')+1] }

func swapClaims(token string, claims map[string]any) string {
	parts := strings.Split(token, ".")
	b, _ := json.Marshal(claims)
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(b) + "." + parts[2]
}

func TestOIDCClaims(t *testing.T) {
	p := authtest.New(entraIssuer)
	o := newOIDC(t, p, func(c *auth.OIDCConfig) { c.NameClaim = "oid" })
	got, err := o.Authenticate(bearer(p.Sign(with("roles", []string{"Bridge.Operator"}, "groups", []string{"g1", "g2"}, "scp", "a b  c",
		"level", 7, "admin", true, "realm_access", map[string]any{"roles": []string{"x"}}, "mixed", []any{"a", map[string]any{}, nil, 1},
		"_claim_names", map[string]string{"groups": "src1"}, "_claim_sources", map[string]any{"src1": map[string]string{"endpoint": "https://graph.example.com"}}))))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "oidc:object-1" {
		t.Errorf("name %q", got.Name)
	}
	for name, want := range map[string][]string{
		"roles": {"Bridge.Operator"}, "groups": {"g1", "g2"}, "scp": {"a", "b", "c"}, "tid": {tenant}, "iss": {entraIssuer}, "level": {"7"}, "admin": {"true"},
		"realm_access": nil, "mixed": {"a", "1"}, "exp": nil, "_claim_sources": nil, "preferred_username": {"ada@example.com"},
	} {
		if !slices.Equal(got.Claims[name], want) {
			t.Errorf("%s: %q, want %q", name, got.Claims[name], want)
		}
	}
	if _, err := o.Authenticate(bearer(p.Sign(with("oid", nil)))); !errors.Is(err, auth.ErrBadCredentials) || !strings.Contains(err.Error(), `"oid"`) {
		t.Errorf("without the claim that names: %v", err)
	}
}

// TestOIDCSkew is to the second: 60 s either way, and not one more.
func TestOIDCSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authtest.New(entraIssuer)
		o := newOIDC(t, p, nil)
		start := time.Now()
		token := p.Sign(with("nbf", start.Add(2*time.Minute).Unix(), "exp", start.Add(10*time.Minute).Unix()))
		for _, step := range []struct {
			at   time.Duration
			want error
		}{
			{time.Minute - 1, auth.ErrNotYet}, {time.Minute, nil}, {11*time.Minute - 1, nil}, {11 * time.Minute, auth.ErrExpired},
		} {
			time.Sleep(step.at - time.Since(start))
			if _, err := o.Authenticate(bearer(token)); !errors.Is(err, step.want) {
				t.Errorf("after %v: %v, want %v", step.at, err, step.want)
			}
		}
	})
}

// TestOIDCRotation: a key that is new is found, one that is gone ends within an hour, and
// strangers do not make the relay ask more than once in ten seconds.
func TestOIDCRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authtest.New(entraIssuer)
		o := newOIDC(t, p, nil)
		check := func(k authtest.Key, want error, fetches int) {
			t.Helper()
			if _, err := o.Authenticate(bearer(authtest.SignWith(k, nil, with()))); !errors.Is(err, want) {
				t.Fatalf("%s: %v, want %v", k.ID, err, want)
			}
			if got := p.Fetches(); got != fetches {
				t.Fatalf("%s: keys asked for %d times, want %d", k.ID, got, fetches)
			}
		}
		first, second := p.Key(), authtest.NewKey("key-2")
		check(first, nil, 1)
		check(first, nil, 1)
		p.SetKeys(second)
		check(second, auth.ErrBadCredentials, 1) // asked a moment ago
		check(first, nil, 1)
		time.Sleep(10 * time.Second)
		check(second, nil, 2)
		check(first, auth.ErrBadCredentials, 2)
		for range 100 {
			check(authtest.NewKey("junk"), auth.ErrBadCredentials, 2)
		}
		time.Sleep(10 * time.Second)
		check(authtest.NewKey("junk"), auth.ErrBadCredentials, 3)
		check(authtest.NewKey("junk"), auth.ErrBadCredentials, 3)

		p.SetKeys(authtest.NewKey("key-3"))
		time.Sleep(time.Hour - 1)
		check(second, nil, 3)
		time.Sleep(time.Nanosecond)
		check(second, auth.ErrBadCredentials, 4) // an hour old: asked for anew
	})
}

// TestOIDCOutage: a relay starts without its issuer, and cached keys go on for a day.
func TestOIDCOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authtest.New(entraIssuer)
		p.SetDown(true)
		o := newOIDC(t, p, nil)
		check := func(k authtest.Key, want error) {
			t.Helper()
			_, err := o.Authenticate(bearer(authtest.SignWith(k, nil, with())))
			if !errors.Is(err, want) {
				t.Fatalf("%s: %v, want %v", k.ID, err, want)
			}
			if errors.Is(err, auth.ErrUnchecked) && (errors.Is(err, auth.ErrBadCredentials) || !strings.Contains(err.Error(), "connection refused")) {
				t.Fatalf("%s: %v", k.ID, err)
			}
		}
		key := p.Key()
		check(key, auth.ErrUnchecked)
		p.SetDown(false)
		check(key, auth.ErrUnchecked) // asked a moment ago
		time.Sleep(5 * time.Second)
		check(key, nil)
		p.SetDown(true)
		time.Sleep(23 * time.Hour)
		check(key, nil)
		check(authtest.NewKey("key-2"), auth.ErrUnchecked) // it may be the next one
		time.Sleep(time.Hour)
		check(key, auth.ErrUnchecked)
		p.SetDown(false)
		time.Sleep(5 * time.Second)
		check(key, nil)
	})
}

// hung answers when it is told to.
type hung struct {
	http.RoundTripper
	release chan struct{}
}

func (h hung) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-h.release:
		return h.RoundTripper.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestOIDCManyWait: all who come at once cost one request, and whoever leaves does not end
// it for the others.
func TestOIDCManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authtest.New(entraIssuer)
		release := make(chan struct{})
		o := newOIDC(t, p, func(c *auth.OIDCConfig) { c.Client = &http.Client{Transport: hung{p.Client().Transport, release}} })
		r := bearer(p.Sign(with()))
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { // this one asks, and leaves
			if _, err := o.Authenticate(r.WithContext(ctx)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		all.Go(func() { // this one waits, and leaves
			if _, err := o.Authenticate(r.WithContext(ctx)); !errors.Is(err, auth.ErrUnchecked) {
				t.Error(err)
			}
		})
		for range 50 {
			all.Go(func() {
				if _, err := o.Authenticate(r); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		all.Wait()
		if n := p.Fetches(); n != 1 {
			t.Errorf("keys asked for %d times", n)
		}
	})
}

// TestOIDCSilence: an issuer that takes connections and says nothing costs 5 s.
func TestOIDCSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authtest.New(entraIssuer)
		o := newOIDC(t, p, func(c *auth.OIDCConfig) { c.Client = &http.Client{Transport: hung{release: make(chan struct{})}} })
		start := time.Now()
		if _, err := o.Authenticate(bearer(p.Sign(with()))); !errors.Is(err, auth.ErrUnchecked) || !strings.Contains(err.Error(), "no answer within 5s") {
			t.Error(err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestOIDCBadKeySets(t *testing.T) {
	good := authtest.NewKey("key-1")
	jwk, _ := json.Marshal(jose.JSONWebKey{Key: good.Public(), KeyID: good.ID})
	private, _ := json.Marshal(jose.JSONWebKey{Key: good.Secret, KeyID: good.ID})
	for name, tt := range map[string]struct {
		jwks string
		want error
	}{
		"beside unknown kinds":    {`{"keys":[{"kty":"OKP","crv":"X9"},{"kty":"new"},7,` + string(jwk) + `]}`, nil},
		"HTML":                    {"<html>", auth.ErrUnchecked},
		"none":                    {`{"keys":[]}`, auth.ErrUnchecked},
		"null":                    {"null", auth.ErrUnchecked},
		"private":                 {`{"keys":[` + string(private) + `]}`, auth.ErrUnchecked},
		"symmetric":               {`{"keys":[{"kty":"oct","kid":"key-1","k":"c2VjcmV0"}]}`, auth.ErrUnchecked},
		"for encryption":          {`{"keys":[` + strings.Replace(string(jwk), "{", `{"use":"enc",`, 1) + `]}`, auth.ErrUnchecked},
		"for another algorithm":   {`{"keys":[` + strings.Replace(string(jwk), "{", `{"alg":"ES384",`, 1) + `]}`, auth.ErrBadCredentials},
		"beyond any size":         {`{"keys":[` + strings.Repeat(" ", 1<<20) + string(jwk) + `]}`, auth.ErrUnchecked},
		"more keys than any has":  {`{"keys":[` + strings.Repeat(string(jwk)+",", 100) + string(jwk) + `]}`, auth.ErrUnchecked},
		"two keys of one name":    {`{"keys":[` + string(mustJWK(authtest.NewKey("key-1"))) + "," + string(jwk) + `]}`, nil},
		"the name of another key": {`{"keys":[` + string(mustJWK(authtest.NewKey("key-1"))) + `]}`, auth.ErrBadCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			p := authtest.New(entraIssuer)
			p.SetJWKS(tt.jwks)
			if _, err := newOIDC(t, p, nil).Authenticate(bearer(authtest.SignWith(good, nil, with()))); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func mustJWK(k authtest.Key) []byte {
	b, err := json.Marshal(jose.JSONWebKey{Key: k.Public(), KeyID: k.ID})
	if err != nil {
		panic(err)
	}
	return b
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestOIDCStaysOnTLS: neither a redirect nor the discovery leads to where keys could be
// changed on the way, nor to another issuer's.
func TestOIDCStaysOnTLS(t *testing.T) {
	p := authtest.New(entraIssuer)
	var asked []string
	for name, discovery := range map[string]func() *http.Response{
		"redirect": func() *http.Response {
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"http://login.example.com/x"}}, Body: http.NoBody}
		},
		"jwks_uri":      func() *http.Response { return discoveryOf(entraIssuer, "http://login.example.com/keys") },
		"jwks_uri none": func() *http.Response { return discoveryOf(entraIssuer, "") },
		"other issuer": func() *http.Response {
			return discoveryOf(strings.ReplaceAll(entraIssuer, tenant, otherTenant), entraIssuer+"/keys")
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOIDC(t, p, func(c *auth.OIDCConfig) {
				c.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					asked = append(asked, r.URL.String())
					resp := discovery()
					resp.Request = r
					return resp, nil
				})}
			})
			if _, err := o.Authenticate(bearer(p.Sign(with()))); !errors.Is(err, auth.ErrUnchecked) {
				t.Error(err)
			}
		})
	}
	for _, u := range asked {
		if !strings.HasPrefix(u, entraIssuer+"/.well-known/") {
			t.Errorf("asked %s", u)
		}
	}
}

func discoveryOf(issuer, jwks string) *http.Response {
	b, _ := json.Marshal(map[string]string{"issuer": issuer, "jwks_uri": jwks})
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: readCloser{strings.NewReader(string(b))}}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestOIDCConfigFaults(t *testing.T) {
	for issuer, want := range map[string]string{
		"":                          "Issuer: is missing",
		"login.example.com":         "Issuer: is no URL",
		"http://login.example.com":  "Issuer: \"http://login.example.com\" is not https",
		"https://me@id.example.com": "has a user",
		"https://login.microsoftonline.com/common/v2.0":                `tenant "common"`,
		"https://login.microsoftonline.com/organizations/v2.0":         `tenant "organizations"`,
		"https://login.microsoftonline.com/contoso.onmicrosoft/v2.0":   "by its ID",
		"https://login.microsoftonline.com/" + tenant:                  "is not https://login.microsoftonline.com/TENANT-ID/v2.0",
		"https://id.example.com":                                       "",
		"https://login.partner.microsoftonline.cn/" + tenant + "/v2.0": "",
		"http://127.0.0.1:5556/dex":                                    "",
		"http://localhost:8080/realms/x":                               "",
	} {
		_, err := auth.NewOIDC(auth.OIDCConfig{Issuer: issuer, Audiences: []string{"a"}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", issuer, err, want)
		}
	}
	err := auth.OIDCConfig{Issuer: "x", Algorithms: []string{"HS256", "none", "RS256"}}.Validate()
	for _, want := range []string{"Issuer: ", "Audiences: are missing", `Algorithms: "HS256"`, `Algorithms: "none"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
