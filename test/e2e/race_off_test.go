//go:build !race

package e2e_test

const (
	cycles     = 10_000
	streamSize = 4 << 20 // bytes, and up to twice as many
)
