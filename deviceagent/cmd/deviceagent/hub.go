package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/hub"
)

// hubSettings are AGENT_HUB_*: which hub, who this device is there, and how to get
// there.
type hubSettings struct {
	ConnectionString string        `envconfig:"CONNECTION_STRING" secret:"true" desc:"of the device or of its module, from its page in the hub"`
	Host             string        `envconfig:"HOST" example:"hub.azure-devices.net" desc:"the hub's name, for a device with a certificate and without a connection string"`
	Cert             string        `envconfig:"CERT" example:"/etc/deviceagent/device.pem" desc:"PEM file with the device's certificate and its chain (X.509), instead of a key"`
	Key              string        `envconfig:"KEY" example:"/etc/deviceagent/device.key" desc:"PEM file with the certificate's key"`
	WebSocket        bool          `envconfig:"WEBSOCKET" desc:"MQTT by port 443, for networks that let 8883 not out"`
	Addr             string        `envconfig:"ADDR" example:"127.0.0.1:8883" desc:"host:port to dial instead of the hub's name"`
	KeepAlive        time.Duration `envconfig:"KEEP_ALIVE" default:"60s" desc:"longest silence on the connection, at most 1177s"`
	TokenLife        time.Duration `envconfig:"TOKEN_LIFE" default:"1h" desc:"of the signature that is made with the key; renewed well before"`
}

// hubFields are the names of hub.Config's fields in the environment.
var hubFields = map[string]string{
	"HostName": "HUB_HOST", "Addr": "HUB_ADDR", "DeviceID": "DEVICE_ID", "ModuleID": "MODULE_ID",
	"Certificate": "HUB_CERT", "KeepAlive": "HUB_KEEP_ALIVE", "TokenLife": "HUB_TOKEN_LIFE",
}

// unused complains of what only a hub needs.
func (h hubSettings) unused(signals string, bad complain) {
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"HUB_CONNECTION_STRING", h.ConnectionString != ""}, {"HUB_HOST", h.Host != ""}, {"HUB_CERT", h.Cert != ""},
		{"HUB_KEY", h.Key != ""}, {"HUB_WEBSOCKET", h.WebSocket}, {"HUB_ADDR", h.Addr != ""},
	} {
		if s.set {
			bad(s.name, "is for AGENT_SIGNALS=%s, which is %s", fromHub, signals)
		}
	}
}

// hubSource makes the connection to the hub, which it does not dial yet. The
// device's and the module's ID are the connection string's if they are not set.
func (c *config) hubSource(roots *x509.CertPool, log *slog.Logger, bad complain) deviceagent.SignalSource {
	cfg, ok := c.hubIdentity(bad)
	if !ok {
		return nil
	}
	c.DeviceID, c.ModuleID = cfg.DeviceID, cfg.ModuleID
	cfg.WebSocket, cfg.KeepAlive, cfg.TokenLife = c.Hub.WebSocket, c.Hub.KeepAlive, c.Hub.TokenLife
	cfg.TLS, cfg.Logger = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, log
	if c.Hub.Addr != "" {
		cfg.Addr = c.Hub.Addr
	}
	for _, err := range unjoin(cfg.Validate()) {
		field, problem, _ := strings.Cut(err.Error(), ": ")
		if name, ok := hubFields[field]; ok { // the rest has been said
			bad(name, "%s", problem)
		}
	}
	src, err := hub.New(cfg)
	if err != nil {
		return nil
	}
	return src
}

// hubIdentity is which hub, and who this device is there.
func (c *config) hubIdentity(bad complain) (cfg hub.Config, ok bool) {
	h := c.Hub
	switch {
	case h.ConnectionString != "":
		var err error
		if cfg, err = hub.FromConnectionString(h.ConnectionString); err != nil {
			bad("HUB_CONNECTION_STRING", "%s", strings.TrimPrefix(err.Error(), "connection string: "))
			return cfg, false
		}
		for _, s := range []struct{ name, what, set, has string }{
			{"HUB_HOST", "hub", h.Host, cfg.HostName}, {"DEVICE_ID", "device", c.DeviceID, cfg.DeviceID}, {"MODULE_ID", "module", c.ModuleID, cfg.ModuleID},
		} {
			switch {
			case s.set == "" || s.set == s.has:
			case s.has == "":
				bad(s.name, "is %q, but the connection string is the device's own; take the module's", s.set)
			default:
				bad(s.name, "is %q, but the connection string's %s is %q; unset one", s.set, s.what, s.has)
			}
		}
	case h.Host != "":
		cfg = hub.Config{HostName: h.Host, DeviceID: c.DeviceID, ModuleID: c.ModuleID}
	default:
		bad("HUB_CONNECTION_STRING", "is missing: of the device or of its module, from its page in the hub; set it, or AGENT_HUB_CONNECTION_STRING_FILE to a file that holds it; "+
			"or, with a certificate, AGENT_HUB_HOST, AGENT_DEVICE_ID, AGENT_HUB_CERT and AGENT_HUB_KEY")
		return cfg, false
	}
	switch {
	case h.Cert == "" && h.Key == "" && cfg.Key != "":
	case cfg.Key != "":
		bad("HUB_CERT", "is set, and the connection string has a key; keep one")
	case h.Cert == "":
		bad("HUB_CERT", "is missing; without a key in a connection string the device needs its certificate")
	case h.Key == "":
		bad("HUB_KEY", "is missing; AGENT_HUB_CERT needs it")
	default:
		cert, err := loadCertificate(h.Cert, h.Key)
		if err != nil {
			bad("HUB_CERT", "%w", err)
			break
		}
		cfg.Certificate = &cert
	}
	return cfg, true
}

// loadCertificate keeps the second path out of its errors: somebody could take
// AGENT_HUB_KEY for the key itself.
func loadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	var p *fs.PathError
	if errors.As(err, &p) && p.Path != certFile {
		err = errors.New("AGENT_HUB_KEY names no file that can be read: " + p.Err.Error())
	}
	return cert, err
}
