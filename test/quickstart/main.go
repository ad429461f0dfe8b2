// Command quickstart shows a bridge without any account or configuration: a
// relay of several nodes, a device agent with a small web server behind it, a fake
// hub between them, and a tunnel through which it fetches a page. All sockets are real and
// on the loopback address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one kills
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

const usage = `quickstart shows a bridge on this machine: a relay, a device, and a page fetched
from the device through the relay. It needs nothing and leaves nothing behind.

  go run ./test/quickstart           stays up until Ctrl-C, to be played with
  go run ./test/quickstart -once     ends after the page, with exit code 0 if it came
  go run ./test/quickstart -nodes 3  how many nodes the relay has, 1 to 9; without it 2, so that one
                                     passes the device on to the other
  go run ./test/quickstart -v        also shows the logs of the relay and the agent
  go run ./test/quickstart -hub      the signal takes the way it takes with Azure IoT Hub: AMQP and
                                     MQTT with keys and TLS, to a hub emulated here; -hub=method: HTTPS
`

func run(ctx context.Context, args []string, out, logTo io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error
	once := flags.Bool("once", false, "")
	verbose := flags.Bool("v", false, "")
	nodes := flags.Int("nodes", 2, "")
	var hub hubMode
	flags.Var(&hub, "hub", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
		return err
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	case err == nil && (*nodes < 1 || *nodes > maxNodes):
		err = fmt.Errorf("-nodes %d: a relay here has 1 to %d nodes", *nodes, maxNodes)
	}
	if err != nil {
		return fmt.Errorf("%w\n\n%s", err, usage)
	}
	d := demo{out: out, hub: hub, once: *once, nodes: *nodes, log: slog.New(slog.DiscardHandler)}
	if *verbose {
		d.log = slog.New(slog.NewTextHandler(logTo, nil))
	}
	return d.run(ctx)
}
