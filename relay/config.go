package relay

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// Config is what a node needs. Fields without a default are required.
type Config struct {
	// PublicURL is where devices reach the relay, any node of it: ws or wss, a
	// host, perhaps a path in front of /bridge. Accept URLs start with it.
	PublicURL string
	// Cluster makes this node one of several; nil: it is the only one.
	Cluster *cluster.Node

	Signaler signaler.Signaler
	// Signer signs every signal, for devices that follow signed ones only; nil: none is.
	Signer *signaler.Signer
	Keys   *token.Ring
	Auth   Authenticator
	// Policy decides who may reach what; nil: the Grants of principals alone do. With
	// one, both have to allow it.
	Policy *policy.Policy
	// Revoke ends bridges whose permission or credentials have ended: when Recheck is
	// called, and when they expire.
	Revoke bool

	DialBack    time.Duration // for the device to come; 0: 15 s; at most 60 s
	Ping        time.Duration // on each leg of an open bridge; 0: 15 s
	Dead        time.Duration // without a byte; 0: 35 s; more than Ping
	Idle        time.Duration // without payload; 0: no cap
	MaxDuration time.Duration // of a bridge; 0: 12 h; < 0: no cap
	MaxBytes    int64         // of payload of a bridge, both ways together; 0: no cap
	Drain       time.Duration // for open bridges once Run's ctx has ended; 0: 10 min; < 0: none
	LameDuck    time.Duration // at least, from the end of readiness to the end of Run, for balancers to notice; 0: none
	MaxBridges  int           // waiting, joining and open at once; 0: 10 000
	MaxWaiting  int           // waiting at once; 0: 1 000

	// Limits of one device, principal or address. An address is a client's, as trusted
	// proxies say; of IPv6, the /64. A trusted proxy's own has none. 0 is the default, < 0
	// is no limit.
	MaxPerDevice         int // bridges at once; 100
	MaxPerPrincipal      int // bridges at once, those by its signed URLs among them; 1 000
	ConnectsPerPrincipal int // a minute; 600
	ConnectsPerDevice    int // a minute; 300
	ConnectsPerAddress   int // a minute; 1 200
	FailuresPerAddress   int // a minute, of authentication; 60. Above, no requester is heard at all

	// Limits of the public listener. 0 is the default, < 0 is no limit.
	MaxRequests          int // served at once, those of waiting bridges among them; MaxWaiting + 1 000
	MaxPending           int // connections that wait for a request; 2 048. One more closes the oldest
	MaxPendingPerAddress int // likewise of one address; 128

	// Origins are those of web pages that may use the relay, besides pages of its own
	// host: https://app.example.com, or https://*.example.com for any host below.
	Origins []string

	// TrustedProxies are the addresses of proxies in front of the node. They are
	// believed who a request comes from (X-Forwarded-For) and which host it was for
	// (X-Forwarded-Host). Nil: nobody is.
	TrustedProxies []netip.Prefix

	// MaxSignedTTL is the longest life of a signed URL; 0: 24 h; < 0: none are made, and
	// those that were are refused.
	MaxSignedTTL time.Duration

	// Audit keeps who did what; nil: nobody does.
	Audit Auditor

	Version string        // of the program, for the metrics
	Tracer  *trace.Tracer // makes spans; nil: nobody does. Whoever made it closes it, after Run
	PProf   bool          // the admin listener has net/http/pprof

	Logger *slog.Logger // nil: silent
}

// An Authenticator says who makes a request. Its errors wrap the sentinels of
// package auth. It is called from many goroutines. One that has Renew, too (see
// package auth), is asked again for Config.Revoke.
type Authenticator interface {
	Authenticate(r *http.Request) (*auth.Principal, error)
}

