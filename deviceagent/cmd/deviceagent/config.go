package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/status"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// Where signals come from. The names are settings.
const (
	fromHub     = "hub"
	fromHandoff = "handoff"
	fromFake    = "fake"
)

// config is the environment, AGENT_*.
type config struct {
	DeviceID   string      `envconfig:"DEVICE_ID" example:"pump-7" desc:"this device's ID in the hub; default: the connection string's"`
	ModuleID   string      `envconfig:"MODULE_ID" example:"bridge" desc:"the agent's own module of the device, beside another program that has the device's connection; default: the connection string's, or none"`
	Signals    string      `envconfig:"SIGNALS" default:"hub" desc:"where signals come from; hub: an own connection to IoT Hub; handoff: another program on this device; fake: a relay with RELAY_SIGNALER=fake"`
	Hub        hubSettings `envconfig:"HUB"`
	RelayHosts []string    `envconfig:"RELAY_HOSTS" required:"true" example:"relay.example.com" desc:"relays this device may dial, as host, host:port, *.example.com, or * for any"`
	Targets    []string    `envconfig:"TARGETS" example:"ssh=tcp:127.0.0.1:22,web=tcp:127.0.0.1:80" desc:"what may be reached, see below; nothing else is"`

	SignalKeys       []string       `envconfig:"SIGNAL_KEYS" example:"ed25519-public:..." desc:"public keys of the relay, from relay keygen: signals that none has signed are refused; default: signatures are not looked at"`
	Principals       []string       `envconfig:"PRINCIPALS" example:"ops,oidc:*@example.com" desc:"who may come, in the relay's words, * stands for any characters; default: all. Without AGENT_SIGNAL_KEYS whoever may write to the hub can claim any name"`
	TargetPrincipals settings.Pairs `envconfig:"TARGET_PRINCIPALS" example:"ssh=ops oidc:*@example.com,web=*" desc:"who of them may reach a target, separated by spaces; default: all"`
	KillSwitch       string         `envconfig:"KILL_SWITCH" example:"/run/deviceagent/off" desc:"while this file is there, or its folder cannot be read, signals are refused and open bridges closed"`

	Handoff      handoffSettings
	FakeURL      string        `envconfig:"FAKE_URL" default:"ws://127.0.0.1:7071" desc:"the relay's RELAY_FAKE_LISTEN"`
	CAFile       string        `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's, for relay and hub"`
	AllowPlain   bool          `envconfig:"ALLOW_PLAIN" desc:"permit ws:// to a relay that is not on this device"`
	MaxBridges   int           `envconfig:"MAX_BRIDGES" default:"16" desc:"bridges at once"`
	MaxStreams   int           `envconfig:"MAX_STREAMS" default:"256" desc:"streams at once on one bridge"`
	WindowMemory int           `envconfig:"WINDOW_MEMORY" default:"67108864" desc:"bytes by which the windows of all streams together may grow beyond 256 KiB each, for programs that take less than comes; 0: none grows"`
	DialTimeout  time.Duration `envconfig:"DIAL_TIMEOUT" default:"10s" desc:"for a target to answer"`

	RetryTakenOver time.Duration `envconfig:"RETRY_TAKEN_OVER" example:"10m" desc:"when another client has taken this identity again and again, try again after that; default: end with status 3"`
	StatusSocket   string        `envconfig:"STATUS_SOCKET" example:"/run/deviceagent/status.sock" desc:"where deviceagent status asks, or off; default: in the folder for such things of the service or the user"`

	Log settings.Log
}

// minRetryTakenOver leaves the other client most of the time.
const minRetryTakenOver = time.Minute

// complain reports a fault of the variable AGENT_ and name.
type complain func(name, format string, args ...any)

// fields are the names of deviceagent.Config's fields in the environment.
var fields = map[string]string{
	"RelayHosts": "RELAY_HOSTS", "MaxBridges": "MAX_BRIDGES",
	"MaxStreams": "MAX_STREAMS", "DialTimeout": "DIAL_TIMEOUT", "Principals": "PRINCIPALS", "TargetPrincipals": "TARGET_PRINCIPALS",
}

