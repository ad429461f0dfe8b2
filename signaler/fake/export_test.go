package fake

import (
	"context"
	"net"
)

// ServeOn serves on a listener that is not on a loopback address.
func (h *Hub) ServeOn(ctx context.Context, ln net.Listener) error { return h.serve(ctx, ln) }

const (
	DeadAfter = deadAfter
	MaxReply  = maxReply
	MaxFaults = maxFaults
)
