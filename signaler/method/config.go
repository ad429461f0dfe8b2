package method

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// DefaultMaxWait is how long a signal waits for its turn under Config.Rate: a third
// of the 15 s that a requester waits for the device, which still has to dial.
const DefaultMaxWait = 5 * time.Second

const (
	// maxConnectTimeout is the hub's.
	maxConnectTimeout = 300 * time.Second
	// pool is how many connections are kept for the next call.
	pool = 200
	// idleTime is less than the 4 min after which Azure's load balancers forget a
	// connection without a word.
	idleTime = 90 * time.Second
	// dialTime bounds TCP, proxy and TLS, each: a black hole has to leave time for the
	// second try.
	dialTime = 10 * time.Second
)

// keepAlive finds out within 30 s that a kept connection has died without a word. A
// call on such a one would take all of its requester's time.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Config is what a Signaler needs.
type Config struct {
	// HostName is the hub's, as in hub.azure-devices.net; a port may follow.
	HostName string
	// Addr is the host:port to dial instead, such as a gateway or an emulator. The name
	// in the request and in the certificate stays HostName. Empty: HostName.
	Addr string
	// Module is the module of every device that is called; empty: the device itself.
	Module     string
	Credential credential.Source
	TLS        *tls.Config                           // nil: the system's roots
	Proxy      func(*http.Request) (*url.URL, error) // nil: http.ProxyFromEnvironment

	// Rate is how many calls a second this process makes at most; 0: any number.
	// RateFor knows what a tier allows.
	Rate float64
	// Burst is how many of them may come at once; 0: those of one second.
	Burst int
	// MaxWait is how long a signal waits for its turn under Rate; 0: DefaultMaxWait.
	MaxWait time.Duration

	// ConnectTimeout is how long the hub waits for a device that is not connected,
	// in whole seconds, at most 300; 0: not at all. A second try waits for one
	// second at least.
	ConnectTimeout time.Duration
	// AskOnce: a device that is not connected is not asked a second time. It is for
	// whoever has another way to reach it, such as package auto.
	AskOnce bool

	Logger *slog.Logger // nil: silent
}

// Validate reports everything that is wrong with c, a line for each field.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkHost(c.HostName); err != nil {
		bad("HostName: %w", err)
	}
	if c.Addr != "" {
		if host, _, err := net.SplitHostPort(c.Addr); err != nil || host == "" {
			bad("Addr: %q is not host:port", c.Addr)
		}
	}
	if c.Module != "" {
		if err := checkID(c.Module); err != nil {
			bad("Module: %w", err)
		}
	}
	if c.Credential == nil {
		bad("Credential: is missing")
	}
	if !(c.Rate >= 0) || c.Burst < 0 || c.MaxWait < 0 { // also NaN
		bad("Rate, Burst and MaxWait cannot be negative")
	}
	if c.ConnectTimeout < 0 || c.ConnectTimeout > maxConnectTimeout || c.ConnectTimeout%time.Second != 0 {
		bad("ConnectTimeout: %v is not between 0 and %v in whole seconds", c.ConnectTimeout, maxConnectTimeout)
	}
	return errors.Join(errs...)
}

func checkHost(name string) error {
	u, err := url.Parse("https://" + name)
	if name == "" || err != nil || u.Host != name || u.Hostname() == "" {
		return fmt.Errorf("%q is not a hub's name, as in hub.azure-devices.net", name)
	}
	return nil
}

// maxID is the hub's.
const maxID = 128

// checkID refuses what no device or module is called. The hub allows fewer characters
// yet; these are the ones that could lead to another path than meant.
func checkID(id string) error {
	switch {
	case id == "" || id == "." || id == "..":
		return fmt.Errorf("%q is no ID", id)
	case len(id) > maxID:
		return fmt.Errorf("has %d bytes; IoT Hub allows %d", len(id), maxID)
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '/' || c == '\\' {
			return fmt.Errorf("has %q, which IoT Hub does not allow in an ID", c)
		}
	}
	return nil
}

// A Signaler calls the method Bridge on devices. It is a signaler.Signaler.
type Signaler struct {
	cfg    Config
	client *http.Client
	gate   *gate
	log    *slog.Logger
}

var _ signaler.Signaler = (*Signaler)(nil)

// New checks cfg. It starts nothing and asks nobody.
func New(cfg Config) (*Signaler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("method: %w", err)
	}
	s := &Signaler{cfg: cfg, log: cfg.Logger, gate: newGate(cfg.Rate, cfg.Burst, cmp.Or(cfg.MaxWait, DefaultMaxWait))}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.client = &http.Client{
		Transport:     transport(cfg),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this host
	}
	return s, nil
}

// Close lets go of the connections that no call uses.
func (s *Signaler) Close() { s.client.CloseIdleConnections() }

func transport(cfg Config) *http.Transport {
	tc := cfg.TLS.Clone()
	if tc == nil {
		tc = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if tc.ClientSessionCache == nil {
		tc.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	if cfg.Addr != "" && tc.ServerName == "" { // otherwise net/http takes it from the URL
		tc.ServerName = (&url.URL{Host: cfg.HostName}).Hostname()
	}
	find := cfg.Proxy
	if find == nil {
		find = http.ProxyFromEnvironment
	}
	t := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			p, err := find(r)
			switch {
			case err != nil:
				return nil, errors.New("the proxy setting is not a URL") // err may quote a password
			case p != nil && strings.EqualFold(p.Scheme, "https") && cfg.Addr != "":
				// net/http asks the proxy for a certificate in tc.ServerName.
				return nil, errors.New("a proxy with https:// cannot be used when the hub is dialled at another address")
			}
			return p, nil
		},
		DialContext:         (&net.Dialer{Timeout: dialTime, KeepAliveConfig: keepAlive}).DialContext,
		TLSClientConfig:     tc,
		TLSHandshakeTimeout: dialTime,
		MaxIdleConns:        pool,
		MaxIdleConnsPerHost: pool,
		IdleConnTimeout:     idleTime,
		DisableCompression:  true, // answers are small, and what is read is bounded
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}
