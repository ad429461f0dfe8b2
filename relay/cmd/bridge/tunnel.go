package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
)

func newTunnel(ui *ui, s *settings) *cobra.Command {
	var persist bool
	cmd := &cobra.Command{
		Use:   "tunnel DEVICE [LOCAL:]TARGET ...",
		Short: "Make targets on the device reachable on local ports",
		Long: `tunnel listens on local ports and connects what comes in to targets on the device.
All connections share one session, so that they cost one signal; when it is
lost, tunnel dials again and the local ports stay. When the relay's node drains,
tunnel moves: new connections go through another node, open ones stay until they
end. Ctrl-C or SIGTERM ends it, with exit code 0.

LOCAL is a port, or an address and a port; without it a free port is taken and
printed. Without an address only this machine can connect.
TARGET is a name from the device's list, or HOST:PORT where its owner allows that.

On a terminal it says what happens; in a pipe only the ports that it chose. With
--json it prints one event a line: listening (for each port) and up when it can
be used, then refused (one connection got no stream), lost (dialling again after
retryMs), retry (that failed), up again; or moving (the node drains, all works on)
and up again.`,
		Example: `  bridge tunnel pump-7 8080:web 2222:ssh
  bridge tunnel pump-7 web
  bridge tunnel pump-7 0.0.0.0:5900:192.168.1.20:5900`,
		Args:        args(2, -1, "a device and at least one target"),
		Annotations: map[string]string{needsRelay: "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			var forwards []forward
			for _, spec := range a[1:] {
				f, err := parseForward(spec)
				if err != nil {
					return usagef("%q %w", spec, err)
				}
				forwards = append(forwards, f)
			}
			t := &tunnel{ui: ui, device: a[0], forwards: forwards}
			return t.run(cmd.Context(), s.client, persist)
		},
	}
	cmd.Flags().BoolVar(&persist, "wait", false, "keep trying even if the first attempt fails, until the device is there")
	return cmd
}

// tunnel is one run of the command.
type tunnel struct {
	ui       *ui
	device   string
	forwards []forward
	link     *client.Link
	wg       sync.WaitGroup

	// Used by report only, which Link calls for one event after the other.
	up       bool // now
	everUp   bool
	bridgeID string // of the newest session
}

func (t *tunnel) run(ctx context.Context, cfg client.Config, persist bool) error {
	listeners := make([]net.Listener, 0, len(t.forwards))
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
		t.wg.Wait()
	}()
	req := client.Request{Device: t.device}
	for i, f := range t.forwards {
		l, err := listen(f.local)
		if err != nil {
			return listenFailed(f.local, err)
		}
		listeners = append(listeners, l)
		t.forwards[i].local = l.Addr().String()
		if !slices.Contains(req.Targets, f.target) {
			req.Targets = append(req.Targets, f.target)
		}
		if host, _, _ := net.SplitHostPort(t.forwards[i].local); !net.ParseIP(host).IsLoopback() {
			t.ui.warnf("warning: %s is open to every machine that reaches this one", t.forwards[i].local)
		}
	}
	userCtx := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.link = client.NewLink(cfg, req, persist, t.report)
	t.ui.sayf("%s: connecting through %s", t.device, cfg.URL)
	var linkErr error
	t.wg.Go(func() {
		linkErr = t.link.Run(ctx)
		cancel()
	})
	for i, l := range listeners {
		target := t.forwards[i].target
		t.wg.Go(func() { t.link.Forward(ctx, l, target, func(err error) { t.refused(target, err) }) })
	}
	t.wg.Wait()
	switch {
	case linkErr != nil:
		return dialFailed(linkErr, cfg)
	case !t.everUp:
		return interrupted(userCtx, nil) // whoever waited for a tunnel got none
	}
	return nil // the user ended it, which is how a tunnel ends
}

// listen takes an IPv4 address at its word: for 0.0.0.0, package net would open
// the port on every IPv6 address as well.
func listen(local string) (net.Listener, error) {
	network := "tcp"
	if a, err := netip.ParseAddrPort(local); err == nil && a.Addr().Is4() {
		network = "tcp4"
	}
	return net.Listen(network, local)
}

