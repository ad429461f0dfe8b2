// Command relay runs one node: it joins requesters with devices that it reaches
// through a hub.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"websocketbridge/relay/settings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		if e := (exitError{}); errors.As(err, &e) {
			os.Exit(e.code)
		}
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

With an IoT Hub, and a certificate for the name that devices dial:

  RELAY_HUB_CONNECTION_STRING_FILE=/etc/relay/hub RELAY_API_KEYS=/etc/relay/api-keys \
  RELAY_TLS_CERT=cert.pem RELAY_TLS_KEY=key.pem RELAY_LISTEN=:443 \
  RELAY_PUBLIC_URL=wss://relay.example.com relay

On this machine, without a hub or TLS, and with a key of its own:

  relay hash-key me > api-keys
  RELAY_API_KEYS=api-keys RELAY_PLAIN=true RELAY_SIGNALER=fake relay

SIGTERM or Ctrl-C drains: no new bridges, and open ones may go on for RELAY_DRAIN.
A second signal ends them, a third one the process. SIGHUP, or a change of their
files, puts new keys, certificates and rules in force; open bridges stay.

The admin listener has /metrics for Prometheus. With OTEL_EXPORTER_OTLP_ENDPOINT, as
http://127.0.0.1:4318, bridges are traced; OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are heeded, too.

` + usage(),
		Args:          cobra.NoArgs,
		Version:       settings.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), out, errOut)
		},
	}
	root.AddCommand(newHashKey(), newTokenKey(), newKeygen(), newInit(), newCheckPolicy(), newHealthcheck(), &cobra.Command{
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
