package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// healthTime is for the whole handshake.
const healthTime = 5 * time.Second

// newHealthcheck shakes hands with a running emulator, for images without a shell.
// usage becomes false once the flags are read.
func newHealthcheck(usage *bool) *cobra.Command {
	addr := "127.0.0.1:8883"
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "See whether an emulator answers, for containers",
		Long: `healthcheck makes a TLS handshake with a running emulator, and exits with 0 if it
answers, or else with 1. It does not look at the certificate, and says nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			*usage = false
			return greet(cmd.Context(), addr)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", addr, "`ADDR` of one of its ports")
	return cmd
}

func greet(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	// Whether it is there is all that is asked, and nothing is told to it.
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // #nosec G402 -- a healthcheck of its own container
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("no emulator answers at %s: %w", addr, err)
	}
	return c.Close()
}
