package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Config is where lines go.
type Config struct {
	Path    string    // of a file; empty: Writer
	Writer  io.Writer // standard output, say; it may block
	MaxSize int64     // bytes of a file before it is renamed; 0: never
	Keep    int       // renamed files; 0: all
	Sync    bool      // a line counts as written once the disk has it (fsync); files only

	FailOpen bool          // what must have a line happens without, too
	Wait     time.Duration // for such a line to be written; 0: 3 s

	Node    string       // on each line; may be empty
	Version string       // of the program, on the line of its start
	Logger  *slog.Logger // nil: silent
}

// Limits of a Log.
const (
	DefaultWait = 3 * time.Second // less than proxies wait for an answer that took the whole dial-back

	maxQueued = 16384           // lines that wait to be written; 10 000 bridges may all end at once
	maxBatch  = 64 << 10        // bytes written at once
	retry     = time.Second     // between attempts while nothing can be written
	flushTime = 3 * time.Second // for what is left when Run's ctx ends
	blocked   = 3 * time.Second // for a Writer, before it counts as a failure

	strangers, strangersBurst = 20, 200   // lines a second about refusals of who is not known
	known, knownBurst         = 100, 1000 // and of who is
)

// Errors of Record.
var (
	// ErrNotKept: the line was not written in time, and what it tells of must not happen.
	ErrNotKept = errors.New("the audit log cannot be written")

	errBlocked = errors.New("nobody reads it")
)

// A Log is one stream of lines. New opens it, Run writes it.
type Log struct {
	cfg      Config
	instance string
	out      sink

	stuck []*entry // what is being written: the first of queue; only Run uses it

	strangers, known *rate.Limiter // of refusals

	mu         sync.Mutex // guards all below
	seq        uint64
	queue      []*entry
	suppressed uint64 // since the last line
	err        error  // why the last attempt to write failed
	stats      Stats
	reopen     bool

	wake chan struct{} // cap 1: there is something to do
}

// Stats count lines since the Log was made.
type Stats struct {
	Written, Lost, Suppressed uint64
	Failures                  uint64 // attempts to write that failed
	Failing                   bool   // the last one did
}

// An entry is a line in the queue.
type entry struct {
	line      []byte
	written   chan struct{} // closed then; nil: nobody waits
	abandoned bool          // whoever waited has given up
}

// A sink is where batches of whole lines go. Only Run uses it.
type sink interface {
	// write writes all of it or, as far as can be, nothing. After errBlocked, when some of
	// it is under way, it is called with the same batch again.
	write(batch []byte) error
	// reopen lets go of a file, so that the next write opens it by name again.
	reopen()
	close()
}

// New opens the file, so that a wrong path is told at once.
func New(cfg Config) (*Log, error) {
	switch {
	case (cfg.Path == "") == (cfg.Writer == nil):
		return nil, errors.New("audit: one of Path and Writer is needed")
	case cfg.MaxSize < 0 || cfg.Keep < 0 || cfg.Wait < 0:
		return nil, errors.New("audit: MaxSize, Keep and Wait cannot be negative")
	}
	cfg.Wait = cmp.Or(cfg.Wait, DefaultWait)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		cfg: cfg, instance: newInstance(), wake: make(chan struct{}, 1),
		strangers: rate.NewLimiter(strangers, strangersBurst), known: rate.NewLimiter(known, knownBurst),
	}
	if cfg.Path == "" {
		l.out = &stream{w: cfg.Writer}
		return l, nil
	}
	f := &file{path: cfg.Path, max: cfg.MaxSize, keep: cfg.Keep, sync: cfg.Sync, log: cfg.Logger}
	if err := f.open(); err != nil {
		return nil, err
	}
	l.out = f
	return l, nil
}

// Record adds a line. It returns at once, and nil, unless r is an event that must have
// a line and the Log fails closed: then it waits until the line is written, ctx ends, or
// Config.Wait is over. An error wraps ErrNotKept.
func (l *Log) Record(ctx context.Context, r Record) error {
	must := r.must() && !l.cfg.FailOpen
	e, err := l.add(r, must)
	if e == nil || !must {
		return err
	}
	late := time.NewTimer(l.cfg.Wait)
	defer late.Stop()
	select {
	case <-e.written:
		return nil
	case <-late.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-e.written:
		return nil
	default:
	}
	e.abandoned = true
	l.stats.Lost++
	return fmt.Errorf("%w: %w", ErrNotKept, cmp.Or(l.err, context.Cause(ctx), errors.New("its disk is too slow")))
}