// load reads the environment and what it names. Every fault comes at once, by
// the variable's name.
//
// own is what is for the command and not for the agent. handoffAddress, if not empty, is that of --handoff. in and out are for signals
// that are handed over there.
func load(handoffAddress string, in io.Reader, out, logTo io.Writer) (cfg deviceagent.Config, own ownSettings, err error) {
	var (
		c      config
		faults settings.Faults
	)
	err = settings.Load("AGENT", &c)
	if err != nil && !errors.As(err, &faults) {
		return cfg, own, err
	}
	if handoffAddress != "" {
		c.Signals, c.Handoff.Address = fromHandoff, handoffAddress
	}
	bad := func(name, format string, args ...any) {
		name = "AGENT_" + name
		said := func(f settings.Fault) bool { return f.Name == name || f.Name == name+"_FILE" }
		if !slices.ContainsFunc(faults, said) { // once is enough
			faults = append(faults, settings.Fault{Name: name, Problem: fmt.Errorf(format, args...).Error()})
		}
	}
	targets, err := deviceagent.ParseTargets(c.Targets)
	if err != nil {
		bad("TARGETS", "%w", err)
		targets, _ = deviceagent.ParseTargets(nil)
	}
	roots, err := ws.LoadRoots(c.CAFile)
	if err != nil {
		bad("CA_FILE", "%w", err)
	}
	log, err := c.Log.New("AGENT", logTo)
	if err != nil {
		name, problem, _ := strings.Cut(strings.TrimPrefix(err.Error(), "AGENT_"), ": ")
		bad(name, "%s", problem)
	}
	source := c.source(roots, in, out, log, bad) // may learn the device's ID
	cfg = deviceagent.Config{
		DeviceID: c.DeviceID, Source: source, RelayHosts: c.RelayHosts, AllowPlain: c.AllowPlain, Targets: targets,
		MaxBridges: c.MaxBridges, MaxStreams: c.MaxStreams, DialTimeout: c.DialTimeout,
		WindowMemory: cmp.Or(c.WindowMemory, -1),
		Dialer:       ws.Dialer{TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}, Logger: log,
	}
	c.owner(&cfg, bad)
	c.check(cfg, bad)
	own = c.own(bad)
	if len(faults) > 0 {
		return deviceagent.Config{}, own, faults
	}
	if len(targets.Names()) == 0 {
		log.Warn("AGENT_TARGETS is empty: nothing on this device can be reached")
	}
	if len(cfg.Principals)+len(cfg.TargetPrincipals) > 0 && len(cfg.SignalKeys) == 0 {
		log.Warn("principals are limited, but AGENT_SIGNAL_KEYS is empty: whoever may write to the hub can claim any name")
	}
	return cfg, own, nil
}

// ownSettings are for the command.
type ownSettings struct {
	retryTakenOver time.Duration // 0: not at all
	statusSocket   string        // empty: wherever there is room
}

func (c *config) own(bad complain) ownSettings {
	if c.RetryTakenOver != 0 && c.RetryTakenOver < minRetryTakenOver {
		bad("RETRY_TAKEN_OVER", "%v would go on with the fight; %v is the least", c.RetryTakenOver, minRetryTakenOver)
	}
	if c.StatusSocket != "" {
		if err := status.Check(c.StatusSocket); err != nil {
			bad("STATUS_SOCKET", "%w", err)
		}
	}
	return ownSettings{c.RetryTakenOver, c.StatusSocket}
}

