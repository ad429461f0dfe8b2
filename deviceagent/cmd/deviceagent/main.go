// Command deviceagent serves bridges on a device: it hears signals, dials back,
// and connects what comes to the local targets its owner listed.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler/fake"
)

// config is the environment, AGENT_*.
type config struct {
	DeviceID    string        `envconfig:"DEVICE_ID" required:"true" example:"pump-7" desc:"this device's ID in the hub"`
	RelayHosts  []string      `envconfig:"RELAY_HOSTS" required:"true" example:"relay.example.com" desc:"relays this device may dial, as host, host:port, *.example.com, or * for any"`
	Targets     []string      `envconfig:"TARGETS" example:"ssh=tcp:127.0.0.1:22,web=tcp:127.0.0.1:80" desc:"what may be reached, see below; nothing else is"`
	Signals     string        `envconfig:"SIGNALS" required:"true" example:"fake" desc:"where signals come from; fake: a relay with RELAY_SIGNALER=fake"`
	FakeURL     string        `envconfig:"FAKE_URL" default:"ws://127.0.0.1:7071" desc:"the relay's RELAY_FAKE_LISTEN"`
	CAFile      string        `envconfig:"CA_FILE" desc:"PEM file with certificates to trust besides the system's"`
	AllowPlain  bool          `envconfig:"ALLOW_PLAIN" desc:"permit ws:// to a relay that is not on this device"`
	MaxBridges  int           `envconfig:"MAX_BRIDGES" default:"16" desc:"bridges at once"`
	MaxStreams  int           `envconfig:"MAX_STREAMS" default:"256" desc:"streams at once on one bridge"`
	DialTimeout time.Duration `envconfig:"DIAL_TIMEOUT" default:"10s" desc:"for a target to answer"`

	Log settings.Log
}

const help = `deviceagent serves bridges on a device: it hears signals, dials the relay back, and
connects what comes to the targets listed here. Nothing else can be reached.
It takes its settings from the environment. Beside a relay on the same machine:

  AGENT_DEVICE_ID=pump-7 AGENT_SIGNALS=fake AGENT_RELAY_HOSTS=127.0.0.1 AGENT_TARGETS=echo deviceagent

SIGTERM or Ctrl-C ends its bridges and then the program.

`

const targetsHelp = `
An entry of AGENT_TARGETS, separated by commas:
  NAME=tcp:HOST:PORT   a TCP port, here or on a host this device can reach
  NAME=unix:/PATH      a Unix socket
  echo                 a target of that name that sends back what it gets
  tcp:HOSTS:PORTS      any target the requester calls HOST:PORT, where HOSTS is an address,
                       a network (10.0.0.0/24), a name, *.suffix or *, and PORTS is a port,
                       a range (8000-8099) or *

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded, also with user and password.
`

func main() {
	ctx, stop := untilSignal()
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "deviceagent:", err)
		os.Exit(1)
	}
}

// untilSignal ends at the first signal, politely; a second one kills.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func run(ctx context.Context, args []string, out, logTo io.Writer) error {
	switch {
	case len(args) == 0:
	case len(args) == 1 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help"):
		fmt.Fprint(out, help)
		if err := settings.Usage("AGENT", &config{}, out); err != nil {
			return err
		}
		_, err := io.WriteString(out, targetsHelp)
		return err
	case len(args) == 1 && (args[0] == "version" || args[0] == "--version"):
		_, err := fmt.Fprintln(out, "deviceagent", settings.Version())
		return err
	default:
		return fmt.Errorf("unknown argument %q; settings come from the environment, see deviceagent --help", args[0])
	}

	cfg, err := load(logTo)
	if err != nil {
		return err
	}
	agent, err := deviceagent.New(cfg)
	if err != nil {
		return err
	}
	defer cfg.Logger.Info("agent stopped")
	return agent.Run(ctx)
}

// fields are the names of deviceagent.Config's fields in the environment.
var fields = map[string]string{
	"DeviceID": "DEVICE_ID", "RelayHosts": "RELAY_HOSTS", "MaxBridges": "MAX_BRIDGES",
	"MaxStreams": "MAX_STREAMS", "DialTimeout": "DIAL_TIMEOUT",
}

// load reads the environment and what it names. Every fault comes at once, by
// the variable's name.
func load(logTo io.Writer) (deviceagent.Config, error) {
	var (
		c      config
		faults settings.Faults
	)
	err := settings.Load("AGENT", &c)
	if err != nil && !errors.As(err, &faults) {
		return deviceagent.Config{}, err
	}
	isBad := func(name string) bool {
		return slices.ContainsFunc(faults, func(f settings.Fault) bool { return f.Name == "AGENT_"+name })
	}
	bad := func(name, problem string) {
		if !isBad(name) { // once is enough
			faults = append(faults, settings.Fault{Name: "AGENT_" + name, Problem: problem})
		}
	}
	targets, err := deviceagent.ParseTargets(c.Targets)
	if err != nil {
		bad("TARGETS", err.Error())
		targets, _ = deviceagent.ParseTargets(nil)
	}
	roots, err := ws.LoadRoots(c.CAFile)
	if err != nil {
		bad("CA_FILE", err.Error())
	}
	cfg := deviceagent.Config{
		DeviceID: c.DeviceID, RelayHosts: c.RelayHosts, AllowPlain: c.AllowPlain, Targets: targets,
		MaxBridges: c.MaxBridges, MaxStreams: c.MaxStreams, DialTimeout: c.DialTimeout,
		Dialer: ws.Dialer{TLS: &tls.Config{RootCAs: roots}},
	}
	if cfg.Logger, err = c.Log.New("AGENT", logTo); err != nil {
		name, problem, _ := strings.Cut(strings.TrimPrefix(err.Error(), "AGENT_"), ": ")
		bad(name, problem)
	}
	for name, n := range map[string]int{"MAX_BRIDGES": c.MaxBridges, "MAX_STREAMS": c.MaxStreams} {
		if n < 1 {
			bad(name, fmt.Sprintf("%d lets nobody in", n))
		}
	}
	if c.DialTimeout <= 0 {
		bad("DIAL_TIMEOUT", fmt.Sprintf("%v leaves a target no time", c.DialTimeout))
	}
	for _, err := range unjoin(cfg.Validate()) {
		field, problem, _ := strings.Cut(err.Error(), ": ")
		if name, ok := fields[field]; ok { // Source comes next
			bad(name, problem)
		}
	}
	switch c.Signals {
	case "fake":
		cfg.Source, err = fake.NewRemoteSource(fake.RemoteConfig{URL: c.FakeURL, DeviceID: c.DeviceID, Logger: cfg.Logger})
		if err != nil && !isBad("DEVICE_ID") {
			bad("FAKE_URL", err.Error())
		}
	case "": // Load has said that it is missing
	default:
		bad("SIGNALS", fmt.Sprintf("%q is not known; fake is", c.Signals))
	}
	if len(faults) > 0 {
		return deviceagent.Config{}, faults
	}
	if len(targets.Names()) == 0 {
		cfg.Logger.Warn("AGENT_TARGETS is empty: nothing on this device can be reached")
	}
	return cfg, nil
}

// unjoin splits what errors.Join has made.
func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return nil
}
