package lent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amenzhinsky/iothub/common"
	"github.com/amenzhinsky/iothub/iotdevice"
	"github.com/amenzhinsky/iothub/iotdevice/transport"
	"github.com/amenzhinsky/iothub/logger"
	paho "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/lent"
	"websocketbridge/signaler"
	"websocketbridge/test/testlog"
)

const (
	device   = "pump-7"
	patience = 20 * time.Second
	goodOne  = `{"acceptUrl":"wss://relay.example.com/bridge/accept?bridgeToken=t&a=<b>","v":1,"bridgeId":"b1"}`
)

// wire is a transport without a network below a real client, whose traps are
// therefore all there.
type wire struct {
	transport.Transport // what is not here would panic

	subscribeEvents, registerMethods func(ctx context.Context) error // may be nil

	mu       sync.Mutex
	messages transport.MessageDispatcher
	methods  transport.MethodDispatcher
}

func (w *wire) SetLogger(logger.Logger)                              {}
func (w *wire) Connect(context.Context, transport.Credentials) error { return nil }
func (w *wire) Close() error                                         { return nil }
func (w *wire) SubscribeEvents(ctx context.Context, m transport.MessageDispatcher) error {
	if w.subscribeEvents != nil {
		if err := w.subscribeEvents(ctx); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = m
	return nil
}

func (w *wire) RegisterDirectMethods(ctx context.Context, m transport.MethodDispatcher) error {
	if w.registerMethods != nil {
		if err := w.registerMethods(ctx); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.methods = m
	return nil
}

// message reaches the device.
func (w *wire) message(body string, properties map[string]string) {
	w.mu.Lock()
	m := w.messages
	w.mu.Unlock()
	m.Dispatch(&common.Message{Payload: []byte(body), Properties: properties})
}

// call is a direct method, and what the library answers.
func (w *wire) call(name, payload string) (int, string, error) {
	w.mu.Lock()
	m := w.methods
	w.mu.Unlock()
	if m == nil {
		return 0, "", errors.New("nobody has subscribed to methods")
	}
	status, b, err := m.Dispatch(name, []byte(payload))
	return status, string(b), err
}

// host is the program around the agent.
type host struct {
	t      *testing.T
	wire   *wire
	client *iotdevice.Client
	guard  *lent.Guard
	log    testlog.Buffer
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, wire: &wire{}, guard: new(lent.Guard)}
	var err error
	h.client, err = iotdevice.New(h.wire, &iotdevice.SharedAccessKeyCredentials{DeviceID: device},
		iotdevice.WithLogger(logger.New(logger.LevelOff, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// connect is what the host and its transport do.
func (h *host) connect() *link {
	h.t.Helper()
	l := &link{id: device}
	l.apply(h.guard)
	if err := h.client.Connect(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	l.set(true)
	return l
}

func (h *host) source(listen lent.Listen) *lent.Source {
	h.t.Helper()
	s, err := lent.New(lent.Config{Client: h.client, Guard: h.guard, Listen: listen, Logger: slog.New(slog.NewTextHandler(&h.log, nil))})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// start runs s until the test ends, or stop, and returns when it listens.
func (h *host) start(s *lent.Source, handle signaler.Handler) (stop func() error) {
	h.t.Helper()
	before := strings.Count(h.log.String(), "listening on the host's connection")
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, handle) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ran:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	})
	h.t.Cleanup(func() { stop() })
	until(h.t, "the source listens", func() bool {
		return strings.Count(h.log.String(), "listening on the host's connection") > before
	})
	return stop
}

// link is a paho client whose connection is as the test says.
type link struct {
	paho.Client
	id   string
	opts *paho.ClientOptions

	mu sync.Mutex
	up bool
}

func (l *link) IsConnectionOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *link) apply(g *lent.Guard) {
	l.opts = paho.NewClientOptions().SetClientID(l.id)
	g.Configure(l.opts)
	l.Client = paho.NewClient(l.opts)
}

func (l *link) set(up bool) {
	l.mu.Lock()
	l.up = up
	l.mu.Unlock()
	if up {
		l.opts.OnConnect(l)
	} else {
		l.opts.OnConnectionLost(l, errors.New("EOF"))
	}
}

// heard collects deliveries.
type heard struct {
	mu     sync.Mutex
	got    []signaler.Delivery
	answer *signaler.Refusal
}

func (h *heard) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, d)
	return h.answer
}

func (h *heard) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.got)
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func numbered(i int) string {
	return fmt.Sprintf(`{"acceptUrl":"wss://relay.example.com/bridge/accept?bridgeToken=%d"}`, i)
}
