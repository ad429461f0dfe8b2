// Command quickstart shows a bridge without any account or configuration: a
// relay, a device agent with a small web server behind it, a fake hub between
// them, and a tunnel through which it fetches a page. All sockets are real and
// on the loopback address.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

const device = "pump-7"

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	once := flags.Bool("once", false, "exit after the page was fetched")
	verbose := flags.Bool("v", false, "show the logs of the relay and the agent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	told := ctx
	ctx, cancel := context.WithCancelCause(told)
	defer cancel(nil)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	// start runs one part of the picture; if it fails, everything ends.
	start := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	tl := &timeline{}

	// The device: a web server that only it can reach, and the agent.
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	start("web server", func(ctx context.Context) error { return serveWeb(ctx, web) })
	hub := fake.New(fake.Config{})
	targets, err := deviceagent.ParseTargets([]string{"web=tcp:" + web.Addr().String(), "echo"})
	if err != nil {
		return err
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID: device, Source: &timedSource{hub.Source(device), tl}, RelayHosts: []string{"127.0.0.1"},
		Targets: targets, Logger: log.With("part", "agent"),
	})
	if err != nil {
		return err
	}
	start("agent", agent.Run)

	// The relay.
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	key, keys, err := newKey()
	if err != nil {
		return err
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		return err
	}
	relayURL := "ws://" + public.Addr().String()
	node, err := relay.New(relay.Config{
		PublicURL: relayURL, Signaler: &timedSignaler{hub, tl}, Keys: ring, Auth: keys, Drain: -1, Logger: log.With("part", "relay"),
	})
	if err != nil {
		return err
	}
	start("relay", func(ctx context.Context) error { return node.Run(ctx, &timedListener{public, tl}, nil) })
	if err := hub.WaitOnline(ctx, device); err != nil {
		return err
	}

	// The requester: one session, and a local port whose connections become streams.
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	up := make(chan struct{})
	var upOnce sync.Once
	link := client.NewLink(client.Config{URL: relayURL, APIKey: key}, client.Request{Device: device, Targets: []string{"web"}}, false,
		func(e client.Event) {
			if e.Session != nil {
				tl.mark("requester", "101: the bridge "+e.Session.BridgeID+" is open")
				upOnce.Do(func() { close(up) })
			}
		})
	tl.begin()
	tl.mark("requester", "GET "+wire.PathConnect+"?deviceId="+device+": the relay holds its answer")
	start("tunnel", link.Run)
	start("tunnel", func(ctx context.Context) error { return link.Forward(ctx, local, "web", nil) })
	select {
	case <-up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	page := "http://" + local.Addr().String() + "/"
	tl.mark("requester", "GET "+page+" into the tunnel")
	status, body, err := fetch(ctx, page)
	if err != nil {
		return err
	}
	tl.mark("requester", fmt.Sprintf("%s, %d bytes from the device", status, len(body)))
	if !strings.Contains(body, device) {
		return fmt.Errorf("the page is not the device's: %q", body)
	}
	fmt.Fprintf(out, "A page of device %s, fetched through a relay that could only reach it by a signal:\n\n%s\n", device, tl)
	if *once {
		return nil
	}
	fmt.Fprintf(out, `Now try it yourself. It stays up until Ctrl-C.

  curl %s

Or with the real command, from another terminal in this directory:

  export BRIDGE_RELAY=%s
  export BRIDGE_API_KEY=%s
  go run ./relay/cmd/bridge tunnel %s web
  echo hello | go run ./relay/cmd/bridge stdio %s echo
  go run ./relay/cmd/bridge stdio %s ssh      # the device does not allow that
  go run ./relay/cmd/bridge stdio pump-8 echo     # nobody knows that one
`, page, relayURL, key, device, device, device)
	<-ctx.Done()
	if told.Err() != nil { // by Ctrl-C, which is how it ends
		return nil
	}
	return context.Cause(ctx)
}

func newKey() (string, *auth.Keys, error) {
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		return "", nil, err
	}
	keys, err := auth.ParseKeys("quickstart " + hash)
	return key, keys, err
}

func serveWeb(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html>\n<title>%s</title>\n<h1>Hello from device %s</h1>\n<p>It is %s here, and you asked for %s.\n",
			device, device, time.Now().Format(time.TimeOnly), r.URL.EscapedPath())
	})}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func fetch(ctx context.Context, url string) (status, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", "", err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // straight there: no proxy
	resp, err := c.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.Status, string(b), err
}

// The timed parts pass everything on and note when it happened.

type timedSignaler struct {
	signaler.Signaler
	tl *timeline
}

func (s *timedSignaler) Signal(ctx context.Context, sig *signaler.Signal) error {
	s.tl.mark("relay", "hands the hub a signal for "+sig.DeviceID)
	return s.Signaler.Signal(ctx, sig)
}

type timedSource struct {
	deviceagent.SignalSource
	tl *timeline
}

func (s *timedSource) Run(ctx context.Context, h signaler.Handler) error {
	return s.SignalSource.Run(ctx, func(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
		s.tl.mark("device", "gets the signal from the hub, and checks it")
		return h(ctx, d)
	})
}

// timedListener sees what the relay's port sees: the requester's connection
// first, then the device's.
type timedListener struct {
	net.Listener
	tl *timeline
}

func (l *timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.tl.has("gets the signal") {
		l.tl.mark("device", "dials back: GET "+wire.PathAccept)
	}
	return c, err
}
