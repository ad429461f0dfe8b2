// Command bridge reaches a device through a relay: tunnels for any TCP program,
// a pipe for ssh's ProxyCommand, or a raw bridge.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	envsettings "websocketbridge/relay/settings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // the last is how ssh ends a ProxyCommand
	context.AfterFunc(ctx, stop)                                                                           // the first signal ends politely, a second one kills
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
	cmd, err := root.ExecuteContextC(ctx)
	ui.dataOut = cmd.Annotations[stdoutIsData] != ""
	// Where the flags could not be read, --json may be behind the wrong one.
	ui.json = ui.json || err != nil && slices.Contains(args, "--json")
	return ui.exit(err)
}

// Annotations of subcommands.
const (
	needsRelay   = "relay"  // its settings are loaded
	stdoutIsData = "stdout" // standard output belongs to the device
)

func newRoot(ui *ui) *cobra.Command {
	var s settings
	root := &cobra.Command{
		Use:   "bridge",
		Short: "Reach a device behind a firewall through a relay",
		Long: `bridge reaches a device behind a firewall: a relay tells the device through its
IoT hub, the device dials back, and the relay joins both ends.

  bridge tunnel pump-7 8080:web     the device's web server on local port 8080
  bridge stdio pump-7 ssh           a pipe, for ssh's ProxyCommand
  bridge raw pump-7                 a bridge without a protocol of ours
  bridge can-i pump-7 ssh           whether the relay allows it, and why

Settings come from flags or from the environment; an API key never from a flag,
where every user of this machine could read it in the process list.

` + settingsHelp + `

` + exitHelp,
		Version:       envsettings.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, a []string) error {
			if len(a) == 0 {
				return nil
			}
			hint := "see bridge --help"
			if near := cmd.SuggestionsFor(a[0]); len(near) > 0 {
				hint = "did you mean bridge " + strings.Join(near, " or bridge ") + "?"
			}
			return hintError{usagef("there is no command %q", a[0]), hint}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			ui.dataOut = cmd.Annotations[stdoutIsData] != ""
			if cmd.Annotations[needsRelay] == "" {
				return nil
			}
			return s.load()
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.Contains(err.Error(), "api-key") && !strings.Contains(err.Error(), "api-key-file") {
			return hintError{usageError{err}, "an API key in a flag could be read in the process list; use BRIDGE_API_KEY, BRIDGE_API_KEY_FILE or --api-key-file"}
		}
		return usageError{err}
	})
	f := root.PersistentFlags()
	f.StringVar(&s.relay, "relay", "", "`address` of the relay, as wss://relay.example.com (BRIDGE_RELAY)")
	f.StringVar(&s.keyFile, "api-key-file", "", "`file` with the API key (BRIDGE_API_KEY_FILE)")
	f.StringVar(&s.caFile, "ca-file", "", "PEM `file` with certificates to trust besides the system's (BRIDGE_CA_FILE)")
	f.BoolVar(&s.allowPlain, "allow-plain", false, "permit ws:// to a relay that is not on this machine (BRIDGE_ALLOW_PLAIN)")
	f.BoolVar(&ui.json, "json", false, "print events and errors as JSON, one a line, on standard output;\nstdio and raw print them on standard error")
	f.BoolVarP(&ui.verbose, "verbose", "v", false, "say what happens even where standard error is no terminal")
	root.AddCommand(newTunnel(ui, &s), newStdio(ui, &s), newRaw(ui, &s), newCanI(ui, &s), newLogin(ui, &s), newLogout(ui, &s), newVersion(ui))
	for _, c := range root.Commands() {
		c.ValidArgsFunction = cobra.NoFileCompletions // devices and targets are no files
	}
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(*cobra.Command, []string) error {
			return usagef("completion takes a shell: bash, zsh, fish or powershell")
		}
	}
	return root
}

// args checks the number of arguments and says which are missing.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if len(a) < least || most >= 0 && len(a) > most {
			return hintError{usagef("%s takes %s", cmd.Name(), names), "bridge " + cmd.Use + "; see bridge " + cmd.Name() + " --help"}
		}
		return nil
	}
}
