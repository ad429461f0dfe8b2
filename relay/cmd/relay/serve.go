package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/calm"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/ws"
)

// serve runs a node until ctx ends or a signal comes, and its drain is over.
func serve(ctx context.Context, out, logTo io.Writer) (err error) {
	hangups := make(chan os.Signal, 1) // from the first moment: who does not heed SIGHUP is ended by it
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	c, p, err := load(logTo)
	if err != nil {
		return err
	}
	log := p.log
	p.relay.Logger = log

	who, err := c.Audit.open(out, p.node, log)
	if err != nil {
		return err
	}
	if who != nil {
		p.relay.Audit = who
		auditReloads(who, p.watched)
		// It outlives all that has something to tell.
		auditCtx, stopAudit := context.WithCancel(context.Background())
		written := make(chan error, 1)
		go func() { written <- who.Run(auditCtx) }()
		defer func() {
			stopAudit()
			err = cmp.Or(err, <-written)
		}()
	}

	public, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("RELAY_LISTEN: %w", err)
	}
	defer public.Close()
	if p.relay.PublicURL == "" {
		p.relay.PublicURL = listenerURL(c.Listen, public.Addr(), p.tls != nil)
	}
	if c.ProxyProtocol { // its header comes before TLS begins
		public = &proxyListener{Listener: public, trusts: p.relay.Trusts, calm: &calm.Log{To: log, Lines: 1, Per: time.Minute}}
	}
	if p.tls != nil {
		public = tls.NewListener(ws.BatchedListener(public), p.tls)
	}
	var admin net.Listener
	if c.AdminListen != "" {
		if admin, err = net.Listen("tcp", c.AdminListen); err != nil {
			return fmt.Errorf("RELAY_ADMIN_LISTEN: %w", err)
		}
		defer admin.Close()
	}
	var peers net.Listener
	if p.node != nil {
		p.node.Logger = log
		if p.relay.Cluster, err = cluster.New(*p.node); err != nil {
			return err
		}
		if peers, err = net.Listen("tcp", c.Cluster.Listen); err != nil {
			return fmt.Errorf("RELAY_NODE_LISTEN: %w", err)
		}
		defer peers.Close()
	}
	sig, err := openSignals(c, p.hub, log)
	if err != nil {
		return err
	}
	defer sig.close()
	p.relay.Signaler = sig.signaler

	if p.traced {
		if p.relay.Tracer, err = openTraces(log); err != nil {
			return err
		}
		defer closeTraces(p.relay.Tracer, log) // when the last bridge has ended
	}
	node, err := relay.New(p.relay)
	if err != nil {
		return err
	}
	countReloads(node.Metrics(), p.watched)
	// The signaler outlives the drain: waiting devices may still be told.
	sigCtx, stopSig := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopSig()
	nodeCtx, drain := context.WithCancel(ctx)
	defer drain()
	var failed error // written before drain, read after Run
	wg.Go(func() {
		err := sig.run(sigCtx)
		if sigCtx.Err() == nil { // nothing can be signalled any more
			failed = cmp.Or(err, errSignaler)
			drain()
			node.Kill()
		}
	})
	told := make(chan os.Signal, 2) // one more may come while the first is heeded
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(told)
	wg.Go(func() { heed(sigCtx, told, log, drain, node.Kill) })
	if who != nil {
		moved := make(chan os.Signal, 1)
		signal.Notify(moved, syscall.SIGHUP)
		defer signal.Stop(moved)
		wg.Go(func() { reopenAudit(sigCtx, who, moved) })
	}
	wg.Go(func() { reload(sigCtx, p.watched, hangups, c.Reload, node.Recheck, log) })

	if p.relay.Signer != nil {
		log.Info("signals are signed", "key", p.relay.Signer)
	}
	if c.TokenKeys == "" { // a cluster has some
		log.Info("no RELAY_TOKEN_KEYS: this node made its own, and no other node can read its tokens")
	}
	if slices.Contains(c.Auth, authNone) {
		log.Warn("RELAY_AUTH=none: everybody who reaches this node may reach every device")
	}
	if p.hub != nil && p.hub.owner {
		log.Warn("RELAY_HUB_CONNECTION_STRING is of the policy iothubowner, which may do everything; the policy service is enough")
	}
	log.Info("relay listens", slices.Concat([]any{"public", public.Addr().String(), "url", p.relay.PublicURL}, sig.about,
		[]any{"version", settings.Version()}, addrAttr("admin", admin), addrAttr("node", peers))...)
	defer log.Info("relay stopped")
	if err := node.Run(nodeCtx, relay.Listeners{Public: public, Admin: admin, Node: peers}); err != nil {
		return err
	}
	stopSig()
	wg.Wait()
	return failed
}

// listenerURL is where devices on this machine dial: the host as the setting
// names it, since a certificate may be for that name, and the port in use.
func listenerURL(setting string, addr net.Addr, secure bool) string {
	host, _, _ := net.SplitHostPort(setting)
	_, port, _ := net.SplitHostPort(addr.String())
	return map[bool]string{true: "wss://", false: "ws://"}[secure] + net.JoinHostPort(host, port)
}

func addrAttr(name string, l net.Listener) []any {
	if l == nil {
		return nil
	}
	return []any{name, l.Addr().String()}
}

// heed drains at the first signal and ends the drain at the second. After that
// nothing is caught any more: a third one ends the process.
func heed(end context.Context, signals chan os.Signal, log *slog.Logger, drain, kill func()) {
	for _, step := range []struct {
		text string
		act  func()
	}{{"told to stop; a second signal ends open bridges at once", drain}, {"told to stop at once", kill}} {
		select {
		case sig := <-signals:
			log.Info(step.text, "signal", sig.String())
			step.act()
		case <-end.Done():
			return
		}
	}
	signal.Stop(signals)
}
