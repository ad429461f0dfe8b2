//go:build !windows

package main

import (
	"context"
	"os"
)

// start runs the command.
func start(ctx context.Context, args []string) error {
	return run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}
