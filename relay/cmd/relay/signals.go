package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/fake"
	"websocketbridge/signaler/method"
)

// signals is how devices are told, ready to run.
type signals struct {
	signaler signaler.Signaler
	run      func(ctx context.Context) error // until ctx ends; an earlier end is a fault
	close    func()                          // lets go of what was opened if it never ran
	about    []any                           // for the log
}

// openSignals makes the signaler that the settings name. Nothing runs yet.
func openSignals(c *config, h *hub, log *slog.Logger) (*signals, error) {
	if c.Signaler == viaFake {
		return openFake(c, log)
	}
	var (
		s     = &signals{close: func() {}, about: []any{"signaler", c.Signaler, "hub", h.name}}
		calls *method.Signaler
		msgs  *c2d.Signaler
		err   error
	)
	if c.Signaler != viaC2D {
		calls, err = method.New(method.Config{
			HostName: h.name, Addr: h.httpsAddr, Module: c.Hub.Module, Credential: h.credential, TLS: h.tls, Rate: h.rate, Burst: h.burst,
			AskOnce: c.Signaler == viaAuto && c.Hub.Module == "", Logger: log,
		})
		if err != nil {
			return nil, err
		}
		s.signaler = calls
	}
	if c.Signaler != viaMethod {
		cfg := c2d.Config{HostName: h.name, Addr: h.amqpAddr, Credential: h.credential, TLS: h.tls, WebSocket: c.Hub.WebSocket, Logger: log}
		if c.Hub.Feedback {
			cfg.Feedback = logFeedback(log)
		}
		if msgs, err = c2d.New(cfg); err != nil {
			return nil, err
		}
		s.signaler, h.renew = msgs, msgs.Renew
	}
	if c.Signaler == viaAuto {
		if s.signaler, err = auto.New(auto.Config{Method: calls, Message: msgs, Logger: log}); err != nil {
			return nil, err
		}
	}
	s.run = func(ctx context.Context) error {
		if calls != nil {
			defer calls.Close()
		}
		if msgs != nil {
			return msgs.Run(ctx)
		}
		checkToken(ctx, h.credential, log)
		<-ctx.Done()
		return nil
	}
	return s, nil
}

// checkToken says early what the first requester would run into. It is no fault: an
// identity may get its rights, and a network its way out, after the relay started.
func checkToken(ctx context.Context, source credential.Source, log *slog.Logger) {
	if _, err := source.Token(ctx); err != nil && ctx.Err() == nil {
		log.Warn("no token for the hub; devices cannot be told until there is one", "reason", err)
	}
}

// logFeedback tells what became of a message. The hub has one queue of such news for
// everybody, so some are about other applications' messages, and some of ours go
// to another node.
func logFeedback(log *slog.Logger) func(c2d.Feedback) {
	return func(f c2d.Feedback) {
		log.Info("feedback", "bridge", f.MessageID, "device", f.DeviceID, "status", f.Status, "description", f.Description)
	}
}

// openFake listens where agents of the fake hub come.
func openFake(c *config, log *slog.Logger) (*signals, error) {
	l, err := net.Listen("tcp", c.FakeListen)
	if err != nil {
		return nil, fmt.Errorf("RELAY_FAKE_LISTEN: %w", err)
	}
	hub := fake.New(fake.Config{Devices: c.FakeDevices, Logger: log})
	return &signals{
		signaler: hub, close: func() { l.Close() }, about: []any{"signaler", c.Signaler, "agents", l.Addr().String()},
		run: func(ctx context.Context) error {
			if err := hub.Serve(ctx, l); err != nil {
				return fmt.Errorf("fake signaler: %w", err)
			}
			return nil
		},
	}, nil
}

// errSignaler: the signaler ended before the relay did.
var errSignaler = errors.New("the signaler ended by itself")
