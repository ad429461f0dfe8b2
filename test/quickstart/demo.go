package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/fake"
)

const device = "pump-7"

// patience is how long the page may take: a hundred times what it does.
const patience = 15 * time.Second

// demo is the whole picture in one process.
type demo struct {
	out  io.Writer
	once bool
	log  *slog.Logger
	hub  hubMode

	nodes int // of the relay, 1 to maxNodes

	// What tests change.
	faults   fake.Faults
	dialBack time.Duration                    // 0: the relay's default
	page     http.HandlerFunc                 // nil: the device's page
	turns    func(backends []string) []string // whose turn it is at the front; nil: one after the other
}

// A starter runs one part of the picture; if it fails, everything ends.
type starter func(name string, run func(context.Context) error)

// run builds the picture from right to left, then fetches a page through it.
func (d *demo) run(told context.Context) error {
	ctx, cancel := context.WithCancelCause(told)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	start := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	tl := &timeline{}

	// The device: a web server that only it can reach, and the agent.
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	start("web server", func(ctx context.Context) error { return d.serveWeb(ctx, web) })
	hub, err := d.makeHub(start)
	if err != nil {
		return err
	}
	targets, err := deviceagent.ParseTargets([]string{"echo"})
	if err != nil {
		return err
	}
	if err := targets.Add("web", &timedTarget{"its target web, " + web.Addr().String(), web.Addr(), tl}); err != nil {
		return err
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID: device, Source: &timedSource{hub.source, tl}, RelayHosts: []string{"127.0.0.1"},
		Targets: targets, Logger: d.log.With("part", "agent"),
	})
	if err != nil {
		return err
	}
	start("agent", agent.Run)

	relay, err := d.startRelay(start, hub, tl)
	if err != nil {
		return err
	}
	if err := hub.online(ctx, device); err != nil {
		return ended(told, ctx, err)
	}

	// The requester: one session, and a local port whose connections become streams.
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	up := make(chan struct{}, 1)
	link := client.NewLink(client.Config{URL: relay.url, APIKey: relay.key}, client.Request{Device: device, Targets: []string{"web"}}, false,
		func(e client.Event) {
			if e.Session != nil {
				tl.mark("requester", "gets its 101: bridge "+e.Session.BridgeID+" is open")
				select {
				case up <- struct{}{}:
				default: // again
				}
			}
		})
	tl.begin()
	tl.mark("requester", "asks: GET "+wire.PathConnect+"?deviceId="+device+", and the relay holds its answer")
	start("tunnel", link.Run)
	refused := make(chan error, 1)
	start("tunnel", func(ctx context.Context) error {
		return link.Forward(ctx, local, "web", func(err error) {
			select {
			case refused <- err:
			default: // the first one says it
			}
		})
	})
	page := "http://" + local.Addr().String() + "/"
	if err := d.fetch(ctx, tl, page, up); err != nil {
		select {
		case why := <-refused: // better than "connection reset"
			err = why
		default:
		}
		return ended(told, ctx, err)
	}
	tl.end()
	fmt.Fprint(d.out, story(d.nodes, tl))
	if d.once {
		return nil
	}
	fmt.Fprint(d.out, next(page, relay), hub.more)
	<-ctx.Done()
	return ended(told, ctx, nil)
}

// ended is nil if the user ended it, which is no failure, and else the part that
// failed first.
func ended(told, ctx context.Context, err error) error {
	if told.Err() != nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// fetch gets the page once the tunnel is up, and checks that it is the device's.
func (d *demo) fetch(ctx context.Context, tl *timeline, url string, up <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no page within %v", patience))
	defer cancel()
	select {
	case <-up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tl.mark("requester", "asks for "+url+", a local port: a stream in the bridge")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // straight there: no proxy
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	tl.mark("requester", fmt.Sprintf("gets %s, %d bytes of the device's page", resp.Status, len(body)))
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "device "+device) {
		return fmt.Errorf("the page is not the device's: %s %q", resp.Status, body)
	}
	return nil
}

func (d *demo) serveWeb(ctx context.Context, ln net.Listener) error {
	page := d.page
	if page == nil {
		page = devicePage
	}
	srv := &http.Server{Handler: page, ReadHeaderTimeout: patience}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func devicePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!doctype html>\n<title>%s</title>\n<h1>Hello from device %s</h1>\n<p>It is %s here, and you asked for %s.\n",
		device, device, time.Now().Format(time.TimeOnly), r.URL.EscapedPath())
}
