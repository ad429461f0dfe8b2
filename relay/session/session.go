package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// closeLinger is how long a closed session waits for the other side to take
// the last frames and hang up: a slow round trip and some queued data. Hanging
// up first could make TCP discard what the other side has not read yet.
const closeLinger = 2 * time.Second

// A Session is many streams over one transport. All methods may be called by
// several goroutines at once.
type Session struct {
	t        Transport
	headroom int
	role     Role
	cfg      Config
	log      *slog.Logger

	done    chan struct{} // closed when the session has ended; cause and endErr are set before
	stopped chan struct{} // closed when Run has returned
	empty   chan struct{} // closed when this side goes away and the last stream has ended
	hangUp  sync.Once     // closes the transport

	// writeLock is the right to call t.WriteFrame. A channel and not a mutex:
	// waiters are served in turn, which is what makes streams share the bridge
	// frame by frame, and they can wait for a deadline at the same time.
	writeLock  lock
	frames     sync.Pool // *frameBuf for dataSize
	idleFrames sync.Pool // *frameBuf for idleSize

	kick       chan struct{}  // wakes the control loop; holds one token
	backlog    chan *Incoming // waiting for Accept
	reclaimDue atomic.Bool    // the control loop is to ask streams for memory

	start     time.Time    // lastHeard and lastRTT count from here
	lastHeard atomic.Int64 // when the transport last brought bytes, ns since start
	rtt       atomic.Int64 // smoothed, ns; 0: not known yet

	// mu may be taken while a Stream's mu is held, never the other way round.
	mu        sync.Mutex // guards all below
	running   bool
	cause     error // why the session ended; nil while it lives
	endErr    error // what its streams say: cause, wrapped
	streams   map[uint32]*Stream
	nextID    uint32        // of the next Open
	peerID    uint32        // the highest ID the other side has opened; 0: none yet
	held      int           // streams of the other side that count for MaxStreams
	grown     int           // bytes all windows have grown beyond InitialWindow
	budget    *Budget       // where they are from, too; nil: none, or the session has ended
	reclaimed time.Duration // since start: when streams were last asked for memory
	goneAway  *GoAwayError  // the other side's GOAWAY
	leaving   bool          // GoAway was called on this side
	ping      *ping         // the one that waits for its PONG
	pingID    uint64        // of the last ping
	rttAsked  time.Duration // since start: when a ping was last sent to learn the RTT

	// What the control loop has to send. Bounded: one of each, one per stream,
	// maxRefusals.
	goAwayDue *reason
	farewell  *reason // the last GOAWAY, once the session has ended politely
	pingDue   bool
	pongDue   bool
	pongID    uint64
	refusals  []refusal
	due       []*Stream // have frames to send; each at most once
	dueHead   int       // due[:dueHead] are done
}

type refusal struct {
	stream uint32
	code   string
}

// New prepares a session on t and starts nothing: Run does. The two sides must
// have different roles.
func New(t Transport, role Role, cfg Config) (*Session, error) {
	if role != Requester && role != Device {
		return nil, fmt.Errorf("session: %v is neither requester nor device", role)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Session{
		t:         t,
		headroom:  t.Headroom(),
		role:      role,
		cfg:       cfg,
		log:       cfg.Logger,
		done:      make(chan struct{}),
		stopped:   make(chan struct{}),
		empty:     make(chan struct{}),
		writeLock: make(lock, 1),
		kick:      make(chan struct{}, 1),
		backlog:   make(chan *Incoming, cfg.AcceptBacklog),
		start:     time.Now(),
		streams:   make(map[uint32]*Stream),
		nextID:    1,
		budget:    cfg.Budget,
	}
	if role == Device {
		s.nextID = 2
	}
	return s, nil
}

// Run moves the session's frames until it ends, then closes the transport,
// waits for the session's goroutines and returns. It may be called once.
//
// It returns nil if either side closed the session politely, and otherwise the
// cause: of ctx if that ended it, or an error that wraps ErrLost, ErrDead,
// ErrProtocol or a *GoAwayError. When ctx ends, the other side is told as by Close.
func (s *Session) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errors.New("session: Run was called before")
	}
	s.running = true
	s.mu.Unlock()
	defer close(s.stopped)

	if s.cfg.Budget != nil {
		s.cfg.Budget.join(s)
		defer s.leaveBudget()
	}
	s.lastHeard.Store(int64(s.now())) // the wait for Run was not the other side's silence
	var loops sync.WaitGroup
	loops.Go(s.readLoop)
	loops.Go(s.controlLoop)
	s.watch(ctx)

	// A side that does not take the last frames does not hold up this one.
	linger := time.AfterFunc(closeLinger, s.closeTransport)
	loops.Wait()
	linger.Stop()
	s.closeTransport()

	cause := s.Err()
	s.log.Debug("session ended", "role", s.role, "reason", cause)
	if gone := new(GoAwayError); errors.Is(cause, ErrClosed) || errors.As(cause, &gone) && gone.Code == CodeClosed {
		return nil
	}
	return cause
}

