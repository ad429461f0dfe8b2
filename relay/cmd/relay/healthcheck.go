package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"websocketbridge/relay/wire"
)

// healthTime is for the whole answer: less than the 30 s that Docker gives a check,
// and longer than a node takes that is busy but well.
const healthTime = 5 * time.Second

// defaultAdmin is RELAY_ADMIN_LISTEN's default.
const defaultAdmin = "127.0.0.1:9090"

// newHealthcheck asks the admin listener, for images without a shell or curl.
func newHealthcheck() *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the node on this machine, or in this container, whether it is well",
		Long: `healthcheck asks the admin listener of the node that runs here with the same
RELAY_ADMIN_LISTEN for /healthz, prints the answer, and exits with 0 if it is good,
or else with 1. It is for containers, which have no other program:

  HEALTHCHECK CMD ["/relay", "healthcheck"]

With --ready it asks for /readyz, which also says no while the node drains, and while
it cannot write its audit log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			listen, set := os.LookupEnv("RELAY_ADMIN_LISTEN")
			if set && listen == "" {
				return errors.New("RELAY_ADMIN_LISTEN is empty, so the node has no admin listener to ask")
			}
			path := wire.PathHealthz
			if ready {
				path = wire.PathReadyz
			}
			answer, err := askAdmin(cmd.Context(), cmp.Or(listen, defaultAdmin), path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it takes new bridges, too")
	return cmd
}

// askAdmin returns the first words of what the admin listener at listen says.
func askAdmin(ctx context.Context, listen, path string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("RELAY_ADMIN_LISTEN: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost" // it listens there as well, by the one family or the other
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return "", fmt.Errorf("RELAY_ADMIN_LISTEN: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("no node answers at RELAY_ADMIN_LISTEN: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("the node's answer: %w", err)
	}
	text := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the node says %d: %s", res.StatusCode, text)
	}
	return text, nil
}