// Defaults of Config.
const (
	DefaultDialBack    = 15 * time.Second // Azure Application Gateway gives up on a silent request after 20 s
	MaxDialBack        = 60 * time.Second
	DefaultMaxDuration = 12 * time.Hour
	DefaultDrain       = 10 * time.Minute
	DefaultMaxBridges  = 10_000
	DefaultMaxWaiting  = 1_000

	DefaultMaxPerDevice         = 100   // the agent's own default is 16
	DefaultMaxPerPrincipal      = 1_000 // a portal's server is one principal
	DefaultConnectsPerPrincipal = 600
	DefaultConnectsPerDevice    = 300
	DefaultConnectsPerAddress   = 1_200 // an office behind one address
	DefaultFailuresPerAddress   = 60
	DefaultMoreRequests         = 1_000 // than may wait: of the others each takes a moment
	DefaultMaxPending           = 2_048 // some 30 KB each
	DefaultMaxPendingPerAddress = 1_024 // a load balancer that nobody has listed is one address, too

	DefaultMaxSignedTTL = 24 * time.Hour // a shift and its handover, not a key

	// signalGrace is how long a signal may outlive the wait that it has ended.
	signalGrace = 2 * time.Second
	// tokenGrace is how long a token outlives the wait it is for.
	tokenGrace = 5 * time.Second
)

func (c Config) withDefaults() Config {
	c.DialBack = cmp.Or(c.DialBack, DefaultDialBack)
	c.MaxDuration = max(cmp.Or(c.MaxDuration, DefaultMaxDuration), 0)
	c.MaxSignedTTL = max(cmp.Or(c.MaxSignedTTL, DefaultMaxSignedTTL), 0)
	c.Drain = max(cmp.Or(c.Drain, DefaultDrain), 0)
	c.MaxBridges = cmp.Or(c.MaxBridges, DefaultMaxBridges)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, DefaultMaxWaiting)
	for _, l := range []struct {
		n *int
		d int
	}{
		{&c.MaxPerDevice, DefaultMaxPerDevice}, {&c.MaxPerPrincipal, DefaultMaxPerPrincipal}, {&c.ConnectsPerPrincipal, DefaultConnectsPerPrincipal},
		{&c.ConnectsPerDevice, DefaultConnectsPerDevice}, {&c.ConnectsPerAddress, DefaultConnectsPerAddress}, {&c.FailuresPerAddress, DefaultFailuresPerAddress},
		{&c.MaxRequests, c.MaxWaiting + DefaultMoreRequests}, {&c.MaxPending, DefaultMaxPending}, {&c.MaxPendingPerAddress, DefaultMaxPendingPerAddress},
	} {
		*l.n = max(cmp.Or(*l.n, l.d), 0)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) pump(rule policy.Caps) pump.Config {
	caps := c.caps().Stricter(rule)
	return pump.Config{Ping: c.Ping, Dead: c.Dead, Idle: caps.Idle, MaxDuration: caps.MaxDuration, MaxBytes: caps.MaxBytes}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := parsePublicURL(c.PublicURL); err != nil {
		bad("PublicURL: %w", err)
	}
	if c.Signaler == nil {
		bad("Signaler: is missing")
	}
	if c.Keys == nil {
		bad("Keys: are missing")
	}
	if c.Auth == nil {
		bad("Auth: is missing")
	}
	d := c.withDefaults()
	if d.DialBack < time.Second || d.DialBack > MaxDialBack {
		bad("DialBack: %v is not between 1s and %v", d.DialBack, MaxDialBack)
	}
	switch ping, dead := cmp.Or(c.Ping, ws.DefaultPing), cmp.Or(c.Dead, ws.DefaultDead); {
	case dead > 0 && ping < 0:
		bad("Dead: %v without a Ping: every quiet bridge would be ended", dead)
	case dead > 0 && dead <= ping:
		bad("Dead: %v is not more than Ping, %v: every quiet bridge would be ended", dead, ping)
	}
	for _, p := range c.TrustedProxies {
		if !p.IsValid() {
			bad("TrustedProxies: %v is no range of addresses", p)
		}
	}
	if c.LameDuck < 0 {
		bad("LameDuck: %v is negative", c.LameDuck)
	}
	if _, err := parseOrigins(c.Origins); err != nil {
		bad("Origins: %w", err)
	}
	if c.Idle < 0 {
		bad("Idle: %v is negative", c.Idle)
	}
	if c.MaxBytes < 0 {
		bad("MaxBytes: %d is negative", c.MaxBytes)
	}
	if c.MaxBridges < 0 || c.MaxWaiting < 0 {
		bad("MaxBridges and MaxWaiting cannot be negative")
	}
	return errors.Join(errs...)
}

func parsePublicURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, fmt.Errorf("%q starts with neither ws:// nor wss://", s)
	case u.Host == "":
		return nil, fmt.Errorf("%q has no host", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("has a user, a query or a fragment")
	}
	return u, nil
}