// end ends the session, once. With a farewell, what is due is still sent, the
// farewell last; without one the transport is closed at once.
func (s *Session) end(cause error, farewell *reason) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.cause = cause
	s.endErr = fmt.Errorf("session ended: %w", cause)
	s.farewell = farewell
	ended := slices.Collect(maps.Values(s.streams))
	clear(s.streams)
	s.mu.Unlock()
	close(s.done)
	for _, st := range ended {
		st.mu.Lock()
		st.callOnEnd()
		st.mu.Unlock()
	}
	if farewell == nil {
		s.closeTransport()
	}
}

func (s *Session) closeTransport() {
	s.hangUp.Do(func() {
		if err := s.t.Close(); err != nil {
			s.log.Debug("close transport", "role", s.role, "error", err)
		}
	})
}

func (s *Session) ended() bool { return expired(s.done) }

// now is the time since the session was made.
func (s *Session) now() time.Duration { return time.Since(s.start) }

// Close ends the session: it sends what Stream.Close and the like left to be
// sent, tells the other side, and waits until Run has returned, at most a few
// seconds. Open streams end on both sides with an error; to let them finish,
// call GoAway and wait for Empty. Before Run it just closes the
// transport. It returns nil.
func (s *Session) Close() error {
	s.end(ErrClosed, &reason{code: CodeClosed})
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if !running {
		s.closeTransport() // there is no Run to do it, or it starts right now and finds it done
		return nil
	}
	<-s.stopped
	return nil
}

// GoAway asks for no new streams: neither side opens any from now on, those
// that exist live on. The other side's Open fails with a *GoAwayError that
// holds code and message. An empty code, and one of the session's own that
// would end it, becomes CodeGoingAway.
func (s *Session) GoAway(code, message string) {
	if code == "" || (reason{code: code}).final() {
		code = CodeGoingAway
	}
	r := makeReason(code, message)
	s.mu.Lock()
	s.leaving = true
	s.goAwayDue = &r
	s.checkEmpty()
	s.mu.Unlock()
	s.kickControl()
}

// final reports whether a GOAWAY with this reason ends the session, and not
// just the opening of streams.
func (r reason) final() bool { return r.code == CodeClosed || r.code == CodeProtocol }

// Done is closed when the session has ended. Run returns a little later.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is nil while the session lives and then says why it ended: ErrClosed
// after Close on this side, a *GoAwayError after one on the other, the cause of
// Run's ctx, or an error that wraps ErrLost, ErrDead or ErrProtocol.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// NumStreams is how many streams of either side are open or being opened.
func (s *Session) NumStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// remove forgets a stream that both sides have ended.
func (s *Session) remove(id uint32) {
	s.mu.Lock()
	delete(s.streams, id)
	s.checkEmpty()
	s.mu.Unlock()
}

// Empty is closed when GoAway was called on this side and no stream is open or
// being opened any more. What has arrived can still be read.
func (s *Session) Empty() <-chan struct{} { return s.empty }

// checkEmpty is called with mu held. Once this side goes away, streams only become fewer.
func (s *Session) checkEmpty() {
	if s.leaving && s.cause == nil && len(s.streams) == 0 && !expired(s.empty) {
		close(s.empty)
	}
}

// release gives back the place of a stream of the other side.
func (s *Session) release() {
	s.mu.Lock()
	s.held--
	s.mu.Unlock()
}
