// Command emulator runs an IoT Hub in memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"websocketbridge/relay/settings"
	"websocketbridge/test/emulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal stops, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes.
const (
	exitOK     = 0 // told to stop
	exitFailed = 1 // it could not listen, write a file, or go on
	exitUsage  = 2 // a flag is wrong
)

// run is main without the process.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	var (
		o     options
		usage = true // until the flags are read
	)
	root := &cobra.Command{
		Use:           "emulator",
		Short:         "An IoT Hub in memory: MQTT, AMQP and REST over TLS",
		Long:          long,
		Example:       example,
		Args:          cobra.NoArgs,
		Version:       settings.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config(errOut)
			if err != nil {
				return err
			}
			usage = false
			return serve(cmd.Context(), o, cfg, out)
		},
	}
	o.flags(root)
	root.AddCommand(newHealthcheck(&usage))
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case usage:
		fmt.Fprintf(errOut, "emulator: %v\nhint: emulator --help lists the flags\n", err)
		return exitUsage
	}
	fmt.Fprintln(errOut, "emulator:", strings.TrimPrefix(err.Error(), "emulator: "))
	return exitFailed
}

var long = `emulator runs an IoT Hub in memory, for tests and for trying things out without
Azure. Programs that use Microsoft's SDKs talk to it unchanged: they need a
connection string that it prints, and its CA.

Every start makes a new hub with new keys and a new CA, and nothing outlives the
process. The CA's key is in no file. What is printed are keys of that throw-away
hub: they open nothing else.

Microsoft's SDKs dial fixed ports, which are the defaults here: MQTT 8883, AMQP
5671, and 443 for REST and for both protocols over WebSocket. Below 1024 a port
needs root or CAP_NET_BIND_SERVICE. With another --https-port a device can still
use MQTT, and a service AMQP; REST (direct methods, the registry) and WebSockets
of Microsoft's Node SDKs cannot be told another port.

Faults are JSON, by --faults or PUT /faults of the admin API. Each may say when:
"nth":2, "every":3, "times":5 and "device":"pump-7"; otherwise it strikes always.
At most one of nth, every and times.

` + faultLines + `
Errors of method and rest: ` + errorNames() + `.

Exit codes: 0 after SIGINT or SIGTERM, 1 if it cannot run, 2 for a wrong flag.`

// faultLines are examples of every fault, a line each. Tests read them.
const faultLines = `  {"method":{"error":"throttled","retryAfter":"3s","every":3}}  an error of direct methods
  {"method":{"stall":true}}                            no answer; "garbage": HTML; "delay":"2s"
  {"rest":{"error":"unavailable","times":5}}           the same, of every other request
  {"errorForm":"old"}                                  errors as "ErrorCode:…;…"; "new": JSON within JSON
  {"c2d":{"outcome":"rejected","condition":"amqp:internal-error"}}  also released, modified, none
  {"c2dDuplicate":{"nth":2}}                           a message arrives twice
  {"feedback":{}}                                      feedback is lost
  {"listenLag":"2s"}                                   404103 for a while after SUBSCRIBE
  {"amqp":{"flowWithoutNextIncomingId":true}}          as hubs on Gateway v2 do
  {"amqp":{"sasl":"required"}}                         or refused
  {"amqp":{"cbs":{"status":401}}}                      put-token is refused; cbsMute: not answered
  {"amqp":{"link":{"address":"devicebound","condition":"amqp:link:detach-forced"}}}
  {"amqp":{"credit":{},"cut":{},"halfOpen":{}}}        no credit; cut in mid-frame; silence
  {"mqtt":{"connAck":{"code":5}}}                      CONNECT is refused; connAckMute: not answered
  {"mqtt":{"pubAckDelay":"5s"}}                        pubAckMute: no PUBACK; pingMute: no PINGRESP
  {"mqtt":{"cut":{},"halfOpen":{}}}                    cut in the middle of a PUBLISH; silence
  {"mqtt":{"deaf":{"filter":"methods","how":"lie"}}}   SUBSCRIBE without effect; refuse, ignore
  {"mqtt":{"methodQoS":1,"propertiesFirst":true,"duplicate":{}}}
`

func errorNames() string { return strings.Join(emulator.FaultErrors(), ", ") }

const example = `  # A hub with two devices, one with a module; faults and telemetry over the admin API
  sudo emulator --device pump-7 --device pump-8/bridge --ca-out /tmp/hub-ca.pem --admin 127.0.0.1:7072

  # A Node program with Microsoft's SDKs; the variable has to be set before node starts
  NODE_EXTRA_CA_CERTS=/tmp/hub-ca.pem CONNECTION_STRING='HostName=localhost;DeviceId=pump-7;…' node device.js

  # Without root, on ports that are free
  emulator --mqtt-port 0 --amqp-port 0 --https-port 0 --device pump-7 --connections-out hub.json --ca-out hub-ca.pem

  # One call in three is throttled from now on
  curl -X PUT localhost:7072/faults -d '{"method":{"error":"throttled","retryAfter":"3s","every":3}}'

  # What devices send
  curl -N localhost:7072/events?follow=1`

// serve runs the hub until ctx ends.
func serve(ctx context.Context, o options, cfg emulator.Config, out io.Writer) error {
	hub, err := emulator.New(cfg)
	if err != nil {
		return o.explain(err)
	}
	defer hub.Close() // if it never runs
	about, err := describe(hub)
	if err != nil {
		return err
	}
	if o.caOut != "" {
		if err := writeFile(o.caOut, hub.CAPEM(), 0o644); err != nil {
			return fmt.Errorf("--ca-out: %w", err)
		}
	}
	if o.connectionsOut != "" {
		if err := writeFile(o.connectionsOut, about.json(), 0o600); err != nil {
			return fmt.Errorf("--connections-out: %w", err)
		}
	}
	if o.keysDir != "" {
		if err := about.writeKeys(o.keysDir); err != nil {
			return fmt.Errorf("--keys-dir: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	about.print(out, o)
	if o.printEvents {
		wg.Go(func() { printEvents(ctx, hub, out) })
	}
	return hub.Run(ctx)
}

// explain adds what to do to an error of a listener.
func (o options) explain(err error) error {
	e, ok := errors.AsType[*emulator.ListenError](err)
	if !ok {
		return err
	}
	flag := map[string]string{"MQTTAddr": "--mqtt-port", "AMQPAddr": "--amqp-port", "HTTPSAddr": "--https-port", "AdminAddr": "--admin"}[e.Field]
	switch {
	case errors.Is(err, syscall.EACCES):
		hint := "run it as root, give the program the right (sudo setcap cap_net_bind_service=+ep FILE), or choose " + flag + " above 1023"
		if e.Field == "HTTPSAddr" {
			hint += ", such as --https-port 8443; REST and WebSockets of Microsoft's Node SDKs need 443, MQTT and AMQP do not"
		}
		return fmt.Errorf("%w\nhint: %s is a port of root's: %s", err, e.Addr, hint)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w\nhint: another program listens there; end it, or choose %s 0 for a port that is free, or another --listen address such as 127.0.0.2", err, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w\nhint: --listen is to be an address of this machine, such as 127.0.0.1", err)
	}
	return err
}

func (o options) addr(port int) string { return net.JoinHostPort(o.listen, strconv.Itoa(port)) }

func (o options) logger(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
