package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
)

// Config is a source's. HostName, DeviceID and one of Key, Token and Certificate
// are required.
type Config struct {
	HostName string // the hub's name, as hub.azure-devices.net; without a port
	// GatewayHostName is an IoT Edge gateway, dialled and asked for its certificate
	// instead of the hub; empty: none.
	GatewayHostName string
	// Addr is the host and port to dial; empty: the gateway or the hub, at 8883 or,
	// with WebSocket, 443. Certificates and signatures are not about it.
	Addr     string
	DeviceID string
	ModuleID string // empty: the device itself, which also gets cloud-to-device messages

	Key     string // base64, a secret: the identity's own, or with KeyName a policy's
	KeyName string // of the policy whose key it is; empty: the identity's own
	// Token gives a shared access signature and its expiry, where a key is not for
	// programs to see, as in a TPM. It is called for each connection, and the next
	// connection is made when 2/3 of the token's remaining life are over; a zero
	// expiry is never. Errors are logged, and it is asked again.
	Token       func(ctx context.Context) (text string, expires time.Time, err error)
	Certificate *tls.Certificate // X.509

	WebSocket bool                                  // by port 443, for networks that let nothing else out
	TLS       *tls.Config                           // nil: the system's roots. ServerName, if empty, is the hub's or gateway's
	Proxy     func(*http.Request) (*url.URL, error) // nil: http.ProxyFromEnvironment; http, https, socks5
	// Dial opens TCP connections; nil: net.Dialer. It also reaches the proxy.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// KeepAlive is how long the connection may be silent; in whole seconds, at most
	// MaxKeepAlive; 0: 60 s. A connection that is dead without a word is given up
	// KeepAlive + 10 s after its last sign of life.
	KeepAlive time.Duration
	TokenLife time.Duration // of a token signed with Key; at least 1 s; 0: 1 h

	ConnectTimeout   time.Duration // from the dial to the hub's welcome; 0: 30 s
	SubscribeTimeout time.Duration // for its word that it will send signals; 0: 15 s
	RetryFirst       time.Duration // the most to wait before a second try, doubled for each one after it; 0: 1 s
	RetryMost        time.Duration // where the doubling ends; 0: 60 s
	RetryRefused     time.Duration // the most to wait, and twice the least, when credentials were refused; 0: 60 s

	Logger *slog.Logger // nil: silent
}

// Defaults and limits of Config.
const (
	// DefaultKeepAlive is below the idle limits of the NATs and proxies on the way:
	// some mobile networks forget a connection after two minutes, Azure's own load
	// balancer after four.
	DefaultKeepAlive = 60 * time.Second
	// MaxKeepAlive: IoT Hub waits 1.5 times as long, and never longer than 1767 s
	// (Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol").
	MaxKeepAlive = 1177 * time.Second
	// DefaultTokenLife is that of Microsoft's SDKs.
	DefaultTokenLife        = time.Hour
	DefaultConnectTimeout   = 30 * time.Second
	DefaultSubscribeTimeout = 15 * time.Second
	DefaultRetryFirst       = time.Second
	DefaultRetryMost        = 60 * time.Second
	DefaultRetryRefused     = 60 * time.Second
)

const (
	portMQTT      = "8883"
	portWebSocket = "443"
	// maxID is IoT Hub's limit for device and module IDs, in bytes.
	maxID = 128
)

// FromConnectionString starts a Config with what a device's or module's connection
// string says. One with x509=true needs a Certificate, too. Its errors quote no key.
func FromConnectionString(text string) (Config, error) {
	cs, err := sas.ParseConnectionString(text)
	if err != nil {
		return Config{}, err
	}
	if cs.DeviceID == "" {
		return Config{}, errors.New("connection string: is a service's; take the device's, or a module's, from its own page")
	}
	c := Config{
		HostName: cs.HostName, GatewayHostName: cs.GatewayHostName, DeviceID: cs.DeviceID, ModuleID: cs.ModuleID,
		Key: cs.Key, KeyName: cs.PolicyName,
	}
	// A port is where to dial. It is no part of a name that is signed or certified.
	for _, name := range []*string{&c.HostName, &c.GatewayHostName} {
		if host, _, err := net.SplitHostPort(*name); err == nil {
			*name, c.Addr = host, *name
		} else if name == &c.GatewayHostName && *name != "" {
			c.Addr = "" // the hub's, which is not dialled
		}
	}
	return c, nil
}

