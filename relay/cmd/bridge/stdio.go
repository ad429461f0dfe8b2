package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
)

func newStdio(ui *ui, s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "stdio DEVICE TARGET",
		Short: "Connect standard input and output to a target on the device",
		Long: `stdio connects standard input and output to a target on the device. The end of
the input is passed on while the answer still comes, as with nc -N.

It is made for ssh, and with it scp, sftp, rsync and VS Code:

  Host pump-*
    ProxyCommand bridge stdio %n ssh`,
		Example:     `  ssh -o ProxyCommand='bridge stdio pump-7 ssh' root@pump-7`,
		Args:        args(2, 2, "a device and a target"),
		Annotations: map[string]string{"relay": "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			return stdio(cmd.Context(), ui, s.client, a[0], a[1])
		},
	}
}

func stdio(ctx context.Context, ui *ui, cfg client.Config, device, target string) error {
	sess, err := client.Dial(ctx, cfg, client.Request{Device: device, Targets: []string{target}})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer sess.Close()
	st, err := sess.Open(ctx, target)
	if err != nil {
		return interrupted(ctx, why(sess, err))
	}
	// Nothing can interrupt a read of standard input: when the output is done
	// this goroutine is left to the end of the process.
	go func() {
		if _, err := io.Copy(st, ui.in); err == nil {
			st.CloseWrite()
		}
	}()
	defer context.AfterFunc(ctx, func() { sess.Close() })()
	if _, err := io.Copy(ui.out, st); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return interrupted(ctx, why(sess, err))
	}
	return interrupted(ctx, st.Close())
}

// why prefers the reason that the relay gave for the whole bridge.
func why(sess *client.Session, err error) error {
	var relay *client.Error
	if errors.As(sess.Why(), &relay) {
		return relay
	}
	return err
}

// interrupted says whether the user ended it, which is no failure to explain.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}
