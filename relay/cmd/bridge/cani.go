package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

func newCanI(ui *ui, s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "can-i DEVICE [TARGET …]",
		Short: "Say whether the relay lets you reach a device, and why",
		Long: `can-i asks the relay whether it lets you reach a device, or targets on it, and says
why or why not. Nothing is sent to the device, and a yes does not mean that it is
there, or that its owner allows the target. It exits with 0 for yes and 4 for no.`,
		Example:     `  bridge can-i pump-7 ssh`,
		Args:        args(1, 1+wire.MaxTargets, "a device and perhaps targets"),
		Annotations: map[string]string{needsRelay: "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			return canI(cmd.Context(), ui, s.client, client.Request{Device: a[0], Targets: a[1:]})
		},
	}
}

// A canIEvent is the answer as JSON.
type canIEvent struct {
	Event  string `json:"event"` // "can-i"
	Device string `json:"device"`
	Target string `json:"target,omitempty"`
	wire.Permission
}

func canI(ctx context.Context, ui *ui, cfg client.Config, req client.Request) error {
	p, err := client.CanI(ctx, cfg, req)
	if err != nil {
		return interrupted(ctx, dialFailed(err, cfg))
	}
	p.Why, p.Rule = oneLine(p.Why), oneLine(p.Rule)
	if ui.json {
		ui.event(canIEvent{"can-i", req.Device, wire.JoinTargets(req.Targets), p})
	} else {
		ui.printf("%s: %s", map[bool]string{true: "yes", false: "no"}[p.Allowed], printable(cmp.Or(p.Why, "the relay does not say why")))
		if text := capsText(p.Caps); text != "" {
			ui.printf("%s", text)
		}
	}
	if !p.Allowed {
		return errNo
	}
	return nil
}

// errNo ends can-i when it has said so.
var errNo = errors.New("no")

// capsText says what a bridge may be, for a person.
func capsText(c *wire.Caps) string {
	if c == nil {
		return ""
	}
	var parts []string
	add := func(n int64, format string, arg any) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(format, arg))
		}
	}
	add(c.MaxDuration, "%v long", time.Duration(c.MaxDuration)*time.Second)
	add(c.Idle, "%v idle", time.Duration(c.Idle)*time.Second)
	add(c.MaxBytes, "%d bytes", c.MaxBytes)
	add(int64(c.Bridges), "%d bridges at once", c.Bridges)
	add(int64(c.ConnectsPerMinute), "%d connects a minute", c.ConnectsPerMinute)
	if len(parts) == 0 {
		return ""
	}
	return "at most " + strings.Join(parts, ", ")
}
