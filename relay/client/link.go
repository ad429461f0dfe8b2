package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"websocketbridge/relay/session"
)

// A Link keeps a session to a device: it dials, and when the session is lost it
// dials again. All its users share the one session, so any number of streams
// cost one signal.
type Link struct {
	cfg    Config
	req    Request
	notify func(Event)
	retry  bool

	mu      sync.Mutex // guards the three below
	session *Session   // nil while there is none that takes streams
	err     error      // why Run ended
	changed chan struct{}
}

// An Event is a change in a Link's life.
type Event struct {
	Session *Session      // not nil: it is up
	Took    time.Duration // to bring it up
	Err     error         // not nil: it was lost, or could not be had
	Retry   time.Duration // with Err: until the next try; 0: there is none
}

// Between tries, full jitter. The first is short: a drained node's neighbour
// takes the bridge at once.
const (
	backoffFirst = time.Second
	backoffMost  = 60 * time.Second
)

// NewLink starts nothing. notify, which may be nil, is called by Run for each
// event, one after the other. With persist the link also keeps trying when the
// very first dial fails; otherwise Run returns that error, so that a typo shows.
func NewLink(cfg Config, req Request, persist bool, notify func(Event)) *Link {
	if notify == nil {
		notify = func(Event) {}
	}
	return &Link{cfg: cfg, req: req, notify: notify, retry: persist, changed: make(chan struct{})}
}

// Run dials, and dials again, until ctx ends (nil) or nothing can be hoped for
// without somebody changing something: then it returns why. It is called once.
func (l *Link) Run(ctx context.Context) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	err := l.run(live, &sessions)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	if err == nil {
		l.err = context.Cause(ctx)
	}
	l.wake()
	return err
}

func (l *Link) run(ctx context.Context, sessions *sync.WaitGroup) error {
	persist := l.retry
	wait := backoffFirst
	for {
		began := time.Now()
		s, err := Dial(ctx, l.cfg, l.req)
		if err == nil {
			sessions.Go(func() { // also once it is retired
				select {
				case <-s.Done():
				case <-ctx.Done():
				}
				s.Close()
			})
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			persist = true
			up := time.Now()
			if err = l.use(ctx, s, up.Sub(began)); err == nil {
				return nil
			}
			if time.Since(up) > backoffMost {
				wait = backoffFirst // it was a good one
			}
		case !persist || permanent(err):
			l.notify(Event{Err: err})
			return err
		}
		d := 1 + time.Duration(rand.Int64N(int64(wait)))
		if e := (*Error)(nil); errors.As(err, &e) {
			d += e.RetryAfter
		}
		wait = min(2*wait, backoffMost)
		l.notify(Event{Err: err, Retry: d})
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// use lends s out until it is over or retired, and returns why; nil: because ctx
// has ended.
func (l *Link) use(ctx context.Context, s *Session, took time.Duration) error {
	l.mu.Lock()
	l.session = s
	l.wake()
	l.mu.Unlock()
	defer l.retire(s)
	l.notify(Event{Session: s, Took: took})
	for {
		l.mu.Lock()
		current, changed := l.session, l.changed
		l.mu.Unlock()
		if current != s {
			return session.ErrGoingAway
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Done():
			return cmp.Or(s.Why(), session.ErrClosed)
		case <-changed:
		}
	}
}

// retire lends s out no more. Its streams live on.
func (l *Link) retire(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == s {
		l.session = nil
		l.wake()
	}
}

// wake is called with mu held.
func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// permanent says that trying again is of no use.
func permanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && !e.Temporary() || errors.Is(err, ErrNoSession)
}

// get waits for a session other than old.
func (l *Link) get(ctx context.Context, old *Session) (*Session, error) {
	for {
		l.mu.Lock()
		s, err, changed := l.session, l.err, l.changed
		l.mu.Unlock()
		if err == nil {
			if s != nil && s != old {
				return s, nil
			}
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		return nil, fmt.Errorf("no session to device %q: %w", l.req.Device, err)
	}
}

// Open opens a stream, waiting for a session if there is none. A session that
// ends meanwhile is waited for again; an answer of the device is final.
func (l *Link) Open(ctx context.Context, target string) (*session.Stream, error) {
	var s *Session
	for {
		var err error
		if s, err = l.get(ctx, s); err != nil {
			return nil, err
		}
		st, err := s.Open(ctx, target)
		var refused *session.OpenError
		var gone *session.GoAwayError
		switch {
		case err == nil, ctx.Err() != nil, errors.As(err, &refused) && refused.Code != session.CodeGoingAway:
			return st, err
		case errors.As(err, &gone) && (gone.Code == session.CodeClosed || gone.Code == session.CodeProtocol):
			<-s.Done() // any moment now
		case refused != nil, gone != nil, errors.Is(err, session.ErrSpent), errors.Is(err, session.ErrGoingAway):
			l.retire(s)
		default:
			select {
			case <-s.Done():
			default:
				return nil, err
			}
		}
	}
}
