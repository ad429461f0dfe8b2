package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spf13/cobra"
	"golang.org/x/oauth2"
)

// loginSettings are what bridge login has of its own; a flag wins.
type loginSettings struct {
	issuer, clientID string
	scopes           []string
}

func newLogin(ui *ui, s *settings) *cobra.Command {
	var l loginSettings
	var status bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in at the relay's identity provider, in a browser on any machine",
		Long: `login signs in at the identity provider that the relay trusts. It shows an address
and a code for a browser, on this machine or another one, and waits until it is
entered there (OAuth 2.0 device authorization, RFC 8628).

The sign-in is kept in a file that only you can read, one for each relay. All
commands use it where no API key is given, and refresh it by themselves.

The scope has to be the relay's: with Entra ID api://APPLICATION-ID/.default, which
is also the default, with the client's own ID.`,
		Example: `  bridge login --issuer https://login.microsoftonline.com/TENANT-ID/v2.0 --client-id CLIENT-ID
  bridge login --status`,
		Args:        args(0, 0, "no arguments"),
		Annotations: map[string]string{needsRelay: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := storeFor(s.client.URL)
			if err != nil {
				return err
			}
			if status {
				return signInStatus(ui, store)
			}
			return login(cmd.Context(), ui, l.orElse(s.login), store, s.issuer)
		},
	}
	cmd.Flags().StringVar(&l.issuer, "issuer", "", "`address` of the identity provider (BRIDGE_OIDC_ISSUER)")
	cmd.Flags().StringVar(&l.clientID, "client-id", "", "`ID` of bridge there (BRIDGE_OIDC_CLIENT_ID)")
	cmd.Flags().StringSliceVar(&l.scopes, "scope", nil, "what to ask for, separated by commas or repeated (BRIDGE_OIDC_SCOPES)")
	cmd.Flags().BoolVar(&status, "status", false, "say who is signed in and until when, and sign nobody in")
	return cmd
}

func newLogout(ui *ui, s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget the sign-in for the relay",
		Long: `logout removes the sign-in for the relay from this machine. The browser in which it
was made, and sign-ins on other machines, stay signed in.`,
		Args:        args(0, 0, "no arguments"),
		Annotations: map[string]string{needsRelay: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := storeFor(s.client.URL)
			if err != nil {
				return err
			}
			was, err := store.remove()
			if err != nil {
				return err
			}
			if !was {
				ui.tellf("nobody was signed in for %s", store.relay)
				return nil
			}
			ui.tellf("signed out of %s", store.relay)
			return nil
		},
	}
}

func (l loginSettings) orElse(env loginSettings) loginSettings {
	l.issuer, l.clientID = cmp.Or(l.issuer, env.issuer), cmp.Or(l.clientID, env.clientID)
	if len(l.scopes) == 0 {
		l.scopes = env.scopes
	}
	u, err := url.Parse(l.issuer)
	entra := err == nil && slices.Contains([]string{"login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn"}, u.Hostname())
	switch {
	case len(l.scopes) == 0 && entra:
		l.scopes = []string{"api://" + l.clientID + "/.default", oidc.ScopeOfflineAccess}
	case len(l.scopes) == 0:
		l.scopes = []string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess}
	case entra && !slices.Contains(l.scopes, oidc.ScopeOfflineAccess): // or it lasts an hour
		l.scopes = append(slices.Clone(l.scopes), oidc.ScopeOfflineAccess)
	}
	return l
}

func (l loginSettings) check() error {
	switch {
	case l.issuer == "":
		return hintError{usagef("no identity provider is named"), "set BRIDGE_OIDC_ISSUER or --issuer to its address, as https://login.microsoftonline.com/TENANT-ID/v2.0"}
	case l.clientID == "":
		return hintError{usagef("no client ID is named"), "set BRIDGE_OIDC_CLIENT_ID or --client-id to the ID that bridge has at the identity provider"}
	}
	if err := checkIssuerURL(l.issuer); err != nil {
		return usageError{err}
	}
	return nil
}

