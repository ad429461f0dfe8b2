// Command bridge reaches a device through a relay: tunnels for any TCP program,
// a pipe for ssh's ProxyCommand, or a raw bridge.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	envsettings "websocketbridge/relay/settings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal ends politely, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	ui := &ui{in: in, out: out, err: errOut}
	root := newRoot(ui)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	return ui.exit(err)
}

func newRoot(ui *ui) *cobra.Command {
	var s settings
	root := &cobra.Command{
		Use:   "bridge",
		Short: "Reach a device behind a firewall through a relay",
		Long: `bridge reaches a device behind a firewall: a relay tells the device through its
IoT hub, the device dials back, and the relay joins both ends.

Settings come from flags or from the environment; an API key never from a flag,
where every user of this machine could read it in the process list.

` + settingsHelp + `

` + exitHelp,
		Version:       envsettings.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return s.load(cmd)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&s.relay, "relay", "", "address of the relay, as wss://relay.example.com (BRIDGE_RELAY)")
	f.StringVar(&s.keyFile, "api-key-file", "", "file with the API key (BRIDGE_API_KEY_FILE)")
	f.StringVar(&s.caFile, "ca-file", "", "PEM file with certificates to trust besides the system's (BRIDGE_CA_FILE)")
	f.BoolVar(&s.allowPlain, "allow-plain", false, "permit ws:// to a relay that is not on this machine (BRIDGE_ALLOW_PLAIN)")
	f.BoolVar(&ui.json, "json", false, "print events and errors as JSON, one a line, on standard output")
	f.BoolVarP(&ui.verbose, "verbose", "v", false, "say what happens even where standard error is no terminal")
	root.AddCommand(newTunnel(ui, &s), newStdio(ui, &s), newRaw(ui, &s), newVersion(ui))
	return root
}

// args checks the number of arguments and says which are missing.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if len(a) < least || most >= 0 && len(a) > most {
			return usagef("%s takes %s; see bridge %s --help", cmd.Name(), names, cmd.Name())
		}
		return nil
	}
}
