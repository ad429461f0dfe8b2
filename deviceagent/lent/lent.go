package lent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amenzhinsky/iothub/common"
	"github.com/amenzhinsky/iothub/iotdevice"

	"websocketbridge/signaler"
)

// MethodName is the direct method that carries signals.
const MethodName = "Bridge"

// Property marks a message as a signal, in whatever version.
const Property = "bridge-signal"

// Statuses of the method's answer. Those that are not 2xx say {"code","message"}
// besides.
const (
	StatusAccepted = 200
	StatusRefused  = 409 // by the agent
	StatusBusy     = 503 // the agent was not asked: it stops, or too many signals wait
)

// ErrDeaf: the client could not subscribe. The library tries once in a client's
// life, so this one hears nothing, the host's own methods or messages included.
var ErrDeaf = errors.New("client stays deaf: close it and make a new one")

const (
	queued    = 64              // hub: 50 messages per device, and some methods
	leaveTime = 5 * time.Second // for a host that does not read its messages
)

// Listen is what to listen to.
type Listen int

const (
	Both         Listen = iota
	MethodsOnly         // for modules, and hosts that do not want our messages among theirs
	MessagesOnly        // needs no Guard, as long as the host has no methods either
)

// Config is a Source's. Client is required, and Guard unless Listen is
// MessagesOnly.
type Config struct {
	Client *iotdevice.Client
	Guard  *Guard
	Listen Listen
	Logger *slog.Logger // nil: silent
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Client == nil {
		bad("Client: is missing")
	}
	if c.Listen < Both || c.Listen > MessagesOnly {
		bad("Listen: %d is none of Both, MethodsOnly, MessagesOnly", c.Listen)
	}
	if c.Guard == nil && c.Listen != MessagesOnly {
		bad("Guard: is missing; without one, two direct methods at once stop the client for good")
	}
	return errors.Join(errs...)
}

// A Source hears signals on the host's client. It is a deviceagent.SignalSource.
type Source struct {
	cfg     Config
	log     *slog.Logger
	running atomic.Bool
	record  signaler.SourceRecord
	now     atomic.Pointer[run] // nil: nobody takes signals
	grace   time.Duration       // leaveTime; shorter in a test

	joining    sync.Mutex // guards registered, and is held while subscribing
	registered bool       // our method is in the client
}

// New checks cfg. It starts nothing and asks nothing of the client.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("lent: %w", err)
	}
	s := &Source{cfg: cfg, log: cfg.Logger, grace: leaveTime}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// A run is one Run of a Source.
type run struct {
	items chan item
	over  chan struct{} // closed when nobody takes items any more
}

type item struct {
	payload []byte
	answer  chan<- *signaler.Refusal // nil: a message
}

// Run hands signals to h, one after the other, until ctx ends, and then returns
// nil. It waits for the host to connect. It returns iotdevice.ErrClosed once the
// host has closed the client, ErrDeaf, ErrUnguarded, or that the host has a method
// of our name. It may be called again after it has returned.
func (s *Source) Run(ctx context.Context, h signaler.Handler) (err error) {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("lent: the source runs already")
	}
	defer s.running.Store(false)
	s.record.Begin("lent", s.cfg.Client.DeviceID())
	defer func() { s.record.Down(err) }()
	if err := s.connected(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	r := &run{items: make(chan item, queued), over: make(chan struct{})}
	s.now.Store(r)
	var sub *iotdevice.EventSub
	read, closed := make(chan struct{}), make(chan error, 1)
	defer func() {
		s.now.Store(nil)
		close(r.over) // whoever waits for an answer does not wait for the host, too
		if sub != nil {
			s.leave(sub, read)
		}
	}()
	if sub, err = s.join(ctx); err != nil {
		return err
	}
	if sub != nil {
		go func() {
			defer close(read)
			closed <- s.read(r, sub)
		}()
	}
	s.record.Up()
	s.log.Info("listening on the host's connection", "device", s.cfg.Client.DeviceID())
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-closed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("lent: the host's client: %w", err)
		case it := <-r.items:
			if ctx.Err() != nil {
				return nil
			}
			no := h(ctx, signaler.Delivery{Payload: it.payload, Answers: it.answer != nil})
			if it.answer != nil {
				it.answer <- no
			}
		}
	}
}

// State says whether signals are heard, as far as the agent can know: how the host's
// connection fares, its client does not say.
func (s *Source) State() signaler.SourceState { return s.record.State() }

// connected returns when the host has connected its client, and nil also when ctx
// has ended.
func (s *Source) connected(ctx context.Context) error {
	// The library has no other way to wait for its Connect: a method without a name
	// is refused, but only after that.
	err := s.cfg.Client.RegisterMethod(ctx, "", nil)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, iotdevice.ErrClosed):
		return fmt.Errorf("lent: the host's client: %w", err)
	case s.cfg.Guard == nil:
		return nil
	}
	return s.cfg.Guard.wait(ctx, s.cfg.Client.DeviceID())
}

type joined struct {
	sub *iotdevice.EventSub
	err error
}

