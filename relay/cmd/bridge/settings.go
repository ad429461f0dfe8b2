package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
	envsettings "websocketbridge/relay/settings"
	"websocketbridge/relay/ws"
)

// env is what the environment can say.
type env struct {
	Relay      string `envconfig:"RELAY" desc:"address of the relay" example:"wss://relay.example.com"`
	APIKey     string `envconfig:"API_KEY" secret:"true" desc:"API key for the relay"`
	CAFile     string `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's"`
	AllowPlain bool   `envconfig:"ALLOW_PLAIN" desc:"permit ws:// to a relay that is not on this machine"`
}

const settingsHelp = `Environment:
  BRIDGE_RELAY         address of the relay, as wss://relay.example.com
  BRIDGE_API_KEY       API key; or BRIDGE_API_KEY_FILE, a file that holds it
  BRIDGE_CA_FILE       PEM file with certificates to trust besides the system's
  BRIDGE_ALLOW_PLAIN   true permits ws:// to a relay that is not on this machine
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY   as everywhere; user and password in the URL work`

// settings is what flags and environment say together; a flag wins.
type settings struct {
	relay, keyFile, caFile string
	allowPlain             bool

	client client.Config
}

// load runs before each command that needs a relay.
func (s *settings) load(cmd *cobra.Command) error {
	if cmd.Annotations["relay"] == "" {
		return nil
	}
	var e env
	if err := envsettings.Load("BRIDGE", &e); err != nil {
		return usageError{err}
	}
	s.client.URL = cmp.Or(s.relay, e.Relay)
	if s.client.URL == "" {
		return usageError{hintError{errors.New("no relay is named"), "set BRIDGE_RELAY or --relay to its address, as wss://relay.example.com"}}
	}
	s.client.AllowPlain = s.allowPlain || e.AllowPlain
	if _, err := client.ParseURL(s.client.URL, s.client.AllowPlain); err != nil {
		return usageError{err}
	}
	s.client.APIKey = e.APIKey
	if s.keyFile != "" {
		b, err := os.ReadFile(s.keyFile)
		if err != nil {
			return usageError{fmt.Errorf("read the API key: %w", err)}
		}
		s.client.APIKey = strings.TrimSpace(string(b))
	}
	roots, err := ws.LoadRoots(cmp.Or(s.caFile, e.CAFile))
	if err != nil {
		return usageError{err}
	}
	s.client.Dialer = ws.Dialer{TLS: &tls.Config{RootCAs: roots}}
	return nil
}
