package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/token"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/ws"
)

// config is the environment, RELAY_*.
type config struct {
	Listen    string `envconfig:"LISTEN" default:"127.0.0.1:8080" desc:"public listener"`
	PublicURL string `envconfig:"PUBLIC_URL" example:"wss://relay.example.com" desc:"where devices reach the relay; default: the listener, where that can be known"`
	TLSCert   string `envconfig:"TLS_CERT" desc:"PEM file with the certificate chain"`
	TLSKey    string `envconfig:"TLS_KEY" desc:"PEM file with its key"`
	Plain     bool   `envconfig:"PLAIN" desc:"no TLS here: a proxy in front does it, or everything is on one machine"`

	TrustedProxies []string `envconfig:"TRUSTED_PROXIES" example:"10.0.0.0/8,192.0.2.7" desc:"addresses and ranges of proxies in front that are believed who a request is from (X-Forwarded-For) and which host it is for (X-Forwarded-Host); default: none"`
	ProxyProtocol  bool     `envconfig:"PROXY_PROTOCOL" desc:"the public listener takes connections of RELAY_TRUSTED_PROXIES only, and wants a PROXY protocol header (v1 or v2) in front of each"`

	Origins []string `envconfig:"ORIGINS" example:"https://app.example.com,https://*.example.com" desc:"web pages that may use the relay, besides those of its own host"`

	AdminListen string `envconfig:"ADMIN_LISTEN" default:"127.0.0.1:9090" desc:"admin listener: /healthz, /readyz, /metrics, /bridges; none: empty"`
	PProf       bool   `envconfig:"PPROF" desc:"the admin listener has /debug/pprof/, too"`

	Auth     []string     `envconfig:"AUTH" default:"keys" example:"keys,oidc" desc:"how requesters prove who they are, one or more; keys: API keys; oidc: tokens of an identity provider; cert: client certificates; or none: everybody may do everything"`
	APIKeys  string       `envconfig:"API_KEYS" example:"/etc/relay/api-keys" desc:"file with hashed API keys, see relay hash-key"`
	OIDC     oidcSettings `envconfig:"OIDC"`
	ClientCA string       `envconfig:"CLIENT_CA" desc:"PEM file with the certificates of the authority of client certificates, for RELAY_AUTH=cert"`

	Policy       string `envconfig:"POLICY" example:"/etc/relay/policy.yaml" desc:"file that says who may do what, see relay check-policy; default: what each API key is limited to"`
	PolicyRevoke bool   `envconfig:"POLICY_REVOKE" desc:"end bridges whose permission ends: a rule or an API key is gone, credentials expire; default: they stay"`

	TokenKeys string `envconfig:"TOKEN_KEYS" secret:"true" desc:"keys for bridge tokens, see relay token-key; default: a new one at each start"`

	SignalKey string `envconfig:"SIGNAL_KEY" secret:"true" desc:"private key that signs signals, see relay keygen; default: they are not signed"`

	Cluster clusterSettings

	Signaler    string      `envconfig:"SIGNALER" default:"c2d" desc:"how devices are told; c2d: message; method: direct method; auto: method, or else message; fake: no hub, agents listen at FAKE_LISTEN"`
	Hub         hubSettings `envconfig:"HUB"`
	FakeListen  string      `envconfig:"FAKE_LISTEN" default:"127.0.0.1:7071" desc:"loopback address where agents listen with the fake signaler"`
	FakeDevices []string    `envconfig:"FAKE_DEVICES" desc:"devices the fake hub knows before they first listen"`

	DialBack    time.Duration `envconfig:"DIAL_BACK" default:"15s" desc:"for a device to come, at most 60s"`
	Ping        time.Duration `envconfig:"PING" default:"15s" desc:"between pings on each side of a bridge"`
	Dead        time.Duration `envconfig:"DEAD" default:"35s" desc:"without a byte before a side counts as dead"`
	Idle        time.Duration `envconfig:"IDLE" default:"0s" desc:"without payload before a bridge is ended; 0: never"`
	MaxDuration time.Duration `envconfig:"MAX_DURATION" default:"12h" desc:"longest life of a bridge; 0: no limit"`
	MaxBytes    int64         `envconfig:"MAX_BYTES" default:"0" desc:"most payload bytes of a bridge, both ways; 0: no limit"`
	MaxBridges  int           `envconfig:"MAX_BRIDGES" default:"10000" desc:"bridges at once"`
	MaxWaiting  int           `envconfig:"MAX_WAITING" default:"1000" desc:"waiting bridges at once"`
	Limits      limitSettings
	SignedTTL   time.Duration `envconfig:"SIGNED_TTL" default:"24h" desc:"longest life of a signed URL; 0: there are none"`
	LameDuck    time.Duration `envconfig:"LAME_DUCK" default:"0s" desc:"least time from SIGTERM to the end, for a load balancer to see that /readyz says no; connects are told to try again"`
	Drain       time.Duration `envconfig:"DRAIN" default:"10m" desc:"for open bridges after SIGTERM; a second signal ends them"`
	Reload      time.Duration `envconfig:"RELOAD" default:"10s" desc:"between looks at files with keys, certificates and rules, which are used as soon as they change; 0: only at SIGHUP"`

	Audit auditSettings

	Log settings.Log
}