// Events of --json.
type (
	codeEvent struct {
		Event   string    `json:"event"` // "code"
		URL     string    `json:"url"`
		Code    string    `json:"code"`
		Expires time.Time `json:"expires"`
	}
	signInEvent struct {
		Event   string    `json:"event"` // "signed_in"
		Relay   string    `json:"relay"`
		Issuer  string    `json:"issuer"`
		Name    string    `json:"name,omitempty"`
		Expires time.Time `json:"expires"` // of the token
		Refresh bool      `json:"refresh"` // it is refreshed after that
	}
)

func login(ctx context.Context, ui *ui, l loginSettings, store store, client *http.Client) error {
	if err := l.check(); err != nil {
		return err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	provider, err := oidc.NewProvider(ctx, l.issuer)
	if err != nil {
		return interrupted(ctx, loginFailed(err))
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams // bridge has no secret
	if endpoint.DeviceAuthURL == "" || endpoint.TokenURL == "" {
		return loginFailed(errors.New("the identity provider has no device authorization"))
	}
	cfg := oauth2.Config{ClientID: l.clientID, Endpoint: endpoint, Scopes: l.scopes}
	code, err := cfg.DeviceAuth(ctx)
	if err != nil {
		return interrupted(ctx, loginFailed(err))
	}
	ui.event(codeEvent{"code", code.VerificationURI, code.UserCode, code.Expiry})
	if !ui.json {
		ui.tellf("To sign in, open %s\nin a browser, on this machine or another one, and enter the code %s", code.VerificationURI, code.UserCode)
	}
	token, err := cfg.DeviceAccessToken(ctx, code)
	if err != nil && !code.Expiry.IsZero() && !time.Now().Before(code.Expiry) {
		err = errCodeExpired // x/oauth2 stops asking by itself
	}
	if err != nil {
		return interrupted(ctx, loginFailed(err))
	}
	in := &signIn{Relay: store.relay, Issuer: l.issuer, ClientID: l.clientID, Scopes: l.scopes, TokenURL: endpoint.TokenURL}
	life := time.Duration(0)
	if !token.Expiry.IsZero() {
		life = time.Until(token.Expiry)
	}
	if err := in.take(token.AccessToken, token.RefreshToken, life, time.Now()); err != nil {
		return err
	}
	unlock, err := store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := store.save(in); err != nil {
		return err
	}
	ui.signedIn(in)
	return nil
}

var errCodeExpired = errors.New("the code has expired")

// loginFailed says what became of a sign-in.
func loginFailed(err error) error {
	var e *oauth2.RetrieveError
	code := ""
	if errors.As(err, &e) {
		code = e.ErrorCode
	}
	switch {
	case code == "expired_token", errors.Is(err, errCodeExpired):
		return hintError{signInError{"the code has expired before it was entered"}, "bridge login makes another one"}
	case code == "access_denied":
		return hintError{signInError{"the sign-in was refused in the browser"}, "bridge login begins anew"}
	case code != "":
		return hintError{signInError{fromIssuer(err).Error()}, "are client ID and scope right, and may this client use the device flow?"}
	}
	return issuerError{fromIssuer(err)}
}

// issuerError is an identity provider that gave no good answer.
type issuerError struct{ error }

func (e issuerError) Unwrap() error { return e.error }

func signInStatus(ui *ui, store store) error {
	in, err := store.load()
	if errors.Is(err, fs.ErrNotExist) {
		return hintError{signInError{"nobody is signed in for " + store.relay}, "bridge login"}
	}
	if err != nil {
		return err
	}
	if in.RefreshToken == "" && !time.Now().Before(in.Expires) {
		return hintError{signInError{"the sign-in for " + store.relay + " has ended"}, "bridge login"}
	}
	ui.signedIn(in)
	return nil
}

// signedIn tells who is, and never by what.
func (u *ui) signedIn(in *signIn) {
	u.event(signInEvent{"signed_in", in.Relay, in.Issuer, in.who(), in.Expires, in.RefreshToken != ""})
	if u.json {
		return
	}
	until := "until " + in.Expires.Local().Format(time.DateTime)
	if in.RefreshToken != "" {
		until = "and refreshed when needed"
	}
	u.tellf("signed in for %s as %s, %s", in.Relay, strings.TrimSpace(cmp.Or(in.who(), "somebody without a name")), until)
}