// Validate reports every fault at once, each as the field's name and what is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.HostName == "":
		bad("HostName: is missing")
	case strings.ContainsAny(c.HostName, "/:?#@ "):
		bad("HostName: %q is not a name alone, as hub.azure-devices.net", c.HostName)
	}
	if strings.ContainsAny(c.GatewayHostName, "/:?#@ ") {
		bad("GatewayHostName: %q is not a name alone", c.GatewayHostName)
	}
	if c.Addr != "" {
		if _, port, err := net.SplitHostPort(c.Addr); err != nil || port == "" {
			bad("Addr: %q is not a host and port", c.Addr)
		}
	}
	if err := checkID(c.DeviceID); err != nil {
		bad("DeviceID: %w", err)
	}
	if err := checkID(c.ModuleID); c.ModuleID != "" && err != nil {
		bad("ModuleID: %w", err)
	}
	ways := 0
	for _, is := range []bool{c.Key != "", c.Token != nil, c.Certificate != nil} {
		if is {
			ways++
		}
	}
	switch {
	case ways == 0:
		bad("Key: is missing; it, or Token, or Certificate says who this device is")
	case ways > 1:
		bad("Key: only one of Key, Token and Certificate says who this device is")
	case c.Key != "":
		if _, err := sas.Sign("resource", "", c.Key, time.Now()); err != nil {
			bad("Key: is not base64; was it cut when it was copied?")
		}
	}
	if c.Certificate != nil && len(c.Certificate.Certificate) == 0 {
		bad("Certificate: is empty")
	}
	if c.KeepAlive != 0 && (c.KeepAlive < time.Second || c.KeepAlive > MaxKeepAlive || c.KeepAlive%time.Second != 0) {
		bad("KeepAlive: %v is not whole seconds from 1s to %v", c.KeepAlive, MaxKeepAlive)
	}
	if c.TokenLife != 0 && c.TokenLife < time.Second {
		bad("TokenLife: %v is less than 1s", c.TokenLife)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"ConnectTimeout", c.ConnectTimeout}, {"SubscribeTimeout", c.SubscribeTimeout},
		{"RetryFirst", c.RetryFirst}, {"RetryMost", c.RetryMost}, {"RetryRefused", c.RetryRefused},
	} {
		if d.value < 0 {
			bad("%s: %v is negative", d.name, d.value)
		}
	}
	return errors.Join(errs...)
}

// checkID says why id can be no part of a topic or a user name, or nil. What the
// hub makes of the rest is its own business.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("is missing")
	case len(id) > maxID:
		return fmt.Errorf("has %d bytes; IoT Hub allows %d", len(id), maxID)
	}
	for _, r := range id {
		if r <= ' ' || r > '~' || r == '/' || r == '&' {
			return fmt.Errorf("has %q, which IoT Hub does not allow in an ID", r)
		}
	}
	return nil
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	c.KeepAlive = cmp.Or(c.KeepAlive, DefaultKeepAlive)
	c.TokenLife = cmp.Or(c.TokenLife, DefaultTokenLife)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, DefaultConnectTimeout)
	c.SubscribeTimeout = cmp.Or(c.SubscribeTimeout, DefaultSubscribeTimeout)
	c.RetryFirst = cmp.Or(c.RetryFirst, DefaultRetryFirst)
	c.RetryMost = cmp.Or(c.RetryMost, DefaultRetryMost)
	c.RetryRefused = cmp.Or(c.RetryRefused, DefaultRetryRefused)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Addr == "" {
		port := portMQTT
		if c.WebSocket {
			port = portWebSocket
		}
		c.Addr = net.JoinHostPort(c.server(), port)
	}
	return c
}

// server is whose certificate is asked for.
func (c Config) server() string { return cmp.Or(c.GatewayHostName, c.HostName) }

// name is the identity, for logs and errors.
func (c Config) name() string {
	if c.ModuleID != "" {
		return c.DeviceID + "/" + c.ModuleID
	}
	return c.DeviceID
}
