//go:build netns && linux

package netns_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"websocketbridge/test/front"
)

// frontEnv makes this binary a front, and is the address it listens on. Each line of
// standard input is a list of backends in JSON, and is answered with frontSet.
const frontEnv = "NETNS_FRONT"

const frontSet = "backends are set"

// runFront is a front until SIGTERM.
func runFront(set string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", set)
	if err != nil {
		return err
	}
	f := front.New(front.Config{
		Ready: front.Readyz(func(backend string) string {
			host, _, _ := net.SplitHostPort(backend)
			return "http://" + net.JoinHostPort(host, adminPort) + "/readyz"
		}),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	go func() { // ends with the process: nothing ends a read of standard input
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			var backends []string
			if err := json.Unmarshal(lines.Bytes(), &backends); err != nil {
				fmt.Println("not a list:", err)
				continue
			}
			f.SetBackends(backends)
			fmt.Println(frontSet, strings.Join(backends, ","))
		}
	}()
	fmt.Println("front listens")
	return f.Run(ctx, l)
}
