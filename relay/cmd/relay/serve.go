package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"websocketbridge/relay"
	"websocketbridge/relay/settings"
	"websocketbridge/signaler/fake"
)

// serve runs a node until ctx ends and its drain is over.
func serve(ctx context.Context, logTo io.Writer) error {
	var c config
	loadErr := settings.Load("RELAY", &c)
	p, err := c.prepare()
	log, logErr := c.Log.New("RELAY", logTo)
	if err := errors.Join(loadErr, err, logErr); err != nil {
		return err
	}
	p.relay.Logger = log

	public, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("RELAY_LISTEN: %w", err)
	}
	defer public.Close()
	if p.tls != nil {
		public = tls.NewListener(public, p.tls)
	}
	var admin net.Listener
	if c.AdminListen != "" {
		if admin, err = net.Listen("tcp", c.AdminListen); err != nil {
			return fmt.Errorf("RELAY_ADMIN_LISTEN: %w", err)
		}
		defer admin.Close()
	}
	hubAddr, err := net.Listen("tcp", c.FakeListen)
	if err != nil {
		return fmt.Errorf("RELAY_FAKE_LISTEN: %w", err)
	}
	defer hubAddr.Close()
	hub := fake.New(fake.Config{Devices: c.FakeDevices, Logger: log})
	p.relay.Signaler = hub

	node, err := relay.New(p.relay)
	if err != nil {
		return err
	}
	// The hub outlives the drain: waiting devices may still be told.
	hubCtx, stopHub := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopHub()
	hubErr := make(chan error, 1)
	wg.Go(func() { hubErr <- hub.Serve(hubCtx, hubAddr) })

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	wg.Go(func() {
		select {
		case err := <-hubErr: // the fake hub failed: nothing can be signalled
			if hubCtx.Err() == nil {
				stop(fmt.Errorf("fake signaler: %w", err))
				node.Kill()
			}
		case <-hubCtx.Done():
		}
	})
	wg.Go(func() { killOnSignal(ctx, hubCtx, node) })

	if c.TokenKeys == "" {
		log.Info("no RELAY_TOKEN_KEYS: this node made its own, and no other node can read its tokens")
	}
	if c.Auth == "none" {
		log.Warn("RELAY_AUTH=none: everybody who reaches this node may reach every device")
	}
	log.Info("relay listens", "public", public.Addr().String(), "url", p.relay.PublicURL, "signaler", c.Signaler, "version", settings.Version())
	defer log.Info("relay stopped")
	if err := node.Run(ctx, public, admin); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != context.Canceled {
		return err
	}
	return nil
}

// killOnSignal ends a drain at the next signal. The one after that ends the
// process.
func killOnSignal(ctx, end context.Context, node *relay.Server) {
	select {
	case <-ctx.Done():
	case <-end.Done():
		return
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case <-again:
		node.Kill()
	case <-end.Done():
	}
}
