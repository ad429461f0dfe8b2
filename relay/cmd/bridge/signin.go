package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"websocketbridge/relay/client"
)

const (
	refreshMost  = 20 * time.Second // for an issuer's answer
	refreshEarly = 2 * time.Minute  // before a token ends, or after 3/4 of a short one's life
	stillGood    = 10 * time.Second // left of a token that cannot be refreshed and is sent all the same
	maxAnswer    = 1 << 20          // bytes
)

// signInError is a sign-in that only bridge login brings back.
type signInError struct{ text string }

func (e signInError) Error() string        { return e.text }
func (e signInError) Is(target error) bool { return target == client.ErrSignIn }

// tokens are the credentials for a relay without an API key.
type tokens struct {
	store store
	http  *http.Client
}

// header is client.Config's Credentials.
func (t *tokens) header(ctx context.Context) (http.Header, error) {
	token, err := t.token(ctx)
	if err != nil {
		return nil, err
	}
	return http.Header{"Authorization": {"Bearer " + token}}, nil
}

// token returns one that is good for a while. The file is read each time: another process
// may have refreshed it, or the user may have signed in anew.
func (t *tokens) token(ctx context.Context) (string, error) {
	in, err := t.load()
	if err != nil || in.fresh(time.Now()) {
		return tokenOf(in), err
	}
	unlock, err := t.store.lock(ctx)
	if err != nil {
		return in.orElse(err)
	}
	defer unlock()
	if in, err = t.load(); err != nil || in.fresh(time.Now()) { // the other process has
		return tokenOf(in), err
	}
	if in.RefreshToken == "" {
		return in.orElse(signInError{"the sign-in has ended, and it was for once only: the issuer gave no refresh token"})
	}
	fresh, err := t.refresh(ctx, in)
	if err != nil {
		return in.orElse(err)
	}
	if err := t.store.save(fresh); err != nil {
		return "", fmt.Errorf("keep the sign-in: %w", err)
	}
	return fresh.AccessToken, nil
}

func (t *tokens) load() (*signIn, error) {
	in, err := t.store.load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, signInError{"nobody is signed in for this relay any more"}
	}
	return in, err
}

func tokenOf(in *signIn) string {
	if in == nil {
		return ""
	}
	return in.AccessToken
}

// fresh says whether the token need not be refreshed.
func (in *signIn) fresh(now time.Time) bool {
	early := max(min(refreshEarly, in.Expires.Sub(in.Obtained)/4), 0)
	return now.Before(in.Expires.Add(-early))
}

// orElse returns the token while it is good, and err after that.
func (in *signIn) orElse(err error) (string, error) {
	if time.Until(in.Expires) > stillGood {
		return in.AccessToken, nil
	}
	return "", err
}

// refresh gets the next token. It asks by itself what x/oauth2 would ask, because that
// leaves the scope out, and Entra ID then guesses which application the token is for.
func (t *tokens) refresh(ctx context.Context, in *signIn) (*signIn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, refreshMost, fmt.Errorf("no answer within %v", refreshMost))
	defer cancel()
	if err := checkIssuerURL(in.TokenURL); err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {in.RefreshToken}, "client_id": {in.ClientID}, "scope": {strings.Join(in.Scopes, " ")}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, in.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := t.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot refresh the sign-in: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("cannot refresh the sign-in: %w", err)
	}
	var answer struct {
		Access      string      `json:"access_token"`
		Refresh     string      `json:"refresh_token"`
		ExpiresIn   json.Number `json:"expires_in"`
		Error       string      `json:"error"`
		Description string      `json:"error_description"`
	}
	jsonErr := json.Unmarshal(body, &answer)
	switch {
	case resp.StatusCode == http.StatusOK && jsonErr == nil && answer.Access != "":
	case resp.StatusCode/100 == 4 && answer.Error != "" && resp.StatusCode != http.StatusTooManyRequests && !slices.Contains(passing, answer.Error):
		return nil, signInError{"the issuer does not refresh the sign-in any more: " + words(answer.Error, answer.Description)}
	default:
		return nil, fmt.Errorf("cannot refresh the sign-in: the issuer answers %s", words(resp.Status, answer.Error))
	}
	next := *in
	secs, _ := answer.ExpiresIn.Int64()
	return &next, next.take(answer.Access, answer.Refresh, time.Duration(secs)*time.Second, time.Now())
}

// passing are errors of a token endpoint that are over soon.
var passing = []string{"temporarily_unavailable", "server_error", "slow_down"}

// take puts what an issuer gave into in. Without an issuer's word the token says itself
// how long it lasts.
func (in *signIn) take(access, refresh string, life time.Duration, now time.Time) error {
	claims, ok := peek(access)
	if !ok {
		return hintError{errors.New("the issuer gave a token that is no JWT, which a relay cannot read"), "ask for the relay's own API with --scope"}
	}
	in.AccessToken, in.RefreshToken = access, cmp.Or(refresh, in.RefreshToken)
	in.Obtained, in.Expires = now.UTC(), now.Add(life).UTC()
	if life <= 0 {
		in.Expires = time.Unix(int64(claims.Expires), 0).UTC()
	}
	return nil
}

// A peeked is what a token says about itself, for the user to see. Nobody has proven it.
type peeked struct {
	Username string  `json:"preferred_username"`
	UPN      string  `json:"upn"`
	Subject  string  `json:"sub"`
	Expires  float64 `json:"exp"`
}

func peek(token string) (p peeked, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return p, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	return p, err == nil && json.Unmarshal(b, &p) == nil
}

func (in *signIn) who() string {
	p, _ := peek(in.AccessToken)
	return cmp.Or(p.Username, p.UPN, p.Subject)
}

// words are an issuer's, cut to a sentence.
func words(code, text string) string {
	s := code
	if text != "" {
		s += ": " + oneLine(text)
	}
	return printable(fmt.Sprintf("%.300s", strings.ToValidUTF8(s, "")))
}

// fromIssuer explains an error of x/oauth2, whose own text may be a whole page.
func fromIssuer(err error) error {
	var e *oauth2.RetrieveError
	switch {
	case !errors.As(err, &e):
		return err
	case e.ErrorCode != "":
		return errors.New("the issuer answers " + words(e.ErrorCode, e.ErrorDescription))
	case e.Response != nil:
		return errors.New("the issuer answers " + words(e.Response.Status, ""))
	}
	return errors.New("the issuer's answer cannot be read")
}

// issuerClient reaches an issuer. It follows to no other address: it carries secrets.
func issuerClient(roots *x509.CertPool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{
		Transport:     boundedTransport{t},
		Timeout:       refreshMost,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type boundedTransport struct{ http.RoundTripper }

// RoundTrip takes only so much of an answer, and only over TLS.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := checkIssuerURL(r.URL.String()); err != nil {
		return nil, err
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

func checkIssuerURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return errors.New("the issuer is no URL, such as https://login.microsoftonline.com/TENANT-ID/v2.0")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())) {
		return fmt.Errorf("%s://%s is not https: everybody on the way could take the sign-in", u.Scheme, u.Host)
	}
	return nil
}
