package main

import (
	"context"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

func newRaw(ui *ui, s *settings) *cobra.Command {
	var data string
	var closeOnEOF, text bool
	cmd := &cobra.Command{
		Use:   "raw DEVICE [TARGET]",
		Short: "Connect standard input and output to a raw bridge",
		Long: `raw connects standard input and output to a raw bridge: one WebSocket, no protocol
of ours on it, for devices with an agent of another make. A device that runs ours
serves its target "default" when none is named.

A WebSocket cannot end in one direction only. At the end of the input raw keeps
receiving until the device closes; with -N it closes the bridge instead, and what
the device still sends is lost.`,
		Example:     `  bridge raw pump-7 console`,
		Args:        args(1, 2, "a device and perhaps a target"),
		Annotations: map[string]string{needsRelay: "yes", stdoutIsData: "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			return raw(cmd.Context(), ui, s.client, client.Request{Device: a[0], Targets: a[1:], Data: data}, closeOnEOF, text)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "request `data` for the device, opaque to the relay")
	cmd.Flags().BoolVarP(&closeOnEOF, "close-on-eof", "N", false, "close the bridge at the end of the input")
	cmd.Flags().BoolVar(&text, "text", false, "send text messages instead of binary ones; the input must be UTF-8")
	return cmd
}

func raw(ctx context.Context, ui *ui, cfg client.Config, req client.Request, closeOnEOF, text bool) error {
	began := time.Now()
	c, err := client.DialRaw(ctx, cfg, req)
	if err != nil {
		return interrupted(ctx, dialFailed(err, cfg))
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	bridgeID := c.Header().Get(wire.HeaderBridgeID)
	took := time.Since(began)
	ui.event(upEvent{"up", req.Device, bridgeID, took.Milliseconds()})
	ui.sayf("%s: connected in %v, bridge %s", req.Device, took.Round(time.Millisecond), bridgeID)
	sent := make(chan error, 1)
	go func() { // left to the end of the process, like that of stdio
		err := send(c, ui.in, text)
		if closed := err == nil && closeOnEOF; closed || errors.Is(err, errNotText) {
			sent <- err
			c.Close()
		}
	}()
	out := &watched{w: ui.out}
	_, err = io.Copy(out, c)
	select {
	case inErr := <-sent:
		return inErr
	default:
	}
	switch {
	case out.err != nil:
		err = out.err
	case err != nil:
		err = lostError{client.Explain(err), bridgeID}
	}
	return interrupted(ctx, err)
}

var errNotText = errors.New("the input is not UTF-8, which --text needs")

// maxMessage is at most what ws makes one message of: it would cut a character.
const maxMessage = 16 << 10

// send copies in to c. A text message holds whole characters (RFC 6455 section
// 5.6), wherever the reads end.
func send(c *ws.Conn, in io.Reader, text bool) error {
	buf := make([]byte, maxMessage)
	kept := 0
	for {
		n, err := in.Read(buf[kept:])
		n += kept
		whole := n
		if text {
			whole = n - cutRune(buf[:n])
			if !utf8.Valid(buf[:whole]) || err != nil && whole < n {
				return usageError{hintError{errNotText, "without --text any bytes will do"}}
			}
		}
		if whole > 0 {
			if _, werr := c.WriteMessages(buf[:whole], text); werr != nil {
				return werr
			}
		}
		kept = copy(buf, buf[whole:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// cutRune is how many bytes at the end of p begin a character that goes on.
func cutRune(p []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if last := p[len(p)-i:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return i
		}
	}
	return 0
}
