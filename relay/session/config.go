package session

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Role says which side of the bridge this is, and so which stream IDs are its own.
type Role uint8

const (
	Requester Role = iota + 1 // opens streams with odd IDs
	Device                    // opens streams with even IDs
)

func (r Role) String() string {
	switch r {
	case Requester:
		return "requester"
	case Device:
		return "device"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Defaults of Config.
const (
	DefaultKeepAlive     = 15 * time.Second // below the 30 s after which the touchiest NATs forget a TCP flow
	DefaultDeadAfter     = 35 * time.Second // two pings and five seconds for a slow answer
	DefaultMaxStreams    = 256              // a browser with a dozen tabs, several times over
	DefaultAcceptBacklog = 128              // a burst while the accepting goroutine is busy
	DefaultInitialWindow = 256 << 10        // bytes; fills 2.5 MB/s at 100 ms before any growth
	DefaultMaxWindow     = 32 << 20         // bytes; fills 160 MB/s at 200 ms
	DefaultMaxBuffered   = 64 << 20         // bytes; two streams at MaxWindow
)

// Config holds the limits and timers of one side. The two sides need not agree.
type Config struct {
	// KeepAlive is how long the other side may be silent before it is pinged.
	// Zero: 15 s. Negative: no pings, and then DeadAfter must be negative as well.
	KeepAlive time.Duration
	// DeadAfter is how long the other side may be silent before the session ends
	// with ErrDead. It must exceed KeepAlive. Zero: 35 s. Negative: never.
	DeadAfter time.Duration
	// MaxStreams is how many streams of the other side may be open at once; more
	// are refused with CodeLimitReached. A stream counts until both sides have
	// ended it and the application has closed it or read it to its end.
	// Zero: 256. Negative: none, for a side that never calls Accept.
	MaxStreams int
	// AcceptBacklog is how many streams of the other side may wait for Accept;
	// more are refused with CodeLimitReached. Zero: 128.
	AcceptBacklog int
	// InitialWindow is how many bytes the other side may send on a new stream
	// before the application reads, at least EarlyWindow. Zero: 256 KiB.
	InitialWindow int
	// MaxWindow is what a stream's window may grow to, in bytes, while its reader
	// keeps up with the path; InitialWindow or less: no growth. Zero: 32 MiB.
	MaxWindow int
	// MaxBuffered bounds by how many bytes all windows of the session together
	// may have grown beyond InitialWindow. Zero: 64 MiB. Negative: no growth.
	//
	// Received bytes that wait for readers thus never exceed
	// open streams × InitialWindow + MaxBuffered. Rounding to buffer sizes
	// at most doubles that.
	MaxBuffered int
	// Budget bounds the same for several sessions together, besides MaxBuffered. Nil: each
	// is on its own.
	Budget *Budget
	// Logger gets a few debug lines per session, none per frame. Nil: silent.
	Logger *slog.Logger
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("session: "+format, args...))
	}
	if c.KeepAlive > 0 && c.DeadAfter > 0 && c.DeadAfter <= c.KeepAlive {
		fault("DeadAfter %v must exceed KeepAlive %v", c.DeadAfter, c.KeepAlive)
	}
	if c.KeepAlive < 0 && c.DeadAfter > 0 {
		// An idle session would die although both sides live.
		fault("DeadAfter %v needs KeepAlive", c.DeadAfter)
	}
	if c.AcceptBacklog < 0 {
		fault("AcceptBacklog %d is negative; to take no streams set MaxStreams to -1", c.AcceptBacklog)
	}
	if c.InitialWindow < EarlyWindow || c.InitialWindow > MaxCredit {
		fault("InitialWindow %d is not in %d..%d", c.InitialWindow, EarlyWindow, MaxCredit)
	}
	if c.MaxWindow < 0 || c.MaxWindow > MaxCredit {
		fault("MaxWindow %d is not in 0..%d", c.MaxWindow, MaxCredit)
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	orDefault(&c.KeepAlive, DefaultKeepAlive)
	orDefault(&c.DeadAfter, DefaultDeadAfter)
	orDefault(&c.MaxStreams, DefaultMaxStreams)
	orDefault(&c.AcceptBacklog, DefaultAcceptBacklog)
	orDefault(&c.InitialWindow, DefaultInitialWindow)
	orDefault(&c.MaxWindow, DefaultMaxWindow)
	orDefault(&c.MaxBuffered, DefaultMaxBuffered)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
