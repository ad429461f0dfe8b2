//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it measures by /proc and runs on Linux only; the benchmarks of go test run anywhere")
	os.Exit(1)
}
