package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/signaler"
)

// ErrEnded: standard input has ended, so whoever had it hands over nothing more.
var ErrEnded = errors.New("standard input has ended")

// DefaultMaxConns is Config.MaxConns if that is zero.
const DefaultMaxConns = 16

// minToken is in characters: 128 bits in hexadecimal digits.
const minToken = 32

const (
	signalTime = 10 * time.Second // loopback: whoever needs longer has stopped
	idleTime   = time.Minute
	lingerTime = time.Second // for a writer to read why its garbage was refused
)

// Config is a Source's. Address is required.
type Config struct {
	Address Address
	// Token has to be in the Authorization header of an HTTP request, after
	// "Bearer "; at least 32 characters. Required for HTTP, and for nothing else.
	Token    string
	In       io.Reader // for Stdin, required there
	Out      io.Writer // for Stdin, required there; one answer is one Write
	MaxConns int       // at once; 0: DefaultMaxConns
	Logger   *slog.Logger
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := ParseAddress(c.Address.String()); err != nil {
		bad("Address: %w", err)
	}
	switch http := c.Address.Kind == HTTP; {
	case http && c.Token == "":
		bad("Token: is missing; every user of this machine could hand over signals without one")
	case http && len(c.Token) < minToken:
		bad("Token: has %d characters; %d are needed (openssl rand -hex 32)", len(c.Token), minToken)
	case !http && c.Token != "":
		bad("Token: is for http: only")
	}
	if c.Address.Kind == Stdin && (c.In == nil || c.Out == nil) {
		bad("In and Out: are missing")
	}
	if c.MaxConns < 0 {
		bad("MaxConns: cannot be negative")
	}
	return errors.Join(errs...)
}

// A Source hears signals that another program hands over. It is a
// deviceagent.SignalSource.
type Source struct {
	cfg     Config
	log     *slog.Logger
	running atomic.Bool
	record  signaler.SourceRecord

	signalTime, idleTime time.Duration // shorter in tests

	one sync.Mutex // held while the handler runs: it takes one delivery after the other

	mu    sync.Mutex    // guards the two below
	ready chan struct{} // closed while it listens
	at    string        // and where

	input sync.Once // starts the reader of standard input
	items chan input
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	cfg.MaxConns = cmp.Or(cfg.MaxConns, DefaultMaxConns)
	s := &Source{
		cfg: cfg, log: cfg.Logger, signalTime: signalTime, idleTime: idleTime,
		ready: make(chan struct{}), items: make(chan input),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Run hands signals to h, one after the other, until ctx ends, and then returns
// nil, after the last connection has ended. An error is that it cannot listen, or
// ErrEnded. It may be called again after it has returned.
func (s *Source) Run(ctx context.Context, h signaler.Handler) (err error) {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("handoff: the source runs already")
	}
	defer s.over()
	s.record.Begin("handoff", s.cfg.Address.String())
	defer func() { s.record.Down(err) }()
	ask := func(payload []byte) *signaler.Refusal {
		s.one.Lock()
		defer s.one.Unlock()
		if ctx.Err() != nil {
			return stopping
		}
		return h(ctx, signaler.Delivery{Payload: payload}) // Answers: who knows?
	}
	switch s.cfg.Address.Kind {
	case Unix:
		err = s.runUnix(ctx, ask)
	case HTTP:
		err = s.runHTTP(ctx, ask)
	default:
		err = s.runStdin(ctx, ask)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listening says that Run listens at addr.
func (s *Source) listening(addr string) {
	s.mu.Lock()
	s.at = addr
	close(s.ready)
	s.mu.Unlock()
	s.record.Up()
	s.log.Info("listening for signals from this device's hub client", "address", Address{s.cfg.Address.Kind, addr}.String())
}

// State says whether signals can be handed over. Whether the program that does it hears
// its hub, nobody here knows.
func (s *Source) State() signaler.SourceState { return s.record.State() }

// over says that Run, which may have listened, does not any more.
func (s *Source) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ready:
		s.ready = make(chan struct{})
	default:
	}
	s.running.Store(false)
}

// Wait returns where the source listens, with the real port if the address has
// port 0, once it does, or the cause of ctx's end.
func (s *Source) Wait(ctx context.Context) (Address, error) {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
		return Address{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Address{s.cfg.Address.Kind, s.at}, nil
}
