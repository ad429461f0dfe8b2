package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/socket"
	"websocketbridge/deviceagent/status"
	"websocketbridge/relay/settings"
)

const statusHelp = `
What the agent does, for a person or a script beside the device:
  deviceagent status [--json | --quiet] [--socket ADDRESS]
It exits with 0 if signals reach the agent, 1 if they do not, 2 if no agent runs, and 4
if that cannot be told: this user may not ask, or the arguments are wrong.
`

// Exit statuses of deviceagent status, besides 0.
const (
	exitNotConnected = 1
	exitNotRunning   = 2
	exitCannotTell   = 4
)

// statusTime is for an answer; a healthcheck's own limit is longer as a rule.
const statusTime = 5 * time.Second

// statusError is the end of deviceagent status that is not 0. An empty text has been
// said already.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// showStatus is deviceagent status.
func showStatus(ctx context.Context, args []string, out io.Writer) error {
	var inJSON, quiet bool
	address, _ := os.LookupEnv("AGENT_STATUS_SOCKET")
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch {
		case name == "--json" && !joined:
			inJSON = true
		case (name == "--quiet" || name == "-q") && !joined:
			quiet = true
		case name == "--socket" && joined && value != "":
			address = value
		case name == "--socket" && !joined && len(args) > 0:
			address, args = args[0], args[1:]
		default:
			return &statusError{exitCannotTell, fmt.Sprintf("status does not know %q; it takes --json, --quiet and --socket ADDRESS", name)}
		}
	}
	if address != "" {
		if err := status.Check(address); err != nil {
			return &statusError{exitCannotTell, "status: the socket " + err.Error()}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statusTime, fmt.Errorf("no answer within %v", statusTime))
	defer cancel()
	b, err := status.Ask(ctx, address)
	switch {
	case errors.Is(err, status.ErrNotRunning):
		return &statusError{exitNotRunning, "status: " + err.Error()}
	case err != nil:
		return &statusError{exitCannotTell, "status: " + err.Error()}
	}
	report, err := status.Parse(b)
	if err != nil {
		return &statusError{exitCannotTell, "status: " + err.Error()}
	}
	switch {
	case quiet:
	case inJSON:
		_, err = out.Write(b)
	default:
		err = report.Text(out)
	}
	if err != nil {
		return &statusError{exitCannotTell, "status: print: " + err.Error()}
	}
	if !report.Connected() {
		return &statusError{code: exitNotConnected}
	}
	return nil
}

// life is what others than the agent itself are told of it: who asks at the status
// socket, and the service manager.
type life struct {
	agent   *deviceagent.Agent
	log     *slog.Logger
	waiting atomic.Pointer[string] // why the agent does not run for the moment; nil: it does
}

func (l *life) report() status.Report {
	r := status.Report{Version: settings.Version(), PID: os.Getpid(), Now: time.Now(), Status: l.agent.Status()}
	if w := l.waiting.Load(); w != nil {
		r.Waiting = *w
	}
	return r
}

// begin serves the status and tells the service manager until the function it returns
// is called. A socket that somebody has named has to be had.
func (l *life) begin(ctx context.Context, address string) (end func(), err error) {
	ln, err := status.Listen(ctx, address)
	switch {
	case err != nil && address != "":
		return nil, fmt.Errorf("AGENT_STATUS_SOCKET: %w", err)
	case errors.Is(err, socket.ErrInUse):
		l.log.Info("another agent answers deviceagent status; AGENT_STATUS_SOCKET gives this one a place of its own")
	case err != nil:
		l.log.Info("deviceagent status is not answered; AGENT_STATUS_SOCKET can name another place", "reason", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	if err == nil && ln != nil {
		l.log.Debug("status is served", "socket", ln.Addr().String())
		work.Go(func() { status.Serve(ctx, ln, l.log, l.report) })
	}
	work.Go(func() { l.notify(ctx) })
	return func() {
		cancel()
		work.Wait()
	}, nil
}
