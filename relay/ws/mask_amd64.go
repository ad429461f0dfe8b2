package ws

import "golang.org/x/sys/cpu"

// blockSize is what maskBlocks does at a time; it does not run where there is no AVX2.
const blockSize = 128

var wide = cpu.X86.HasAVX2

// maskBlocks is Mask for n bytes, a multiple of blockSize and not 0.
//
//go:noescape
func maskBlocks(dst, src *byte, n int, key uint32)
