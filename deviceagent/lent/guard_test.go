package lent_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	paho "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/lent"
	"websocketbridge/test/testlog"
)

// Trap 1 and 10: handlers run at the same time, and the library's own are called.
func TestGuardConfigures(t *testing.T) {
	var calls []string
	o := paho.NewClientOptions()
	o.SetOnConnectHandler(func(paho.Client) { calls = append(calls, "connect") })
	o.SetConnectionLostHandler(func(paho.Client, error) { calls = append(calls, "lost") })
	new(lent.Guard).Configure(o)
	if o.Order {
		t.Error("handlers run one after the other, and the second one stops the client")
	}
	c := paho.NewClient(o)
	o.OnConnect(c)
	o.OnConnectionLost(c, errors.New("EOF"))
	if got := strings.Join(calls, " "); got != "connect lost" {
		t.Errorf("the library's handlers: %q; without them it does not subscribe again", got)
	}
	o = paho.NewClientOptions()
	o.OnConnectionLost = nil
	new(lent.Guard).Configure(o)
	o.OnConnect(c) // there is none below
	o.OnConnectionLost(c, errors.New("EOF"))
}

func TestUnguarded(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(*host)
		want string
	}{
		{"a transport without the guard", func(*host) {}, "Guard.Option"},
		{"another device's guard", func(h *host) { (&link{id: "pump-8"}).apply(h.guard) }, `belongs to client "pump-8", not to "pump-7"`},
		{"order came back", func(h *host) {
			l := &link{id: device}
			l.apply(h.guard)
			l.opts.SetOrderMatters(true)
			l.Client = paho.NewClient(l.opts)
			l.set(true)
		}, "call Guard.Configure last"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.make(h)
			if err := h.client.Connect(context.Background()); err != nil {
				t.Fatal(err)
			}
			err := h.source(lent.Both).Run(context.Background(), nil)
			if !errors.Is(err, lent.ErrUnguarded) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestGuardOfModule(t *testing.T) {
	h := newHost(t)
	l := &link{id: device + "/bridge"}
	l.apply(h.guard)
	if err := h.client.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.set(true)
	var ours heard
	h.start(h.source(lent.MethodsOnly), ours.handle)
}

// Trap 4 again: a subscription while paho reconnects would fail, and leave the
// host deaf.
func TestRunWaitsForReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		l := h.connect()
		l.set(false)
		subscribed := false
		h.wire.registerMethods = func(context.Context) error {
			subscribed = true
			if !l.IsConnectionOpen() {
				return errors.New("not currently connected and ResumeSubs not set")
			}
			return nil
		}
		s := h.source(lent.Both)
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx, nil) }()
		synctest.Wait()
		if subscribed {
			t.Error("it subscribes without a connection")
		}
		l.set(true)
		synctest.Wait()
		if !subscribed {
			t.Error("it does not subscribe after the connection is back")
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		l.set(false)
		if err := s.Run(ended(), nil); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(context.Background())
		go func() { ran <- s.Run(ctx, nil) }()
		synctest.Wait()
		cancel() // while it waits
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestGuardSeesFights(t *testing.T) {
	var log testlog.Buffer
	g := &lent.Guard{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	l := &link{id: device}
	l.apply(g)
	for i := range 3 {
		if strings.Contains(log.String(), "another client") {
			t.Errorf("after %d losses: %s", i, &log)
		}
		l.set(true)
		l.set(false)
	}
	if !strings.Contains(log.String(), "does another client use this identity?") {
		t.Errorf("nobody says why:\n%s", &log)
	}
}
