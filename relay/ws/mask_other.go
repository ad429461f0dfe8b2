//go:build !amd64

package ws

const (
	blockSize = 1
	wide      = false
)

func maskBlocks(_, _ *byte, _ int, _ uint32) { panic("ws: no wide registers") }
