package relay_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// A credential is what a requester brings: a header, a certificate, or a query.
type credential struct {
	header http.Header
	chain  []*x509.Certificate
	query  string
}

func bearer(text string) credential {
	return credential{header: http.Header{"Authorization": {"Bearer " + text}}}
}

func apiKey(text string) credential {
	return credential{header: http.Header{http.CanonicalHeaderKey(wire.HeaderAPIKey): {text}}}
}

// askWith is one request as the node's handler gets it, and what it answers. That the hub says
// "offline" means that the requester was let in.
func (n *node) askWith(path, query string, c credential) (status int, code string) {
	n.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/front"+path+"?"+query+"&"+c.query, nil)
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		if path != wire.PathGetSignedURL && path != wire.PathCanI {
			r.Header.Set(name, value)
		}
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	if c.chain != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: c.chain, VerifiedChains: [][]*x509.Certificate{c.chain}}
	}
	w := httptest.NewRecorder()
	n.srv.Handler().ServeHTTP(w, r)
	var body struct {
		Code    string
		Allowed *bool
	}
	json.Unmarshal(w.Body.Bytes(), &body)
	switch {
	case body.Allowed != nil && !*body.Allowed:
		return http.StatusForbidden, string(wire.Forbidden) // which canI says with 200
	case w.Code == http.StatusOK, body.Code == string(wire.DeviceOffline):
		return http.StatusOK, ""
	}
	return w.Code, body.Code
}

