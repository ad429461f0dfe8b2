package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/token"
	"websocketbridge/relay/ws"
)

// config is the environment, RELAY_*.
type config struct {
	Listen      string `envconfig:"LISTEN" default:"127.0.0.1:8080" desc:"public listener"`
	PublicURL   string `envconfig:"PUBLIC_URL" example:"wss://relay.example.com" desc:"where devices reach the relay; default: the listener, where that can be known"`
	TLSCert     string `envconfig:"TLS_CERT" desc:"PEM file with the certificate chain"`
	TLSKey      string `envconfig:"TLS_KEY" desc:"PEM file with its key"`
	Plain       bool   `envconfig:"PLAIN" desc:"no TLS here: a proxy in front does it, or everything is on one machine"`
	AdminListen string `envconfig:"ADMIN_LISTEN" default:"127.0.0.1:9090" desc:"admin listener: /healthz, /readyz; none: empty"`

	Auth      string `envconfig:"AUTH" default:"keys" desc:"keys: API keys; none: everybody may do everything"`
	APIKeys   string `envconfig:"API_KEYS" example:"/etc/relay/api-keys" desc:"file with hashed API keys, see relay hash-key"`
	TokenKeys string `envconfig:"TOKEN_KEYS" secret:"true" desc:"keys for bridge tokens, see relay token-key; default: a new one at each start"`

	Signaler    string   `envconfig:"SIGNALER" example:"fake" desc:"how devices are told; fake: no hub, agents listen at FAKE_LISTEN"`
	FakeListen  string   `envconfig:"FAKE_LISTEN" default:"127.0.0.1:7071" desc:"loopback address where agents listen with the fake signaler"`
	FakeDevices []string `envconfig:"FAKE_DEVICES" desc:"devices the fake hub knows before they first listen"`

	DialBack    time.Duration `envconfig:"DIAL_BACK" default:"15s" desc:"for a device to come, at most 60s"`
	Ping        time.Duration `envconfig:"PING" default:"15s" desc:"between pings on each side of a bridge"`
	Dead        time.Duration `envconfig:"DEAD" default:"35s" desc:"without a byte before a side counts as dead"`
	Idle        time.Duration `envconfig:"IDLE" default:"0s" desc:"without payload before a bridge is ended; 0: never"`
	MaxDuration time.Duration `envconfig:"MAX_DURATION" default:"12h" desc:"longest life of a bridge; 0: no limit"`
	MaxBytes    int64         `envconfig:"MAX_BYTES" default:"0" desc:"most payload bytes of a bridge, both ways; 0: no limit"`
	MaxBridges  int           `envconfig:"MAX_BRIDGES" default:"10000" desc:"bridges at once"`
	MaxWaiting  int           `envconfig:"MAX_WAITING" default:"1000" desc:"waiting bridges at once"`
	Drain       time.Duration `envconfig:"DRAIN" default:"10m" desc:"for open bridges after SIGTERM; a second signal ends them"`

	Log settings.Log
}

// prepared is what config means once files are read.
type prepared struct {
	relay relay.Config
	tls   *tls.Config // nil: plain
}

// prepare reads what config names, reporting every fault at once.
func (c *config) prepare() (prepared, error) {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("RELAY_%s: %w", name, fmt.Errorf(format, args...)))
	}
	p := prepared{relay: relay.Config{
		DialBack: c.DialBack, Ping: orNever(c.Ping), Dead: orNever(c.Dead), Idle: c.Idle, MaxDuration: orNever(c.MaxDuration),
		MaxBytes: c.MaxBytes, MaxBridges: c.MaxBridges, MaxWaiting: c.MaxWaiting, Drain: orNever(c.Drain),
	}}
	switch {
	case c.TLSCert != "" && c.TLSKey != "":
		if c.Plain {
			bad("PLAIN", "is true although RELAY_TLS_CERT is set; choose one")
		}
		cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			bad("TLS_CERT", "%w", err)
		}
		// gorilla/websocket upgrades HTTP/1.1 only, so no other protocol is offered.
		p.tls = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{cert}}
	case c.TLSCert != "" || c.TLSKey != "":
		bad("TLS_CERT", "goes together with RELAY_TLS_KEY; one of them is missing")
	case !c.Plain:
		bad("TLS_CERT", "is missing; set it and RELAY_TLS_KEY, or RELAY_PLAIN=true if a proxy in front does TLS")
	}
	switch c.Auth {
	case "none":
		p.relay.Auth = auth.AllowAll{}
	case "keys":
		if c.APIKeys == "" {
			bad("API_KEYS", "is missing; make a key with relay hash-key, or set RELAY_AUTH=none where everybody may do everything")
			break
		}
		keys, err := auth.LoadKeys(c.APIKeys)
		if err != nil {
			bad("API_KEYS", "%w", err)
		}
		p.relay.Auth = keys
	default:
		bad("AUTH", "%q is neither keys nor none", c.Auth)
	}
	var err error
	if p.relay.Keys, err = c.ring(); err != nil {
		bad("TOKEN_KEYS", "%w", err)
	}
	if p.relay.PublicURL, err = c.publicURL(); err != nil {
		bad("PUBLIC_URL", "%w", err)
	}
	switch c.Signaler {
	case "fake":
	case "":
		bad("SIGNALER", "is missing; fake tells agents on this machine, without a hub")
	default:
		bad("SIGNALER", "%q is not known; fake is", c.Signaler)
	}
	if err := checkLoopback(c.FakeListen); c.Signaler == "fake" && err != nil {
		bad("FAKE_LISTEN", "%w", err)
	}
	return p, errors.Join(errs...)
}

// orNever turns a person's 0, "no limit", into a Config's: its 0 is the default.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func (c *config) ring() (*token.Ring, error) {
	if c.TokenKeys == "" {
		return token.NewRing(token.NewKey())
	}
	keys, err := token.ParseKeys(c.TokenKeys)
	if err != nil {
		return nil, err
	}
	return token.NewRing(keys...)
}

// publicURL falls back to the listener where devices are on this machine, too.
func (c *config) publicURL() (string, error) {
	if c.PublicURL != "" {
		return c.PublicURL, nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || !ws.IsLoopback(host) || port == "0" {
		return "", errors.New("is missing; devices have to know where to dial, as wss://relay.example.com")
	}
	return map[bool]string{true: "ws://", false: "wss://"}[c.Plain] + c.Listen, nil
}

func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if !ws.IsLoopback(host) {
		return fmt.Errorf("%q is not a loopback address, and there is no authentication there", cmp.Or(host, addr))
	}
	return nil
}