// owner reads what the device's owner has to say about who comes, and when.
func (c *config) owner(cfg *deviceagent.Config, bad complain) {
	for _, name := range []string{"SIGNAL_KEYS", "PRINCIPALS", "TARGET_PRINCIPALS", "KILL_SWITCH"} {
		if text, set := os.LookupEnv("AGENT_" + name); set && strings.TrimSpace(text) == "" { // of a file that was not found, say
			bad(name, "is set, but empty, which would allow everything; unset it if that is meant")
		}
	}
	var err error
	if cfg.SignalKeys, err = signaler.ParsePublicKeys(c.SignalKeys); err != nil {
		bad("SIGNAL_KEYS", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	cfg.Principals = c.Principals
	for target, list := range c.TargetPrincipals {
		if cfg.TargetPrincipals == nil {
			cfg.TargetPrincipals = make(map[string][]string)
		}
		cfg.TargetPrincipals[target] = strings.Fields(list)
	}
	if c.KillSwitch == "" {
		return
	}
	if !filepath.IsAbs(c.KillSwitch) {
		bad("KILL_SWITCH", "%q is not a whole path, as /run/deviceagent/off", c.KillSwitch)
	} else if _, err := os.Stat(filepath.Dir(c.KillSwitch)); err != nil { // it would be off for ever
		bad("KILL_SWITCH", "its folder cannot be read: %w", err)
	}
	cfg.KillSwitch = deviceagent.FileSwitch(c.KillSwitch)
}

// source is where signals come from, or nil if bad was told why not.
func (c *config) source(roots *x509.CertPool, in io.Reader, out io.Writer, log *slog.Logger, bad complain) deviceagent.SignalSource {
	if c.Signals != fromHub {
		c.Hub.unused(c.Signals, bad)
		if c.ModuleID != "" {
			bad("MODULE_ID", "is for AGENT_SIGNALS=%s, which is %s", fromHub, c.Signals)
		}
	}
	if c.Signals != fromHandoff {
		c.Handoff.unused(c.Signals, bad)
	}
	switch c.Signals {
	case fromHub:
		return c.hubSource(roots, log, bad)
	case fromHandoff:
		if s := c.Handoff.source(in, out, log, func(name, problem string) { bad(name, "%s", problem) }); s != nil {
			return s
		}
	case fromFake:
		id := c.DeviceID
		if deviceIDFault(id) != "" {
			id = "device" // so that what is wrong with the URL is said, too
		}
		s, err := fake.NewRemoteSource(fake.RemoteConfig{URL: c.FakeURL, DeviceID: id, Logger: log})
		if err == nil {
			return s
		}
		bad("FAKE_URL", "%w", err)
	default:
		bad("SIGNALS", "%q is not known; %s, %s and %s are", c.Signals, fromHub, fromHandoff, fromFake)
	}
	return nil
}

// deviceIDFault says why id is no device's, or nothing.
func deviceIDFault(id string) string {
	if id == "" {
		return "is missing: this device's ID in the hub; for example AGENT_DEVICE_ID=pump-7"
	}
	for _, err := range unjoin(deviceagent.Config{DeviceID: id}.Validate()) {
		if problem, ok := strings.CutPrefix(err.Error(), "DeviceID: "); ok {
			return problem
		}
	}
	return ""
}

// check says what package deviceagent would, by the names of the environment.
func (c *config) check(cfg deviceagent.Config, bad complain) {
	// A hub that was not found knows the device's ID perhaps.
	if fault := deviceIDFault(cfg.DeviceID); fault != "" && (cfg.DeviceID != "" || c.Signals != fromHub || c.Hub.Host != "") {
		bad("DEVICE_ID", "%s", fault)
	}
	for name, n := range map[string]int{"MAX_BRIDGES": c.MaxBridges, "MAX_STREAMS": c.MaxStreams} {
		if n < 1 {
			bad(name, "%d lets nobody in", n)
		}
	}
	if c.WindowMemory < 0 {
		bad("WINDOW_MEMORY", "%d is no amount of memory; 0 keeps windows from growing", c.WindowMemory)
	}
	if c.DialTimeout <= 0 {
		bad("DIAL_TIMEOUT", "%v leaves a target no time", c.DialTimeout)
	}
	for _, err := range unjoin(cfg.Validate()) {
		field, problem, _ := strings.Cut(err.Error(), ": ")
		if name, ok := fields[field]; ok { // others have been said, or are no settings
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
