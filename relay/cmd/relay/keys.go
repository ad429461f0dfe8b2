package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
)

// newHashKey makes lines for the API keys file.
func newHashKey() *cobra.Command {
	var devices, targets, expires string
	var stdin bool
	cmd := &cobra.Command{
		Use:   "hash-key NAME",
		Short: "Make an API key and print the line for RELAY_API_KEYS",
		Long: `hash-key makes an API key. The key goes to standard error once and is kept
nowhere; the line for the file RELAY_API_KEYS, which holds a hash only, goes to
standard output:

  relay hash-key ops >> /etc/relay/api-keys
  relay hash-key ops >> /etc/relay/api-keys 2> ops.key

With --stdin it hashes the key on standard input instead.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("hash-key takes one name, for the log to say who came: relay hash-key ops")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key := auth.NewAPIKey()
			if stdin {
				var err error
				if key, err = readKey(cmd.InOrStdin()); err != nil {
					return err
				}
			}
			hash, err := auth.HashKey(key)
			if err != nil {
				return err
			}
			line := args[0] + " " + hash
			for _, o := range []struct{ name, value string }{{"devices", devices}, {"targets", targets}, {"expires", expires}} {
				if o.value != "" {
					line += " " + o.name + "=" + o.value
				}
			}
			if _, err := auth.ParseKeys(line); err != nil {
				return err
			}
			if !stdin {
				label := "" // a file gets the key alone
				if f, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
					label = "The key, which is kept nowhere: "
				}
				fmt.Fprintln(cmd.ErrOrStderr(), label+key)
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	cmd.Flags().StringVar(&devices, "devices", "", "patterns of devices the key may reach, as pump-*,valve-7 (default: all)")
	cmd.Flags().StringVar(&targets, "targets", "", "patterns of targets the key may reach, as ssh,web (default: all)")
	cmd.Flags().StringVar(&expires, "expires", "", "when the key ends, as 2027-01-31T00:00:00Z (default: never)")
	cmd.Flags().BoolVar(&stdin, "stdin", false, "hash the key on standard input")
	return cmd
}

func readKey(in io.Reader) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return "", errors.New("--stdin reads a key from a pipe or a file, not from a terminal, where it would show")
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// newTokenKey makes keys for RELAY_TOKEN_KEYS.
func newTokenKey() *cobra.Command {
	return &cobra.Command{
		Use:   "token-key",
		Short: "Make a key for RELAY_TOKEN_KEYS",
		Long: `token-key prints a new key for bridge tokens. All nodes behind one address need the
same keys. To rotate: put the new key behind the old one on every node, then in
front of it on every node, then take the old one away.

A node needs no restart for it: it logs "reloaded" with the keys' public names, in
order. After each step wait for that on every node, and before the last one also for
RELAY_DIAL_BACK and 5s more, when what the old key has sealed has expired.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := token.NewKey().Reveal()
			_, err := fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
}
