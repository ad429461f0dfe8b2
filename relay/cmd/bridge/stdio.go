package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
)

func newStdio(ui *ui, s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "stdio DEVICE TARGET",
		Short: "Connect standard input and output to a target on the device",
		Long: `stdio connects standard input and output to a target on the device. The end of
the input is passed on while the answer still comes, as with nc -N.

It is made for ssh, and with it scp, sftp, rsync and VS Code. In ~/.ssh/config:

  Host pump-*
    ProxyCommand bridge stdio %n ssh`,
		Example:     `  ssh -o ProxyCommand='bridge stdio %n ssh' root@pump-7`,
		Args:        args(2, 2, "a device and a target"),
		Annotations: map[string]string{needsRelay: "yes", stdoutIsData: "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			return stdio(cmd.Context(), ui, s.client, a[0], a[1])
		},
	}
}

func stdio(ctx context.Context, ui *ui, cfg client.Config, device, target string) error {
	began := time.Now()
	sess, err := client.Dial(ctx, cfg, client.Request{Device: device, Targets: []string{target}})
	if err != nil {
		return interrupted(ctx, dialFailed(err, cfg))
	}
	defer sess.Close()
	took := time.Since(began)
	ui.event(upEvent{"up", device, sess.BridgeID, took.Milliseconds()})
	ui.detailf("%s: connected in %v, bridge %s", device, took.Round(time.Millisecond), sess.BridgeID)
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
	out := &watched{w: ui.out}
	if _, err := io.Copy(out, st); err != nil {
		if out.err != nil {
			return interrupted(ctx, out.err)
		}
		return interrupted(ctx, why(sess, err))
	}
	return interrupted(ctx, nil)
}

// watched tells a failure to write from one to read.
type watched struct {
	w   io.Writer
	err error
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}

// why prefers the reason that the relay gave for the whole bridge, and then the
// device's word for this stream.
func why(sess *client.Session, err error) error {
	if relay := (*client.Error)(nil); errors.As(sess.Why(), &relay) {
		return lostError{relay, sess.BridgeID}
	}
	if reset := (*session.ResetError)(nil); errors.As(err, &reset) && sess.Err() == nil {
		err = errors.New(reset.Code + ": " + reset.Message)
	}
	return lostError{err, sess.BridgeID}
}

// interrupted says whether the user ended it, which is no failure to explain.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}