// Each way in, with each kind of credential in each state.
func TestEveryCredentialEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		// API keys.
		keys := map[string]string{}
		var file strings.Builder
		for name, options := range map[string]string{"ops": "", "expired": "expires=1999-12-31T00:00:00Z", "notyet": "not-before=2001-01-01T00:00:00Z"} {
			keys[name] = auth.NewAPIKey()
			hash, err := auth.HashKey(keys[name])
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&file, name, hash, options)
		}
		byKey, err := auth.ParseKeys(file.String())
		if err != nil {
			t.Fatal(err)
		}
		// Tokens of an identity provider.
		idp := authtest.New("https://idp.example.com")
		byToken, err := auth.NewOIDC(auth.OIDCConfig{Issuer: idp.Issuer, Audiences: []string{"api://bridge"}, Client: idp.Client()})
		if err != nil {
			t.Fatal(err)
		}
		jwt := func(change map[string]any) map[string]any {
			claims := map[string]any{
				"iss": idp.Issuer, "aud": "api://bridge", "sub": "1", "preferred_username": "ada@example.com",
				"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			}
			for name, value := range change {
				claims[name] = value
			}
			return claims
		}
		// Certificates.
		cert := func(from, to time.Time) credential {
			return credential{chain: []*x509.Certificate{{Subject: pkix.Name{CommonName: "robot"}, NotBefore: from, NotAfter: to}}}
		}
		rules, err := policy.Parse(`
version: 1
rules:
  - {name: everybody, who: [ops, expired, notyet, "oidc:*", "cert:*"], devices: [pump-*], targets: [ssh]}
`)
		if err != nil {
			t.Fatal(err)
		}
		ring := mustRing(t)
		n := startNode(t, ring, nil, func(c *relay.Config) {
			c.Auth = auth.Any(byToken, byKey, auth.Certs{}) // keys take any bearer for one of theirs
			c.Policy = rules
			c.FailuresPerAddress = -1
			c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { return signaler.ErrDeviceOffline })
		})
		defer n.end()

		type state struct {
			name   string
			with   credential
			status int
		}
		unsigned := strings.Split(idp.Sign(jwt(nil)), ".")
		states := []state{
			{"none", credential{}, 401},
			{"key", apiKey(keys["ops"]), 200},
			{"key as bearer", bearer(keys["ops"]), 200},
			{"key, expired", apiKey(keys["expired"]), 401},
			{"key, not yet", apiKey(keys["notyet"]), 401},
			{"key, another", apiKey(auth.NewAPIKey()), 401},
			{"key, cut", apiKey(keys["ops"][:len(keys["ops"])-1]), 401},
			{"key in the query", credential{query: url.Values{"apiKey": {keys["ops"]}, wire.HeaderAPIKey: {keys["ops"]}, "access_token": {keys["ops"]}}.Encode()}, 401},
			{"token", bearer(idp.Sign(jwt(nil))), 200},
			{"token, expired", bearer(idp.Sign(jwt(map[string]any{"exp": now.Add(-time.Hour).Unix()}))), 401},
			{"token, not yet", bearer(idp.Sign(jwt(map[string]any{"nbf": now.Add(time.Hour).Unix()}))), 401},
			{"token, wrong key", bearer(authtest.SignWith(authtest.NewKey(idp.Key().ID), nil, jwt(nil))), 401},
			{"token, wrong audience", bearer(idp.Sign(jwt(map[string]any{"aud": "api://other"}))), 401},
			{"token, wrong issuer", bearer(idp.Sign(jwt(map[string]any{"iss": "https://other.example.com"}))), 401},
			{"token, alg none", bearer("eyJhbGciOiJub25lIn0." + unsigned[1] + "."), 401},
			{"token, no signature", bearer(unsigned[0] + "." + unsigned[1] + "."), 401},
			{"token as a key", apiKey(idp.Sign(jwt(nil))), 401},
			{"token in the query", credential{query: url.Values{"access_token": {idp.Sign(jwt(nil))}}.Encode()}, 401},
			{"certificate", cert(now.Add(-time.Hour), now.Add(time.Hour)), 200},
			{"certificate, expired", cert(now.Add(-2*time.Hour), now.Add(-time.Hour)), 401},
			{"certificate, not yet", cert(now.Add(time.Hour), now.Add(2*time.Hour)), 401},
			{"bad key beside a good certificate", credential{header: apiKey(auth.NewAPIKey()).header, chain: cert(now.Add(-time.Hour), now.Add(time.Hour)).chain}, 401},
		}
		met := 0
		for _, path := range []string{wire.PathConnect, wire.PathGetSignedURL, wire.PathCanI} {
			extra := ""
			if path == wire.PathGetSignedURL {
				extra = "&expirationUtc=" + in1h
			}
			for _, s := range states {
				for what, query := range map[string]string{"": "deviceId=pump-7&target=ssh", "other device": "deviceId=valve-1&target=ssh", "other target": "deviceId=pump-7&target=web"} {
					want := s.status
					if want == 200 && what != "" {
						want = 403
					}
					met++
					if got, code := n.askWith(path, query+extra, s.with); got != want {
						t.Errorf("%s, %s, %s: %d %s, want %d", path, s.name, what, got, code, want)
					}
				}
			}
		}
		if met != 3*len(states)*3 {
			t.Errorf("%d requests", met)
		}

		// A signed URL is good for what it says, where it is one, and for nothing else.
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/front"+wire.PathGetSignedURL+"?deviceId=pump-7&target=ssh&expirationUtc="+in1h, nil)
		r.Header.Set(wire.HeaderAPIKey, keys["ops"])
		n.srv.Handler().ServeHTTP(w, r)
		signed, err := url.Parse(w.Body.String())
		if err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %v", w.Code, err)
		}
		changed := func(name, value string) string {
			q := signed.Query()
			if q.Del(name); value != "" {
				q.Set(name, value)
			}
			return q.Encode()
		}
		for name, tt := range map[string]struct {
			path, query string
			with        credential
			status      int
		}{
			"good":                     {wire.PathConnectSigned, signed.RawQuery, credential{}, 200},
			"good beside a bad key":    {wire.PathConnectSigned, signed.RawQuery, apiKey(auth.NewAPIKey()), 200},
			"missing":                  {wire.PathConnectSigned, changed(wire.ParamSignature, ""), credential{}, 400},
			"missing, with a key":      {wire.PathConnectSigned, changed(wire.ParamSignature, ""), apiKey(keys["ops"]), 400},
			"other device":             {wire.PathConnectSigned, changed(wire.ParamDeviceID, "pump-8"), credential{}, 400},
			"other target":             {wire.PathConnectSigned, changed(wire.ParamTarget, "web"), credential{}, 400},
			"other principal":          {wire.PathConnectSigned, changed(wire.ParamPrincipal, "root"), credential{}, 400},
			"later":                    {wire.PathConnectSigned, changed(wire.ParamExpirationUTC, "2000-01-01T02:00:00.0000000Z"), credential{}, 400},
			"as a URL of connect":      {wire.PathConnect, signed.RawQuery, credential{}, 401},
			"for another signed URL":   {wire.PathGetSignedURL, signed.RawQuery, credential{}, 401},
			"its signature as a token": {wire.PathAccept, "bridgeToken=" + signed.Query().Get(wire.ParamSignature), credential{}, 400},
		} {
			if got, code := n.askWith(tt.path, tt.query, tt.with); got != tt.status {
				t.Errorf("signed URL, %s: %d %s, want %d", name, got, code, tt.status)
			}
		}

		// A device's credential is its bridge token; a requester's is none.
		seal := func(ring *token.Ring, change func(*token.Claims)) string {
			c := token.Claims{Instance: token.NewID(), BridgeID: token.NewID(), DeviceID: "pump-7", Expires: now.Add(time.Minute)}
			if change != nil {
				change(&c)
			}
			tok, err := ring.Seal(c)
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
		for name, tt := range map[string]struct {
			token  string
			with   credential
			status int
		}{
			"missing":              {"", credential{}, 400},
			"missing, with a key":  {"", apiKey(keys["ops"]), 400},
			"a key":                {keys["ops"], credential{}, 400},
			"wrong key":            {seal(mustRing(t), nil), credential{}, 403},
			"expired":              {seal(ring, func(c *token.Claims) { c.Expires = now.Add(-time.Second) }), credential{}, 410},
			"of no bridge":         {seal(ring, nil), credential{}, 410},
			"of a node unknown":    {seal(ring, func(c *token.Claims) { c.Owner = "10.9.9.9:7443" }), credential{}, 403},
			"cut":                  {seal(ring, nil)[:40], credential{}, 400},
			"as a requester's key": {"", bearer(seal(ring, nil)), 400},
		} {
			for _, path := range []string{wire.PathAccept, wire.PathReject} {
				query := wire.ParamBridgeToken + "=" + url.QueryEscape(tt.token)
				got, code := n.askWith(path, query, tt.with)
				if path == wire.PathReject {
					r := httptest.NewRequest(http.MethodPost, "/front"+path+"?"+query, io.NopCloser(strings.NewReader(`{"code":"c"}`)))
					w := httptest.NewRecorder()
					n.srv.Handler().ServeHTTP(w, r)
					got = w.Code
				}
				if got != tt.status {
					t.Errorf("%s, token %s: %d %s, want %d", path, name, got, code, tt.status)
				}
			}
		}
		if got, _ := n.askWith(wire.PathConnect, "deviceId=pump-7&target=ssh", bearer(seal(ring, nil))); got != 401 {
			t.Errorf("a bridge token lets a requester in: %d", got)
		}
	})
}
