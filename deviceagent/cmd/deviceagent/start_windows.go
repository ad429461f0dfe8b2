package main

import (
	"bytes"
	"context"
	"os"
	"strings"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"websocketbridge/deviceagent/service"
)

// start runs the command, as a service if the service manager has started this process.
func start(ctx context.Context, args []string) error {
	if is, err := svc.IsWindowsService(); err != nil || !is {
		return run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
	}
	log, err := eventlog.Open(service.Name)
	if err != nil {
		return err
	}
	defer log.Close()
	return svc.Run(service.Name, &windowsAgent{ctx: ctx, args: args, log: log})
}

// eventID is what all entries have: eventlog's own message file knows 1 to 1000.
const eventID = 1

// windowsAgent is the agent as the service manager sees it.
type windowsAgent struct {
	ctx  context.Context // main's; a svc.Handler gets none
	args []string
	log  *eventlog.Log
}

// Execute implements svc.Handler.
func (a *windowsAgent) Execute(_ []string, requests <-chan svc.ChangeRequest, tell chan<- svc.Status) (specific bool, code uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	tell <- svc.Status{State: svc.StartPending}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, a.args, nil, eventWriter{a.log}, eventWriter{a.log}) }()
	tell <- svc.Status{State: svc.Running, Accepts: accepts}
	for {
		select {
		case err := <-ended:
			tell <- svc.Status{State: svc.StopPending}
			if err == nil {
				return false, 0
			}
			a.log.Error(eventID, "deviceagent: "+err.Error())
			return true, uint32(exitStatus(err)) // the manager starts it again
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				tell <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				tell <- svc.Status{State: svc.StopPending, WaitHint: 30_000} // ms
				cancel()
				<-ended
				return false, 0
			}
		}
	}
}

// eventWriter writes log lines as events. What it is given is one line of slog's.
type eventWriter struct{ log *eventlog.Log }

func (w eventWriter) Write(p []byte) (int, error) {
	line := strings.ReplaceAll(string(bytes.TrimSpace(p)), "\x00", "") // Windows takes it for the end
	put := w.log.Info
	switch {
	case strings.Contains(line, "level=ERROR") || strings.Contains(line, `"level":"ERROR"`):
		put = w.log.Error
	case strings.Contains(line, "level=WARN") || strings.Contains(line, `"level":"WARN"`):
		put = w.log.Warning
	}
	if err := put(eventID, line); err != nil {
		return 0, err
	}
	return len(p), nil
}
