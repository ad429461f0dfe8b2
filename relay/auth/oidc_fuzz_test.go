package auth_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
)

// FuzzBearer: whatever comes, a token that nobody signed makes no principal, no error
// quotes it, and a good API key works beside an identity provider.
func FuzzBearer(f *testing.F) {
	p := authtest.New(entraIssuer)
	o := newOIDC(f, p, nil)
	keys := golden(f)
	both := auth.Any(o, keys)
	good := p.Sign(with())
	if _, err := o.Authenticate(bearer(good)); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"Bearer " + opsKey, "Bearer " + unsigned(`{"alg":"none"}`, with(), ""), "Bearer " + unsigned(`{"alg":"ES256","kid":"key-1"}`, with(), strings.Repeat("x", 64)),
		"bearer eyJ.e30.", "Bearer ", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA", "Basic eyJ.a.b", "Bearer ..", `Bearer {"payload":"e30","signatures":[]}`,
		"Bearer " + cutSignature(good), "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImtleS0xIiwiYjY0IjpmYWxzZSwiY3JpdCI6WyJiNjQiXX0.e30.AAAA",
		"Bearer \n\n\n\n..",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		r := request("Authorization", value)
		got, err := both.Authenticate(r)
		if got != nil && got.Method != auth.MethodAPIKey {
			t.Fatalf("%q is %v", value, got)
		}
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v", got, err)
		}
		if _, token, ok := strings.Cut(value, " "); ok && len(token) > 40 && err != nil && strings.Contains(err.Error(), token) {
			t.Fatalf("the error quotes %q: %v", token, err)
		}
		if _, oerr := o.Authenticate(r); errors.Is(oerr, auth.ErrNoCredentials) {
			alone, kerr := keys.Authenticate(r)
			if (alone == nil) != (got == nil) || fmt.Sprint(kerr) != fmt.Sprint(err) {
				t.Fatalf("keys alone: %v, %v; with OIDC: %v, %v", alone, kerr, got, err)
			}
		}
	})
}

// FuzzClaims: claims that the issuer did sign, whatever they are, end in a principal with a
// name that can be shown, or in an error.
func FuzzClaims(f *testing.F) {
	p := authtest.New(entraIssuer)
	o := newOIDC(f, p, nil)
	for _, s := range []string{`"a"`, `["a",1]`, `{"a":{}}`, `null`, `1e400`, `"\u0000"`, `-0`, `"app:x"`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, exp string) {
		claims := with("preferred_username", json.RawMessage(name), "exp", json.RawMessage(exp), "nonce", rand.Text())
		if _, err := json.Marshal(claims); err != nil {
			return
		}
		got, err := o.Authenticate(bearer(p.Sign(claims)))
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v", got, err)
		}
		if got != nil && (!strings.HasPrefix(got.Name, "oidc:") || len(got.Name) > 210 || strings.ContainsAny(got.Name, "\x00\n\r\x1b")) {
			t.Fatalf("name %q", got.Name)
		}
	})
}
