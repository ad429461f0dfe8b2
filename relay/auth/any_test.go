package auth_test

import (
	"errors"
	"testing"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
)

// TestAny: a bearer goes to those whose kind it is, and whoever says no has the last word.
func TestAny(t *testing.T) {
	p := authtest.New(entraIssuer)
	o := newOIDC(t, p, nil)
	keys := golden(t)
	good, expired := p.Sign(with()), p.Sign(with("exp", 1))
	const a, x = "Authorization", "X-Api-Key"
	for name, tt := range map[string]struct {
		headers []string
		want    string
		err     error
	}{
		"token":                     {[]string{a, "Bearer " + good}, "oidc:ada@example.com", nil},
		"token, lower case":         {[]string{a, "bearer  " + good}, "oidc:ada@example.com", nil},
		"API key":                   {[]string{x, opsKey}, "ops", nil},
		"API key as Bearer":         {[]string{a, "Bearer " + opsKey}, "ops", nil},
		"none":                      {nil, "", auth.ErrNoCredentials},
		"expired token":             {[]string{a, "Bearer " + expired}, "", auth.ErrExpired},
		"expired token, good key":   {[]string{a, "Bearer " + expired, x, opsKey}, "", auth.ErrBadCredentials},
		"good token, good key":      {[]string{a, "Bearer " + good, x, opsKey}, "", auth.ErrBadCredentials},
		"good token, wrong key":     {[]string{a, "Bearer " + good, x, wrongKey}, "", auth.ErrBadCredentials},
		"two tokens":                {[]string{a, "Bearer " + good, a, "Bearer " + expired}, "", auth.ErrBadCredentials},
		"the same token twice":      {[]string{a, "Bearer " + good, a, "Bearer " + good}, "oidc:ada@example.com", nil},
		"token as X-Api-Key":        {[]string{x, good}, "", auth.ErrBadCredentials},
		"token as Basic":            {[]string{a, "Basic " + good}, "", auth.ErrNoCredentials},
		"wrong key":                 {[]string{x, wrongKey}, "", auth.ErrBadCredentials},
		"garbage with dots":         {[]string{a, "Bearer a.b.c"}, "", auth.ErrBadCredentials},
		"token with something more": {[]string{a, "Bearer " + good + " x"}, "", auth.ErrBadCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := auth.Any(o, keys).Authenticate(request(tt.headers...))
			if !errors.Is(err, tt.err) || (got == nil) != (err != nil) || got != nil && got.Name != tt.want {
				t.Errorf("%v, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
	if _, err := auth.Any().Authenticate(request(x, opsKey)); !errors.Is(err, auth.ErrNoCredentials) {
		t.Error(err)
	}
}

// renewing says that principals of one name are gone.
type renewing struct {
	auth.Authenticator
	gone string
}

func (r renewing) Renew(p *auth.Principal) (*auth.Principal, error) {
	if p.Name == r.gone {
		return nil, auth.ErrBadCredentials
	}
	return &auth.Principal{Name: p.Name + "+"}, nil
}

// TestAnyRenews: whoever can say what became of a principal is asked, wherever it stands.
func TestAnyRenews(t *testing.T) {
	c, ok := auth.Any(auth.AllowAll{}, renewing{gone: "a"}, auth.Certs{}, renewing{gone: "b+"}).(interface {
		Renew(*auth.Principal) (*auth.Principal, error)
	})
	if !ok {
		t.Fatal("a chain does not renew")
	}
	for name, want := range map[string]string{"a": "", "b": "", "c": "c++"} {
		p, err := c.Renew(&auth.Principal{Name: name})
		if (p == nil) != (want == "") || (err == nil) == (want == "") || p != nil && p.Name != want {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}
