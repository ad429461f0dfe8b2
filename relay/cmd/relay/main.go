// Command relay runs one node: it joins requesters with devices that it reaches
// through a hub.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"websocketbridge/relay/settings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// run is main without the process.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	root := &cobra.Command{
		Use:   "relay",
		Short: "Join requesters with devices behind firewalls",
		Long: `relay runs one node. It takes its settings from the environment; secrets may be
in files instead, named by the variable with _FILE behind its name.

` + usage(),
		Args:          cobra.NoArgs,
		Version:       settings.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The first signal drains, a second one ends the drain, a third kills.
			drain, stopDrain := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stopDrain()
			return serve(drain, errOut)
		},
	}
	root.AddCommand(newHashKey(), newTokenKey(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "relay", settings.Version()) },
	})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return root.ExecuteContext(ctx)
}

func usage() string {
	var b strings.Builder
	if err := settings.Usage("RELAY", &config{}, &b); err != nil {
		return err.Error()
	}
	return b.String()
}
