package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

func newTunnel(ui *ui, s *settings) *cobra.Command {
	var persist bool
	cmd := &cobra.Command{
		Use:   "tunnel DEVICE [LOCAL:]TARGET ...",
		Short: "Make targets on the device reachable on local ports",
		Long: `tunnel listens on local ports and connects what comes in to targets on the device.
All connections share one session, so that they cost one signal; when it is
lost, tunnel dials again and the local ports stay.

LOCAL is a port, or an address and a port; without it a free port is taken and
printed. Without an address only this machine can connect.
TARGET is a name from the device's list, or HOST:PORT where its owner allows that.`,
		Example: `  bridge tunnel pump-7 8080:web 2222:ssh
  bridge tunnel pump-7 web
  bridge tunnel pump-7 0.0.0.0:5900:192.168.1.20:5900`,
		Args:        args(2, -1, "a device and at least one target"),
		Annotations: map[string]string{"relay": "yes"},
		RunE: func(cmd *cobra.Command, a []string) error {
			var forwards []forward
			for _, spec := range a[1:] {
				f, err := parseForward(spec)
				if err != nil {
					return usageError{fmt.Errorf("%q %w", spec, err)}
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

// forward is one [LOCAL:]TARGET.
type forward struct {
	local  string // host:port to listen on; port 0: a free one
	free   bool   // the user left the port to us
	target string
}

// parseForward reads [[BIND:]PORT:]TARGET, where TARGET may be HOST:PORT itself.
// A port in front always is the local one; an address in front is the local one
// only if something is left for a target behind its port.
func parseForward(spec string) (forward, error) {
	f := forward{local: "127.0.0.1:0", free: true, target: spec}
	if head, rest, ok := strings.Cut(spec, ":"); ok && isPort(head) {
		f = forward{local: net.JoinHostPort("127.0.0.1", head), free: head == "0", target: rest}
	} else if host, port, target, ok := cutBind(spec); ok {
		f = forward{local: net.JoinHostPort(host, port), free: port == "0", target: target}
	}
	if err := wire.CheckTarget(f.target); err != nil {
		return f, fmt.Errorf("has a target that %w", err)
	}
	return f, nil
}

// cutBind splits BIND:PORT:TARGET.
func cutBind(spec string) (host, port, target string, ok bool) {
	if strings.HasPrefix(spec, "[") {
		end := strings.Index(spec, "]:")
		if end < 0 {
			return
		}
		host, spec = spec[1:end], spec[end+2:]
	} else if host, spec, ok = strings.Cut(spec, ":"); !ok {
		return
	}
	port, target, ok = strings.Cut(spec, ":")
	_, err := netip.ParseAddr(host)
	return host, port, target, ok && isPort(port) && (err == nil || host == "localhost")
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// tunnel is one run of the command.
type tunnel struct {
	ui       *ui
	device   string
	forwards []forward
	link     *client.Link
	began    time.Time
	wg       sync.WaitGroup
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
		l, err := net.Listen("tcp", f.local)
		if err != nil {
			return usageError{hintError{fmt.Errorf("listen on %s: %w", f.local, cause(err)), "another program may have that port; name another one, or none for a free one"}}
		}
		listeners = append(listeners, l)
		t.forwards[i].local = l.Addr().String()
		req.Targets = append(req.Targets, f.target)
		if host, _, _ := net.SplitHostPort(t.forwards[i].local); !net.ParseIP(host).IsLoopback() {
			t.ui.warnf("%s is open to every machine that reaches this one", t.forwards[i].local)
		}
	}
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
	return linkErr // nil when the user ended it, which is how a tunnel ends
}

// report shows what happens to the link. The ports are shown when the first
// session is up: a script that waits for a line can then connect.
func (t *tunnel) report(e client.Event) {
	switch {
	case e.Session != nil:
		if t.began.IsZero() {
			t.began = time.Now()
			t.announce()
		}
		t.ui.event(map[string]any{"event": "up", "device": t.device, "bridgeId": e.Session.BridgeID, "ms": e.Took.Milliseconds()})
		t.ui.sayf("%s: connected in %v, bridge %s", t.device, e.Took.Round(time.Millisecond), e.Session.BridgeID)
	case e.Retry > 0:
		f := explain(e.Err)
		t.ui.event(map[string]any{"event": "lost", "device": t.device, "code": f.code, "detail": f.text, "retryMs": e.Retry.Milliseconds()})
		t.ui.sayf("%s: %s; trying again in %v", t.device, printable(f.text), e.Retry.Round(100*time.Millisecond))
	}
}

// announce prints what listens where. In a pipe only ports that we chose are
// news.
func (t *tunnel) announce() {
	for _, f := range t.forwards {
		switch {
		case t.ui.json:
			t.ui.event(map[string]any{"event": "listening", "device": t.device, "local": f.local, "target": f.target})
		case f.free || t.ui.verbose || isTerminal(t.ui.out):
			t.ui.printf("%s -> %s", f.local, f.target)
		}
	}
}

// refused tells of a connection that got no stream.
func (t *tunnel) refused(target string, err error) {
	f := explain(err)
	t.ui.event(map[string]any{"event": "refused", "target": target, "code": f.code, "deviceCode": f.deviceCode, "detail": f.text})
	if !t.ui.json {
		t.ui.warnf("%s", printable(f.text))
	}
}

// cause is the last part of an error: "address already in use".
func cause(err error) error {
	for {
		u := errors.Unwrap(err)
		if u == nil {
			return err
		}
		err = u
	}
}
