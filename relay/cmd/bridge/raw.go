package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
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
receiving until the device closes; with -N it closes the bridge instead.`,
		Example:     `  bridge raw pump-7 console`,
		Args:        args(1, 2, "a device and perhaps a target"),
		Annotations: map[string]string{"relay": "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			return raw(cmd.Context(), ui, s.client, client.Request{Device: a[0], Targets: a[1:], Data: data}, closeOnEOF, text)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "request data for the device, opaque to the relay")
	cmd.Flags().BoolVarP(&closeOnEOF, "close-on-eof", "N", false, "close the bridge at the end of the input")
	cmd.Flags().BoolVar(&text, "text", false, "send text messages instead of binary ones; the input must be UTF-8")
	return cmd
}

func raw(ctx context.Context, ui *ui, cfg client.Config, req client.Request, closeOnEOF, text bool) error {
	c, err := client.DialRaw(ctx, cfg, req)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	ui.sayf("%s: connected", req.Device)
	closed := make(chan struct{})
	go func() { // left to the end of the process, like that of stdio
		_, err := io.Copy(messages{c, text}, ui.in)
		if err == nil && closeOnEOF {
			close(closed)
			c.Close()
		}
	}()
	_, err = io.Copy(ui.out, c)
	select {
	case <-closed:
		return nil
	default:
		return interrupted(ctx, client.Explain(err))
	}
}

// messages writes messages of one type.
type messages struct {
	c interface {
		WriteMessages(p []byte, text bool) (int, error)
	}
	text bool
}

func (m messages) Write(p []byte) (int, error) { return m.c.WriteMessages(p, m.text) }
