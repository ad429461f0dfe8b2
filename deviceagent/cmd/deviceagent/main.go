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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal ends politely, a second one kills
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "deviceagent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, logTo io.Writer) error {
	switch {
	case len(args) == 0:
	case len(args) == 1 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help"):
		fmt.Fprint(out, "deviceagent serves bridges on a device. It takes its settings from the environment.\n\n")
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

	var c config
	loadErr := settings.Load("AGENT", &c)
	cfg, err := c.prepare()
	log, logErr := c.Log.New("AGENT", logTo)
	if err := errors.Join(loadErr, err, logErr); err != nil {
		return err
	}
	cfg.Logger = log
	cfg.Source, err = fake.NewRemoteSource(fake.RemoteConfig{URL: c.FakeURL, DeviceID: c.DeviceID, Logger: cfg.Logger})
	if err != nil {
		return fmt.Errorf("AGENT_FAKE_URL: %w", err)
	}
	agent, err := deviceagent.New(cfg)
	if err != nil {
		return err
	}
	defer log.Info("agent stopped")
	return agent.Run(ctx)
}

// prepare reports every fault at once.
func (c *config) prepare() (deviceagent.Config, error) {
	var errs []error
	targets, err := deviceagent.ParseTargets(c.Targets)
	if err != nil {
		errs = append(errs, fmt.Errorf("AGENT_TARGETS: %w", err))
	}
	roots, err := ws.LoadRoots(c.CAFile)
	if err != nil {
		errs = append(errs, fmt.Errorf("AGENT_CA_FILE: %w", err))
	}
	if c.Signals != "fake" && c.Signals != "" { // Load has said that it is missing
		errs = append(errs, fmt.Errorf("AGENT_SIGNALS: %q is not known; fake is", c.Signals))
	}
	return deviceagent.Config{
		DeviceID: c.DeviceID, RelayHosts: c.RelayHosts, AllowPlain: c.AllowPlain, Targets: targets,
		MaxBridges: c.MaxBridges, MaxStreams: c.MaxStreams, DialTimeout: c.DialTimeout,
		Dialer: ws.Dialer{TLS: &tls.Config{RootCAs: roots}},
	}, errors.Join(errs...)
}