// prepared is what config means once files are read.
type prepared struct {
	relay relay.Config    // PublicURL is empty if it is the listener's
	tls   *tls.Config     // nil: plain
	hub   *hub            // nil: the fake one
	node  *cluster.Config // nil: the only node
	log   *slog.Logger

	traced  bool
	watched []*watched
}

// load reads the environment and what it names. Every fault comes at once, by
// the variable's name.
func load(logTo io.Writer) (*config, prepared, error) {
	c := new(config)
	faults, err := faultsOf(settings.Load("RELAY", c))
	if err != nil {
		return nil, prepared{}, err
	}
	bad := func(name, format string, args ...any) {
		name = "RELAY_" + name
		if !slices.ContainsFunc(faults, func(f settings.Fault) bool { return f.Name == name || f.Name == name+"_FILE" }) { // said already
			faults = append(faults, settings.Fault{Name: name, Problem: fmt.Errorf(format, args...).Error()})
		}
	}
	p := prepared{relay: relay.Config{
		DialBack: c.DialBack, Ping: orNever(c.Ping), Dead: orNever(c.Dead), Idle: c.Idle, MaxDuration: orNever(c.MaxDuration),
		Origins:  c.Origins,
		MaxBytes: c.MaxBytes, MaxBridges: c.MaxBridges, MaxWaiting: c.MaxWaiting, MaxSignedTTL: orNever(c.SignedTTL), Drain: orNever(c.Drain), LameDuck: c.LameDuck, PublicURL: c.PublicURL, Revoke: c.PolicyRevoke,
	}}
	p.relay.Version, p.relay.PProf = settings.Version(), c.PProf
	c.Limits.apply(&p.relay)
	plainUnread := slices.ContainsFunc(faults, func(f settings.Fault) bool { return f.Name == "RELAY_PLAIN" })
	switch {
	case c.TLSCert != "" && c.TLSKey != "":
		if c.Plain {
			bad("PLAIN", "is true although RELAY_TLS_CERT is set; choose one")
		}
		if err := p.followCertificate(c.TLSCert, c.TLSKey); err != nil {
			bad("TLS_CERT", "%w", err)
		}
	case c.TLSCert != "":
		bad("TLS_KEY", "is missing; RELAY_TLS_CERT needs it")
	case c.TLSKey != "":
		bad("TLS_CERT", "is missing; RELAY_TLS_KEY needs it")
	case !c.Plain && !plainUnread:
		bad("TLS_CERT", "is missing; set it and RELAY_TLS_KEY, or RELAY_PLAIN=true if a proxy in front does TLS")
	}
	if p.relay.TrustedProxies, err = parseProxies(c.TrustedProxies); err != nil {
		bad("TRUSTED_PROXIES", "%w", err)
	}
	if c.ProxyProtocol && len(p.relay.TrustedProxies) == 0 {
		bad("TRUSTED_PROXIES", "is missing; RELAY_PROXY_PROTOCOL needs it, or it would let nobody in")
	}
	c.prepareAuth(&p, bad)
	if c.Policy != "" {
		if err := p.followPolicy(c.Policy); err != nil {
			bad("POLICY", "%w", err)
		}
	}
	if p.relay.Keys, err = c.ring(); err != nil {
		bad("TOKEN_KEYS", "%w", err)
	}
	if err := p.followSignalKey(c.SignalKey); err != nil {
		bad("SIGNAL_KEY", "%w", err)
	}
	p.node = c.Cluster.prepare(p.relay.Keys, c.TokenKeys == "", p.follow, bad)
	p.followTokenKeys(p.relay.Keys, c.TokenKeys)
	if !c.knowsPublicURL() {
		bad("PUBLIC_URL", "is missing; devices have to know where to dial, as wss://relay.example.com")
	}
	switch c.Signaler {
	case viaFake:
		if err := checkLoopback(c.FakeListen); err != nil {
			bad("FAKE_LISTEN", "%w", err)
		}
		checkUse(c.Signaler, bad)
	case viaC2D, viaMethod, viaAuto:
		p.hub = c.Hub.prepare(c.Signaler, bad)
		p.followHub(p.hub, c.Hub.ConnectionString)
		checkUse(c.Signaler, bad)
	default:
		bad("SIGNALER", "%q is not one of c2d, method, auto and fake", c.Signaler)
	}
	c.checkLimits(p.relay, bad)
	c.Audit.check(bad)
	traced, wrong := trace.Wanted()
	p.traced = traced
	for _, f := range wrong {
		faults = append(faults, settings.Fault(f))
	}
	if p.log, err = c.Log.New("RELAY", logTo); err != nil {
		name, problem, _ := strings.Cut(strings.TrimPrefix(err.Error(), "RELAY_"), ": ")
		bad(name, "%s", problem)
	}
	if len(faults) > 0 {
		return nil, p, faults
	}
	return c, p, nil
}

