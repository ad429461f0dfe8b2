//go:build race

package e2e_test

const (
	cycles     = 2_000
	streamSize = 256 << 10 // bytes, and up to twice as many
)
