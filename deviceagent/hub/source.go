package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"websocketbridge/signaler"
)

// A Source hears the signals of one device or module by a connection of its own.
// It is a deviceagent.SignalSource.
type Source struct {
	cfg     Config
	tls     *tls.Config
	log     *slog.Logger
	running atomic.Bool
	stats   stats
	record  signaler.SourceRecord
	told    struct{ foreign, dropped occasion }
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	cfg = cfg.withDefaults()
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	s := &Source{cfg: cfg, tls: cfg.tlsConfig(), log: cfg.Logger.With("hub", cfg.HostName, "device", cfg.DeviceID)}
	if cfg.ModuleID != "" {
		s.log = s.log.With("module", cfg.ModuleID)
	}
	return s, nil
}

// resetAfter is how long a connection has to listen for the next trouble to count
// as a new one.
const resetAfter = time.Minute

// Run hands the signals to h, one after the other, until ctx ends. Then it ends the
// connection and returns nil. A hub that cannot be reached, is lost or refuses the
// credentials is tried again for ever. Run returns an error that wraps
// signaler.ErrTakenOver when another client has this identity, and an error when
// the source runs already. It may be called again after it has returned.
func (s *Source) Run(ctx context.Context, h signaler.Handler) (err error) {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("hub: this source runs already; two connections of one identity would evict each other")
	}
	defer s.running.Store(false)
	s.record.Begin("hub", s.cfg.Addr)
	defer func() { s.record.Down(err) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		tries  int // since a connection that was good for resetAfter
		rivals rivalry
		told   teller
	)
	for ctx.Err() == nil {
		keepAlive := s.cfg.KeepAlive
		if rivals.suspected(time.Now()) {
			keepAlive = min(keepAlive, rivalKeepAlive)
		}
		e := s.session(ctx, h, keepAlive, func() {
			s.stats.connects.Add(1)
			s.stats.listening.Store(true)
			s.record.Up()
			told.up(s)
		})
		s.stats.listening.Store(false)
		s.record.Down(e.why())
		switch {
		case ctx.Err() != nil:
			return nil
		case rivals.see(e, time.Now()):
			return takenOver(s.cfg.name())
		case e.err == nil: // a token has been renewed at its hub, or will be at once
			s.stats.renewals.Add(1)
			told.renewing = true
			tries = 0
			continue
		}
		told.down(s, e)
		if e.lived >= resetAfter {
			tries = 0
		}
		wait := s.cfg.backoff(tries)
		if e.refused {
			wait = s.cfg.RetryRefused/2 + rand.N(s.cfg.RetryRefused/2+1)
		}
		tries++
		pause(ctx, wait)
	}
	return nil
}

// backoff is the wait before another try: anything up to a limit that doubles
// ("full jitter"), so that the devices that a hub has lost come back one by one.
func (c Config) backoff(tries int) time.Duration {
	most := c.RetryMost
	if c.RetryFirst <= most>>tries {
		most = c.RetryFirst << tries
	}
	return rand.N(most + 1)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

type stats struct {
	listening                                         atomic.Bool
	connects, losses, refusals, renewals              atomic.Uint64
	signals, dropped, foreignMessages, foreignMethods atomic.Uint64
}

// Stats are counted since New.
type Stats struct {
	Listening bool   // right now: the hub has taken the subscriptions
	Connects  uint64 // connections that came to listen
	Losses    uint64 // of those, without having been planned
	Refusals  uint64 // of the credentials
	Renewals  uint64 // of the token, each a planned reconnect
	Signals   uint64 // given to the handler
	Dropped   uint64 // signals that were not, since too many waited
	// ForeignMessages and ForeignMethods were for somebody else.
	ForeignMessages, ForeignMethods uint64
}

// State says whether signals are heard, and if not, why. It may be called at any time.
func (s *Source) State() signaler.SourceState { return s.record.State() }

// Stats says what has happened. It may be called at any time.
func (s *Source) Stats() Stats {
	c := &s.stats
	return Stats{
		Listening: c.listening.Load(), Connects: c.connects.Load(), Losses: c.losses.Load(), Refusals: c.refusals.Load(), Renewals: c.renewals.Load(),
		Signals: c.signals.Load(), Dropped: c.dropped.Load(), ForeignMessages: c.foreignMessages.Load(), ForeignMethods: c.foreignMethods.Load(),
	}
}