// faultsOf takes the settings' faults out of err; any other error is final.
func faultsOf(err error) (settings.Faults, error) {
	var faults settings.Faults
	if err != nil && !errors.As(err, &faults) {
		return nil, err
	}
	return faults, nil
}

// fields are the names of relay.Config's fields in the environment.
var fields = map[string]string{
	"PublicURL": "PUBLIC_URL", "DialBack": "DIAL_BACK", "Dead": "DEAD", "Idle": "IDLE",
	"MaxBytes": "MAX_BYTES", "MaxBridges": "MAX_BRIDGES", "MaxWaiting": "MAX_WAITING", "Origins": "ORIGINS",
}

// checkLimits says what package relay would, by the names of the environment.
func (c *config) checkLimits(r relay.Config, bad func(name, format string, args ...any)) {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"DIAL_BACK", c.DialBack}, {"PING", c.Ping}, {"DEAD", c.Dead}, {"IDLE", c.Idle}, {"MAX_DURATION", c.MaxDuration}, {"SIGNED_TTL", c.SignedTTL}, {"DRAIN", c.Drain}, {"LAME_DUCK", c.LameDuck}, {"RELOAD", c.Reload}} {
		if d.value < 0 {
			bad(d.name, "%v is negative", d.value)
		}
	}
	for name, n := range map[string]int{"MAX_BRIDGES": c.MaxBridges, "MAX_WAITING": c.MaxWaiting} {
		if n < 1 {
			bad(name, "%d lets nobody in", n)
		}
	}
	c.Limits.check(bad)
	r.PublicURL = cmp.Or(r.PublicURL, "ws://127.0.0.1") // the listener's, which is none yet
	for _, err := range unjoin(r.Validate()) {
		field, problem, _ := strings.Cut(err.Error(), ": ")
		if name, ok := fields[field]; ok { // others are no settings
			bad(name, "%s", problem)
		}
	}
}

// unjoin splits what errors.Join has made.
func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return nil
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

// knowsPublicURL says whether devices can be told where to dial: by setting, or
// because they are on this machine, too.
func (c *config) knowsPublicURL() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return c.PublicURL != "" || err == nil && ws.IsLoopback(host)
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
