package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"websocketbridge/relay/client"
	envsettings "websocketbridge/relay/settings"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// env is what the environment can say.
type env struct {
	Relay      string `envconfig:"RELAY" desc:"address of the relay" example:"wss://relay.example.com"`
	APIKey     string `envconfig:"API_KEY" secret:"true" desc:"API key for the relay"`
	CAFile     string `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's"`
	AllowPlain bool   `envconfig:"ALLOW_PLAIN" desc:"permit ws:// to a relay that is not on this machine"`

	OIDCIssuer   string   `envconfig:"OIDC_ISSUER" desc:"identity provider to sign in at"`
	OIDCClientID string   `envconfig:"OIDC_CLIENT_ID" desc:"ID of bridge there"`
	OIDCScopes   []string `envconfig:"OIDC_SCOPES" desc:"what to ask for there"`
}

const settingsHelp = `Environment:
  BRIDGE_RELAY         address of the relay, as wss://relay.example.com
  BRIDGE_API_KEY       API key; or BRIDGE_API_KEY_FILE, a file that holds it
  BRIDGE_CA_FILE       PEM file with certificates to trust besides the system's
  BRIDGE_OIDC_ISSUER, BRIDGE_OIDC_CLIENT_ID, BRIDGE_OIDC_SCOPES   see bridge login --help
  BRIDGE_ALLOW_PLAIN   true permits ws:// to a relay that is not on this machine
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY   as everywhere; user and password in the URL work
  TRACEPARENT   of the trace of which the bridge is to be part (W3C Trace Context)`

// settings is what flags and environment say together; a flag wins.
type settings struct {
	relay, keyFile, caFile string
	allowPlain             bool

	client client.Config
	login  loginSettings
	issuer *http.Client // for the identity provider
}

// load runs before each command that needs a relay.
func (s *settings) load() error {
	var e env
	if err := envsettings.Load("BRIDGE", &e); err != nil {
		return usageError{err}
	}
	s.client.URL = cmp.Or(s.relay, e.Relay)
	s.client.AllowPlain = s.allowPlain || e.AllowPlain
	if err := checkRelay(s.client.URL, s.client.AllowPlain); err != nil {
		return usageError{err}
	}
	s.client.APIKey = e.APIKey
	if s.keyFile != "" {
		var err error
		if s.client.APIKey, err = readKey(s.keyFile); err != nil {
			return usageError{fmt.Errorf("API key: %w", err)}
		}
	}
	roots, err := ws.LoadRoots(cmp.Or(s.caFile, e.CAFile))
	if err != nil {
		return usageError{err}
	}
	if parent := os.Getenv("TRACEPARENT"); wire.TraceID(parent) != "" { // what is none is nobody's fault here
		s.client.Header = http.Header{wire.HeaderTraceParent: {parent}}
	}
	s.client.Dialer = ws.Dialer{TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
	s.login = loginSettings{e.OIDCIssuer, e.OIDCClientID, e.OIDCScopes}
	s.issuer = issuerClient(roots)
	if s.client.APIKey == "" {
		s.useSignIn()
	}
	return nil
}

// useSignIn uses what bridge login has kept for the relay, if there is something. What is
// wrong with it is told when it is needed.
func (s *settings) useSignIn() {
	store, err := storeFor(s.client.URL)
	if err != nil {
		return // no home directory: nobody can have signed in
	}
	if _, err := store.load(); !errors.Is(err, fs.ErrNotExist) {
		s.client.Credentials = (&tokens{store, s.issuer}).header
	}
}

// checkRelay says what is wrong with the relay's address, and what to write.
func checkRelay(addr string, allowPlain bool) error {
	if addr == "" {
		return hintError{errors.New("no relay is named"), "set BRIDGE_RELAY or --relay to its address, as wss://relay.example.com"}
	}
	if _, err := client.ParseURL(addr, true); err != nil {
		if _, serr := client.ParseURL("wss://"+addr, false); serr == nil && !strings.Contains(addr, "://") {
			return hintError{fmt.Errorf("relay address %q has no scheme", addr), "did you mean wss://" + addr + "?"}
		}
		return err
	}
	if _, err := client.ParseURL(addr, allowPlain); err != nil {
		return hintError{
			fmt.Errorf("%s has no TLS: everybody on the way could read the API key and the data", addr),
			"use wss://, or permit it with --allow-plain or BRIDGE_ALLOW_PLAIN=true",
		}
	}
	return nil
}

// maxKeyFile is in bytes: a key has at most 256.
const maxKeyFile = 4 << 10

func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	switch {
	case key == "":
		return "", fmt.Errorf("%s is empty", path)
	case len(b) > maxKeyFile || strings.ContainsAny(key, " \t\r\n"):
		return "", fmt.Errorf("%s holds more than a key", path)
	}
	return key, nil
}