// join subscribes to what is wanted. The library waits without a limit of its own,
// for the hub and for a host that does not read; and must not be interrupted, or
// the client stays deaf. So if ctx ends join returns after leaveTime at the latest,
// and what it has begun is undone when that is possible.
func (s *Source) join(ctx context.Context) (*iotdevice.EventSub, error) {
	done := make(chan joined, 1)
	go func() { done <- s.subscribe(context.WithoutCancel(ctx)) }()
	select {
	case j := <-done:
		return j.sub, j.err
	case <-ctx.Done():
	}
	undone := make(chan struct{})
	go func() {
		defer close(undone)
		if j := <-done; j.sub != nil {
			s.cfg.Client.UnsubscribeEvents(j.sub)
		}
	}()
	s.await(undone)
	return nil, nil
}

func (s *Source) subscribe(ctx context.Context) (j joined) {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.cfg.Listen != MessagesOnly {
		if err := s.register(ctx); err != nil {
			return joined{err: err}
		}
	}
	if s.cfg.Listen != MethodsOnly {
		sub, err := s.cfg.Client.SubscribeEvents(ctx)
		if err != nil {
			return joined{err: failed("subscribe to messages", err)}
		}
		j.sub = sub
	}
	return j
}

// register puts our method into the client. The caller holds joining.
func (s *Source) register(ctx context.Context) error {
	client := s.cfg.Client
	if s.registered { // the host may have taken it away meanwhile
		client.UnregisterMethod(MethodName)
	}
	err := client.RegisterMethod(ctx, MethodName, s.method)
	if err == nil {
		s.registered = true
		return nil
	}
	if errors.Is(err, iotdevice.ErrClosed) || client.RegisterMethod(ctx, MethodName, s.method) == nil {
		// What failed was the subscription: the second call did not even try it.
		client.UnregisterMethod(MethodName)
		return failed("register method "+MethodName, err)
	}
	return fmt.Errorf("lent: register method %s: %w: run the Source that has it, or call UnregisterMethod first", MethodName, err)
}

// failed says what a failed subscription means.
func failed(what string, err error) error {
	if errors.Is(err, iotdevice.ErrClosed) {
		return fmt.Errorf("lent: the host's client: %w", err)
	}
	return fmt.Errorf("lent: %s: %w; %w", what, err, ErrDeaf)
}

// read takes every message at once, also when nobody wants ours any more: one that
// is not taken would stop the client. It returns when the subscription has ended.
func (s *Source) read(r *run, sub *iotdevice.EventSub) error {
	for msg := range sub.C() {
		if isClosed(r.over) || !isOurs(msg) {
			continue
		}
		select {
		case r.items <- item{payload: msg.Payload}:
		default:
			s.log.Warn("signal dropped: the agent does not keep up", "waiting", queued)
		}
	}
	return sub.Err()
}

// isOurs tells signals from the host's own messages.
func isOurs(msg *common.Message) bool {
	if _, ok := msg.Properties[Property]; ok {
		return true
	}
	_, err := signaler.Parse(msg.Payload)
	return err == nil
}

// leave ends the subscription. That waits for a host that does not read its own,
// and so not for ever here.
func (s *Source) leave(sub *iotdevice.EventSub, read <-chan struct{}) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.cfg.Client.UnsubscribeEvents(sub)
		<-read
	}()
	s.await(left)
}

// await waits for what cannot be interrupted, up to leaveTime.
func (s *Source) await(done <-chan struct{}) {
	t := time.NewTimer(s.grace)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		s.log.Warn("the host's client does not let go: does the host read its own messages?", "waited", s.grace)
	}
}

// method is our direct method. The library calls it on a goroutine per call.
func (s *Source) method(members map[string]any) (int, map[string]any, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // every byte counts against signaler.MaxSize
	if err := enc.Encode(members); err != nil {
		return 0, nil, err // the library answers 500
	}
	r := s.now.Load()
	if r == nil {
		return answer(stopping)
	}
	return answer(r.ask(bytes.TrimSuffix(b.Bytes(), []byte("\n"))))
}

var (
	stopping = &signaler.Refusal{Code: "stopping", Message: "the agent stops"}
	busy     = &signaler.Refusal{Code: "busy", Message: "too many signals wait on this device; try again"}
)

// ask waits for the agent's answer, which comes at once.
func (r *run) ask(payload []byte) *signaler.Refusal {
	got := make(chan *signaler.Refusal, 1)
	select {
	case r.items <- item{payload, got}:
	default:
		return busy
	}
	select {
	case no := <-got:
		return no
	case <-r.over:
	}
	select {
	case no := <-got: // it was the last one
		return no
	default:
		return stopping
	}
}

// answer is the method's: any status that is not 2xx refuses.
func answer(no *signaler.Refusal) (int, map[string]any, error) {
	status := StatusRefused
	switch no {
	case nil:
		return StatusAccepted, map[string]any{}, nil
	case busy, stopping:
		status = StatusBusy
	}
	return status, map[string]any{"code": no.Code, "message": no.Message}, nil
}