// add gives r its number and its place in the queue, if there is one. Numbers are in the
// order of the queue.
func (l *Log) add(r Record, must bool) (*entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := maxQueued
	if r.Event == Refused {
		room /= 2
		if limit := l.limit(&r); !limit.Allow() {
			l.suppressed++
			l.stats.Suppressed++
			return nil, nil
		}
	}
	if r.Event == Started {
		r.Version = l.cfg.Version
	}
	l.seq++
	if len(l.queue) >= room {
		l.stats.Lost++
		if must {
			return nil, fmt.Errorf("%w: %w", ErrNotKept, cmp.Or(l.err, errors.New("too many lines wait")))
		}
		return nil, nil
	}
	e := &entry{line: line{Version, l.seq, Time{time.Now()}, l.cfg.Node, l.instance, r, l.suppressed}.encode()}
	l.suppressed = 0
	if must {
		e.written = make(chan struct{})
	}
	l.queue = append(l.queue, e)
	l.nudge()
	return e, nil
}

func (l *Log) limit(r *Record) *rate.Limiter {
	if r.Principal == "" {
		return l.strangers
	}
	return l.known
}

// Err says why what must have a line would be refused now; nil: it would not, as far as
// is known.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || l.cfg.FailOpen {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotKept, l.err)
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Failing = l.err != nil
	return s
}

// Reopen has the file opened by its name again, after logrotate has moved it.
func (l *Log) Reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reopen = true
	l.nudge()
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what is left. It returns an error if some of that
// could not be written. Run is called once.
func (l *Log) Run(ctx context.Context) error {
	defer l.out.close()
	ended := ctx.Done()
	var last <-chan time.Time // closes the time for what is left
	for {
		n, err := l.flush()
		var again <-chan time.Time
		switch {
		case err != nil:
			again = time.After(retry)
		case n > 0:
			continue
		case last != nil:
			return nil
		}
		wake := l.wake
		if err != nil {
			wake = nil // more lines do not make the disk emptier
		}
		select {
		case <-wake:
		case <-again:
		case <-ended:
			ended, last = nil, time.After(flushTime)
		case <-last:
			return fmt.Errorf("%d lines of the audit log are lost: %w", l.left(), err)
		}
	}
}

// flush writes one batch and returns how many lines that were.
func (l *Log) flush() (int, error) {
	if l.stuck == nil {
		l.stuck = l.take()
	}
	if l.stuck == nil {
		return 0, nil
	}
	var batch []byte
	for _, e := range l.stuck {
		batch = append(batch, e.line...)
	}
	err := l.out.write(batch)
	if err != nil {
		l.failed(err)
		return 0, err
	}
	n := len(l.stuck)
	l.wrote()
	return n, nil
}

// take returns what is to be written next. It stays in the queue until it is.
func (l *Log) take() (batch []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reopen {
		l.reopen = false
		l.out.reopen()
	}
	size, seen := 0, 0
	for _, e := range l.queue {
		if !e.abandoned {
			if size > 0 && size+len(e.line) > maxBatch {
				break
			}
			size += len(e.line)
			batch = append(batch, e)
		}
		seen++
	}
	l.queue = slices.Replace(l.queue, 0, seen, batch...) // without those that are abandoned
	if batch == nil {
		l.err = nil // nothing is there to try with; the next line finds out
	}
	return batch
}

// failed keeps the batch in the queue: what is abandoned by the next attempt is not in
// it any more, unless a pipe has part of it already.
func (l *Log) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Failures++
	if l.err == nil {
		l.cfg.Logger.Error("audit log cannot be written; trying again", "reason", err, "bridges", map[bool]string{true: "go on", false: "are refused"}[l.cfg.FailOpen])
	}
	l.err = err
	if !errors.Is(err, errBlocked) {
		l.stuck = nil
	}
}

func (l *Log) wrote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.stuck {
		if e.written != nil {
			close(e.written)
		}
	}
	l.stats.Written += uint64(len(l.stuck))
	l.queue = slices.Delete(l.queue, 0, len(l.stuck))
	l.stuck = nil
	if l.err != nil {
		l.err = nil
		l.cfg.Logger.Warn("audit log is written again", "lost", l.stats.Lost)
	}
}

func (l *Log) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

func newInstance() string {
	b := make([]byte, 8)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}
