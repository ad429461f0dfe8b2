package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
)

// A Link keeps a session to a device: it dials, and when the session is lost it
// dials again. All its users share the one session, so any number of streams
// cost one signal. When the relay's node drains, it moves to another session
// before that one is lost.
type Link struct {
	cfg      Config
	req      Request
	notify   func(Event)
	retry    bool
	sessions sync.WaitGroup // one for each session, until it is closed

	mu      sync.Mutex // guards the three below, and each session's users
	session *Session   // nil while there is none that takes streams
	err     error      // why Run ended
	changed chan struct{}
}

// An Event is a change in a Link's life.
type Event struct {
	Session *Session      // not nil: it is up
	Took    time.Duration // to bring it up
	// Moving, if not nil, is a session whose node drains. It stays in use until
	// another one is up. With Err that could not be had, and if there is no next try
	// the session stays in use until it is lost.
	Moving *Session
	Err    error         // not nil: it was lost, or could not be had
	Retry  time.Duration // with Err: until the next try; 0: there is none
}

// Between tries, full jitter. The first is short: a lost node's neighbour takes
// the bridge at once.
const (
	backoffFirst = time.Second
	backoffMost  = 60 * time.Second
)

const (
	// retryAfterMost bounds what is believed of Retry-After: a proxy's maintenance
	// page may ask for a day, and go away in a minute.
	retryAfterMost = 10 * time.Minute
	// dialMost is beyond what any relay needs for an answer: 60 s for the device, 30 s
	// for the hub. A node that was cut off while it held its answer gives none.
	dialMost = 2 * time.Minute
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
	defer l.sessions.Wait()
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	err := l.run(live)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	if err == nil {
		l.err = context.Cause(ctx)
	}
	l.wake()
	return err
}

func (l *Link) run(ctx context.Context) error {
	var wait backoff
	for worked := false; ; {
		a := l.dial(ctx, ctx)
		err := a.err
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			worked = true
			if err = l.use(ctx, a, &wait); err == nil {
				return nil
			}
			if e := (*Error)(nil); errors.As(err, &e) && e.Code == wire.Killed { // to dial again would undo it
				l.notify(Event{Err: err})
				return err
			}
		case !worked && !l.retry || permanent(err, worked || l.retry):
			l.notify(Event{Err: err})
			return err
		}
		d := wait.next(err)
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

// An attempt is one dial.
type attempt struct {
	session *Session
	took    time.Duration
	err     error
}

// dial makes one attempt, which ctx bounds. The session lives until live ends, it is
// lost, or it is left.
func (l *Link) dial(ctx, live context.Context) attempt {
	ctx, cancel := context.WithTimeoutCause(ctx, dialMost, fmt.Errorf("no answer within %v", dialMost))
	defer cancel()
	began := time.Now()
	s, err := Dial(ctx, l.cfg, l.req)
	if err != nil {
		return attempt{err: err}
	}
	l.sessions.Go(func() { l.keep(live, s) })
	return attempt{s, time.Since(began), nil}
}

// keep closes s: when ctx ends, when it is lost, or, once it is left, when its last
// stream has ended and what that brought has been taken.
func (l *Link) keep(ctx context.Context, s *Session) {
	defer s.Close()
	ended := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return false
		case <-s.Done():
		case <-ctx.Done():
		}
		return true
	}
	if ended(s.left) {
		return
	}
	s.GoAway("", "the requester has another session") // an Open that comes too late fails, and takes that one
	if ended(s.Empty()) {
		return
	}
	for {
		l.mu.Lock()
		users, changed := s.users, l.changed
		l.mu.Unlock()
		if users == 0 || ended(changed) {
			return
		}
	}
}

// A backoff is the longest that the next wait may be; 0: backoffFirst.
type backoff time.Duration

// next is how long to wait after err.
func (b *backoff) next(err error) time.Duration {
	most := cmp.Or(time.Duration(*b), backoffFirst)
	*b = backoff(min(2*most, backoffMost))
	d := 1 + rand.N(most)
	if e := (*Error)(nil); errors.As(err, &e) {
		d += min(e.RetryAfter, retryAfterMost)
	}
	return d
}

// use lends out a session, and those it moves to, until one is over or retired.
// It returns why; nil: because ctx has ended.
func (l *Link) use(ctx context.Context, a attempt, wait *backoff) error {
	spread := moveSpread
	for old := (*Session)(nil); ; {
		s, up := a.session, time.Now()
		l.mu.Lock()
		l.session = s
		l.wake()
		l.mu.Unlock()
		if old != nil {
			close(old.left)
		}
		l.notify(Event{Session: s, Took: a.took})
		next, err := l.stay(ctx, s, &spread)
		if time.Since(up) > backoffMost || drains(s, err) {
			*wait = 0 // it was a good one, or is not to blame
		}
		if next == nil {
			l.retire(s)
			close(s.left)
			return err
		}
		old, a = s, *next // which takes its place in one step: no Open finds none
	}
}

