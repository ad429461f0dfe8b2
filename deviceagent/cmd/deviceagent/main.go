// Command deviceagent serves bridges on a device: it hears signals, dials back,
// and connects what comes to the local targets its owner listed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/settings"
	"websocketbridge/signaler"
)

const help = `deviceagent serves bridges on a device: it hears signals, dials the relay back, and
connects what comes to the targets listed here. Nothing else can be reached.
It takes its settings from the environment. As a device, or a module, of IoT Hub:

  AGENT_HUB_CONNECTION_STRING_FILE=device.txt AGENT_RELAY_HOSTS=relay.example.com AGENT_TARGETS=ssh=tcp:127.0.0.1:22 deviceagent

Beside a relay on the same machine, without a hub:

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

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded, also with user and password, for the
relay and for the hub. A proxy that allows only port 443 wants AGENT_HUB_WEBSOCKET=true.

A hub keeps one connection for each identity. Where another program has this device's,
give the agent a module of the device, with AGENT_HUB_CONNECTION_STRING of that module.
An agent that is evicted again and again ends with status 3; a supervisor that starts
it again at once would only go on with the fight.
`

func main() {
	ctx, stop := untilSignal()
	defer stop()
	if err := start(ctx, os.Args[1:]); err != nil {
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "deviceagent:", text)
		}
		os.Exit(exitStatus(err))
	}
}

// Exit statuses, for supervisors.
const (
	exitFault     = 1
	exitTakenOver = 3 // 2 is a panic's
)

func exitStatus(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.code
	}
	if errors.Is(err, signaler.ErrTakenOver) {
		return exitTakenOver
	}
	return exitFault
}

// untilSignal ends at the first signal, politely; a second one kills.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func run(ctx context.Context, args []string, in io.Reader, out, logTo io.Writer) error {
	first := ""
	if len(args) > 0 {
		first = args[0]
	}
	switch {
	case len(args) == 1 && (first == "-h" || first == "--help" || first == "help"):
		return printHelp(out)
	case len(args) == 1 && (first == "version" || first == "--version"):
		_, err := fmt.Fprintln(out, "deviceagent", settings.Version())
		return err
	case first == "status":
		return showStatus(ctx, args[1:], out)
	case first == "install" || first == "uninstall":
		return changeService(first, args[1:], out)
	case first == "handoff":
		return handOver(ctx, args[1:], in, out)
	}
	args, err := envFileFlag(args)
	if err != nil {
		return err
	}
	address, ok, err := handoffFlag(args)
	if err != nil {
		return err
	}
	if len(args) > 0 && !ok {
		return fmt.Errorf("unknown argument %q; settings come from the environment, see deviceagent --help", args[0])
	}
	cfg, own, err := load(address, in, out, logTo)
	if err != nil {
		return err
	}
	agent, err := deviceagent.New(cfg)
	if err != nil {
		return err
	}
	l := &life{agent: agent, log: cfg.Logger}
	end, err := l.begin(ctx, own.statusSocket)
	if err != nil {
		return err
	}
	defer cfg.Logger.Info("agent stopped")
	defer end()
	return ended(l.run(ctx, own.retryTakenOver), cfg.Logger)
}

// run runs the agent, again after a while if its identity was taken and retry is not 0.
func (l *life) run(ctx context.Context, retry time.Duration) error {
	for {
		err := l.agent.Run(ctx)
		if !errors.Is(err, signaler.ErrTakenOver) || retry == 0 || ctx.Err() != nil {
			return err
		}
		l.log.Error("another client has this agent's identity; trying again later", "in", retry, "reason", err)
		why := "another client has this agent's identity; trying again at " + time.Now().Add(retry).UTC().Format(time.RFC3339)
		l.waiting.Store(&why)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
		l.waiting.Store(nil)
	}
}

// envFileFlag takes --env-file FILE from the front of args and puts the file's variables
// into the environment, for service managers that cannot do that, or would show the
// secrets in it to others. What is set already stays.
func envFileFlag(args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	name, path, joined := strings.Cut(args[0], "=")
	switch {
	case name != "--env-file" && name != "-env-file":
		return args, nil
	case !joined && len(args) > 1:
		path, args = args[1], args[1:]
	}
	if path == "" {
		return nil, errors.New("--env-file takes a file with lines NAME=value")
	}
	vars, err := settings.ReadEnvFile(path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	for _, v := range vars {
		if _, set := os.LookupEnv(v.Name); set {
			continue
		}
		if err := os.Setenv(v.Name, v.Value); err != nil {
			return nil, fmt.Errorf("--env-file: %s: %s: %w", path, v.Name, err)
		}
	}
	return args[1:], nil
}

func printHelp(out io.Writer) error {
	fmt.Fprint(out, help)
	if err := settings.Usage("AGENT", &config{}, out); err != nil {
		return err
	}
	_, err := io.WriteString(out, targetsHelp+handoffHelp+statusHelp+serviceHelp)
	return err
}
