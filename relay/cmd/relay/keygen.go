package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"websocketbridge/signaler"
)

// newKeygen makes keys for RELAY_SIGNAL_KEY and AGENT_SIGNAL_KEYS.
func newKeygen() *cobra.Command {
	var public bool
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key for RELAY_SIGNAL_KEY, and its public line for AGENT_SIGNAL_KEYS",
		Long: `keygen makes a key with which the relay signs what it tells devices (Ed25519). The
private key goes to standard output, for RELAY_SIGNAL_KEY_FILE of every node. The public
line goes to standard error; it is no secret, and for AGENT_SIGNAL_KEYS of every device:

  relay keygen > signal-key 2> signal-key.pub

With --public it prints the public line of the private key on standard input instead:

  relay keygen --public < signal-key

To rotate: give devices the new public line beside the old one, then the relay the new
private key, which it takes from its file without a restart and logs as "reloaded", and
RELAY_DIAL_BACK and 5s later take the old line away. Nodes may have keys of their own;
devices then list each.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if public {
				return printPublic(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			key := signaler.NewSigningKey()
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), key.Reveal()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), key.Public())
			return err
		},
	}
	cmd.Flags().BoolVar(&public, "public", false, "print the public line of the private key on standard input")
	return cmd
}

// maxKeyFile is in bytes: a key and what is said about it.
const maxKeyFile = 64 << 10

func printPublic(in io.Reader, out io.Writer) error {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return errors.New("--public reads a key from a pipe or a file, not from a terminal, where it would show")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return err
	}
	key, err := signaler.ParseSigningKey(string(b))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, key.Public())
	return err
}