// drains says whether s ended, or will, because its node drains.
func drains(s *Session, why error) bool {
	select {
	case <-s.Draining():
		return true
	default:
		var e *Error
		return errors.As(why, &e) && e.Code == wire.Draining
	}
}

// moveSpread is how long a Link waits at most before it moves: a node that drains
// may have thousands of bridges, and each new one is a message of the hub's quota.
// It doubles while moves follow one another: from one drain into the next.
const moveSpread = 5 * time.Second

// stay returns when s is over or retired, and why; nil: because ctx has ended. When
// its node drains it dials meanwhile; the attempt that succeeds is to follow s.
func (l *Link) stay(ctx context.Context, s *Session, spread *time.Duration) (*attempt, error) {
	dialCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := time.Now()
	var (
		wait     backoff
		draining = s.Draining()
		due      <-chan time.Time
		dialled  chan attempt // holds one; nil: no dial is under way
	)
	leave := func(why error) (*attempt, error) {
		if dialled != nil {
			cancel()
			if a := <-dialled; a.err == nil && ctx.Err() == nil { // just in time
				return &a, nil
			}
		}
		return nil, why
	}
	for {
		l.mu.Lock()
		current, changed := l.session, l.changed
		l.mu.Unlock()
		if current != s {
			return leave(session.ErrGoingAway)
		}
		select {
		case <-ctx.Done():
			return leave(nil)
		case <-s.Done():
			return leave(cmp.Or(s.Why(), session.ErrClosed))
		case <-changed:
		case <-draining:
			draining = nil
			l.notify(Event{Moving: s})
			if time.Since(up) > backoffMost {
				*spread = moveSpread
			}
			due = time.After(rand.N(*spread))
			*spread = min(2**spread, backoffMost)
		case <-due:
			due, dialled = nil, make(chan attempt, 1)
			go func(dialled chan<- attempt) { dialled <- l.dial(dialCtx, ctx) }(dialled)
		case a := <-dialled:
			dialled = nil
			switch {
			case a.err == nil:
				return &a, nil
			case permanent(a.err, true): // s works; when it is lost, Run will see
				l.notify(Event{Moving: s, Err: a.err})
			default:
				d := wait.next(a.err)
				l.notify(Event{Moving: s, Err: a.err, Retry: d})
				due = time.After(d)
			}
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

// permanent says that trying again is of no use. worked: the same request has
// succeeded before. Then an answer that is no relay's says that something in between
// is out of order, an ingress that has lost its routes say, unless it is a no.
func permanent(err error, worked bool) bool {
	var e *Error
	switch {
	case errors.Is(err, ErrNoSession), errors.Is(err, ErrSignIn):
		return true
	case !errors.As(err, &e) || e.Temporary():
		return false
	case e.NoRelay && worked:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return true
}

// get waits for a session other than old. It counts its caller as a user.
func (l *Link) get(ctx context.Context, old *Session) (*Session, error) {
	for {
		l.mu.Lock()
		s, err, changed := l.session, l.err, l.changed
		if err == nil && s != nil && s != old {
			s.users++
			l.mu.Unlock()
			return s, nil
		}
		l.mu.Unlock()
		if err == nil {
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

// release undoes the counting of get.
func (l *Link) release(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.users--; s.users == 0 && l.session != s {
		l.wake() // keep may wait for it
	}
}

// Open opens a stream, waiting for a session if there is none. A session that
// ends meanwhile is waited for again; an answer of the device is final.
func (l *Link) Open(ctx context.Context, target string) (*session.Stream, error) {
	st, s, err := l.open(ctx, target)
	if err == nil {
		l.release(s) // it counts the stream itself
	}
	return st, err
}

// open is Open for a user who calls release when through with the stream.
func (l *Link) open(ctx context.Context, target string) (*session.Stream, *Session, error) {
	var s *Session
	for {
		var err error
		if s, err = l.get(ctx, s); err != nil {
			return nil, nil, err
		}
		st, err := s.Open(ctx, target)
		if err == nil {
			return st, s, nil
		}
		l.release(s)
		var refused *session.OpenError
		var gone *session.GoAwayError
		switch {
		case ctx.Err() != nil, errors.As(err, &refused) && refused.Code != session.CodeGoingAway:
			return nil, nil, err
		case errors.As(err, &gone) && (gone.Code == session.CodeClosed || gone.Code == session.CodeProtocol):
			select {
			case <-s.Done(): // any moment now
			case <-ctx.Done(): // which the next round says
			}
		case refused != nil, gone != nil, errors.Is(err, session.ErrSpent), errors.Is(err, session.ErrGoingAway):
			l.retire(s)
		default:
			select {
			case <-s.Done():
			default:
				return nil, nil, err
			}
		}
	}
}