// listenFailed says what to do about a local port that cannot be had.
func listenFailed(local string, err error) error {
	hint := "name another port, or none for a free one"
	switch {
	case errors.Is(err, syscall.EACCES):
		hint = "ports below 1024 need privileges; name a higher one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this machine has no such address; without one, the tunnel listens on 127.0.0.1"
	}
	return hintError{usagef("listen on %s: %w", local, cause(err)), hint}
}

// Events of --json.
type (
	listeningEvent struct {
		Event  string `json:"event"` // "listening"
		Device string `json:"device"`
		Local  string `json:"local"`
		Target string `json:"target"`
	}
	upEvent struct {
		Event    string `json:"event"` // "up"
		Device   string `json:"device"`
		BridgeID string `json:"bridgeId"`
		Ms       int64  `json:"ms"` // to bring it up
	}
	movingEvent struct {
		Event    string `json:"event"` // "moving"
		Device   string `json:"device"`
		BridgeID string `json:"bridgeId"` // of the session that it leaves
	}
	downEvent struct {
		Event    string `json:"event"` // "lost", or "retry" if there was nothing to lose
		Device   string `json:"device"`
		BridgeID string `json:"bridgeId,omitempty"`
		Code     string `json:"code,omitempty"`
		Detail   string `json:"detail"`
		RetryMs  int64  `json:"retryMs"`
	}
	refusedEvent struct {
		Event      string `json:"event"` // "refused"
		Device     string `json:"device"`
		Target     string `json:"target"`
		Code       string `json:"code,omitempty"`
		DeviceCode string `json:"deviceCode,omitempty"`
		Detail     string `json:"detail"`
	}
)

// report shows what happens to the link. The ports are shown when the first
// session is up: a script that waits for a line can then connect.
func (t *tunnel) report(e client.Event) {
	switch {
	case e.Session != nil:
		t.bridgeID = e.Session.BridgeID
		t.ui.sayf("%s: connected in %v, bridge %s", t.device, e.Took.Round(time.Millisecond), t.bridgeID)
		if !t.everUp {
			t.announce()
		}
		t.up, t.everUp = true, true
		t.ui.event(upEvent{"up", t.device, t.bridgeID, e.Took.Milliseconds()})
	case e.Moving != nil && e.Err == nil:
		t.ui.event(movingEvent{"moving", t.device, e.Moving.BridgeID})
		t.ui.sayf("%s: the relay's node drains; moving to another one", t.device)
	case e.Moving != nil && e.Retry > 0: // nothing is lost yet
		t.ui.detailf("%s: %s; trying again in %v", t.device, printable(explain(e.Err).Detail), e.Retry.Round(100*time.Millisecond))
	case e.Moving != nil:
		t.ui.sayf("%s: %s; staying on the node that drains", t.device, printable(explain(e.Err).Detail))
	case e.Retry > 0:
		d := downEvent{"retry", t.device, "", "", "", e.Retry.Milliseconds()}
		f := explain(e.Err)
		if t.up {
			d.Event, d.BridgeID = "lost", t.bridgeID
			f = explain(lostError{e.Err, t.bridgeID})
		}
		t.up = false
		d.Code, d.Detail = f.Code, f.Detail
		t.ui.event(d)
		t.ui.sayf("%s: %s; trying again in %v", t.device, printable(f.Detail), e.Retry.Round(100*time.Millisecond))
	}
}

// announce prints what listens where. In a pipe only ports that we chose are
// news.
func (t *tunnel) announce() {
	for _, f := range t.forwards {
		switch {
		case t.ui.json:
			t.ui.event(listeningEvent{"listening", t.device, f.local, f.target})
		case f.free || t.ui.verbose || isTerminal(t.ui.out):
			t.ui.printf("%s -> %s", f.local, f.target)
		}
	}
}

// refused tells of a connection that got no stream.
func (t *tunnel) refused(target string, err error) {
	f := explain(err)
	t.ui.event(refusedEvent{"refused", t.device, target, f.Code, f.DeviceCode, f.Detail})
	if !t.ui.json {
		t.ui.warnf("%s", printable(f.Detail))
	}
}
