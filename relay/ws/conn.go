package ws

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config is how a Conn keeps itself alive, and what it does with pings.
type Config struct {
	Ping time.Duration // between unsolicited pongs; 0: 15 s; < 0: never
	Dead time.Duration // without any byte while reading; 0: 35 s; < 0: never
	// OnPing, if set, is told the payload of each of the other end's pings, which is
	// answered all the same. Read calls it, and Close while it waits for the other
	// end: it must not block, use the Conn, or keep the payload.
	OnPing func(payload []byte)
}

// Defaults of Config, and how long Close waits for the other end's close frame.
const (
	DefaultPing  = 15 * time.Second // below the 20 s idle limit of Azure Application Gateway
	DefaultDead  = 35 * time.Second // two pings and some
	CloseTimeout = 5 * time.Second
)

// ErrDead ends a Conn whose other end was silent for Config.Dead.
var ErrDead = errors.New("websocket: no frame from the other end in time")

// A CloseError is the other end's close frame. Code 1000 reads as io.EOF
// instead, like the end of any stream.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the other end closed the WebSocket with code %d", e.Code)
	}
	return fmt.Sprintf("the other end closed the WebSocket with code %d: %s", e.Code, e.Reason)
}

// A Conn is a client's end of a WebSocket, read and written as a stream of
// bytes: messages of either type are read one after another as if one; each
// write is one binary message. One goroutine may read while others write.
type Conn struct {
	conn        net.Conn
	cfg         Config
	start       time.Time // times below are since then: a clock that is set must not kill
	subprotocol string
	header      http.Header
	err         atomic.Pointer[error] // why it ended, other than by a failed write; the first wins

	wmu      ioLock    // guards writes to conn, and the five below
	keys     [512]byte // random mask keys, used up from the end
	keysLeft int
	werr     error         // a close frame is out or a frame is torn: nothing may follow
	broken   chan struct{} // closed when a write has failed; lost says whether it is
	lost     bool

	pmu     sync.Mutex // guards the five below; never held during I/O
	pending []byte     // control frames that the reader or a timer wants written
	posting bool       // a goroutine is writing them
	ended   bool       // no more control frames
	keeper  *time.Timer
	pinged  time.Duration
	posts   sync.WaitGroup

	rmu       ioLock       // guards reads from conn, and all below but since
	since     atomic.Int64 // when the Read under way began or last got bytes, in ns; -1: none is
	in        []byte       // read, not yet handed out; a part of buf or rest, or what NewClient was given
	buf       []byte       // for readers with small buffers
	rest      [maxRest]byte
	left      int64 // of the current data frame
	inMessage bool  // the last data frame had no FIN
	rerr      error // nothing can be read any more

	closing atomic.Bool
	closed  chan struct{} // closed when Close is done
}

// NewClient takes over a connection after a handshake; head was read too much.
func NewClient(c net.Conn, head []byte, cfg Config) *Conn {
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.Dead == 0 {
		cfg.Dead = DefaultDead
	}
	conn := &Conn{conn: c, cfg: cfg, in: head, start: time.Now(), wmu: newIOLock(), rmu: newIOLock(), closed: make(chan struct{}), broken: make(chan struct{})}
	conn.since.Store(-1)
	if cfg.Ping > 0 || cfg.Dead > 0 {
		conn.pmu.Lock()
		conn.keeper = time.AfterFunc(conn.due(0), conn.keep)
		conn.pmu.Unlock()
	}
	return conn
}

// Subprotocol is what the handshake agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Header is the header of the handshake's answer.
func (c *Conn) Header() http.Header { return c.header }

// Read reads the payload of data frames. It returns io.EOF after a close frame
// with code 1000 or none, and a *CloseError after any other.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if err := c.err.Load(); err != nil {
		return 0, *err
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.since.Store(int64(time.Since(c.start)))
	n, err := c.read(p)
	c.since.Store(-1)
	if err == nil || isTimeout(err) && c.err.Load() == nil {
		return n, err
	}
	return 0, c.end(err)
}

func (c *Conn) readConn(p []byte) (int, error) {
	n, err := Read(c.conn, p)
	if n > 0 {
		c.since.Store(int64(time.Since(c.start)))
	}
	return n, err
}

// end keeps the first reason and returns it.
func (c *Conn) end(err error) error {
	c.err.CompareAndSwap(nil, &err)
	return *c.err.Load()
}

// Headroom is what WriteFrame needs in front of the payload.
func (c *Conn) Headroom() int { return MaxHeader }

// WriteFrame sends b[Headroom():] as one binary message. It overwrites b: the
// header goes in front, the payload is masked in place.
func (c *Conn) WriteFrame(b []byte) error { return c.writeFrame(b, OpBinary) }

func (c *Conn) writeFrame(b []byte, op byte) error {
	payload := b[MaxHeader:]
	h := Header{Fin: true, Opcode: op, Masked: true, Len: int64(len(payload))}
	start := MaxHeader - HeaderSize(h.Len, true)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.werr != nil {
		return c.writeError()
	}
	h.Key = c.key()
	AppendHeader(b[start:start], h)
	Mask(payload, payload, h.Key, 0)
	if _, err := Write(c.conn, b[start:]); err != nil {
		c.breakOff(err)
		return c.writeError()
	}
	return nil
}

// writeError prefers why the Conn ended to what a write saw of that.
func (c *Conn) writeError() error {
	if p := c.err.Load(); p != nil && *p != io.EOF { // which is no error for a writer to return
		return *p
	}
	return c.werr
}

// key returns a mask key nobody can predict (RFC 6455 section 10.3). Keys are drawn
// in batches: one system call for 128 frames.
func (c *Conn) key() (k [4]byte) {
	if c.keysLeft == 0 {
		rand.Read(c.keys[:]) // never fails (crypto/rand)
		c.keysLeft = len(c.keys)
	}
	c.keysLeft -= len(k)
	copy(k[:], c.keys[c.keysLeft:])
	return k
}

// frames is where Write puts what it sends: it must not change the caller's bytes.
var frames = sync.Pool{New: func() any { b := make([]byte, MaxHeader+maxWrite); return &b }}

const maxWrite = 32 << 10

// Write sends p as binary messages of at most 32 KiB. Those of concurrent writes
// may mix.
func (c *Conn) Write(p []byte) (int, error) { return c.WriteMessages(p, false) }

// WriteMessages is Write with a choice: text messages must be valid UTF-8 each,
// which is the caller's business.
func (c *Conn) WriteMessages(p []byte, text bool) (n int, err error) {
	op := byte(OpBinary)
	if text {
		op = OpText
	}
	b := frames.Get().(*[]byte)
	defer frames.Put(b)
	for len(p) > 0 {
		m := copy((*b)[MaxHeader:], p)
		if err := c.writeFrame((*b)[:MaxHeader+m], op); err != nil {
			return n, err
		}
		p, n = p[m:], n+m
	}
	return n, nil
}

// post queues a control frame. Neither the reader nor a timer may block on a
// write: two ends whose readers wait for each other's would never go on.
func (c *Conn) post(op byte, payload []byte) {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	c.postLocked(op, payload)
}

func (c *Conn) postLocked(op byte, payload []byte) {
	if c.ended || op != OpClose && len(c.pending) > 1<<10 { // the other end does not read; a pong more would tell it nothing
		return
	}
	var key [4]byte
	rand.Read(key[:])
	c.pending = AppendControl(c.pending, op, payload, true, key)
	if !c.posting {
		c.posting = true
		c.posts.Go(c.writePending)
	}
}

func (c *Conn) writePending() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.pmu.Lock()
	b := c.pending
	c.pending, c.posting = nil, false
	c.pmu.Unlock()
	if c.werr != nil {
		return
	}
	for rest := b; len(rest) > 0; { // a close frame is the last thing said
		h, n, err := ParseHeader(rest)
		if err != nil || n == 0 {
			break
		}
		rest = rest[n+int(h.Len):]
		if h.Opcode == OpClose {
			c.werr = net.ErrClosed
			b = b[:len(b)-len(rest)]
			break
		}
	}
	if _, err := c.conn.Write(b); err != nil {
		c.breakOff(err)
	}
}

// breakOff notes a write that failed. wmu is held.
func (c *Conn) breakOff(err error) {
	c.werr = err
	if !c.lost {
		c.lost = true
		close(c.broken)
	}
}

// Broken is closed when a write has failed, perhaps that of a pong: the
// connection is gone, which a user who does not read would not notice.
func (c *Conn) Broken() <-chan struct{} { return c.broken }

// due says when the keeper has to look again. The caller holds pmu, or is alone.
func (c *Conn) due(now time.Duration) time.Duration {
	next := time.Hour
	if c.cfg.Ping > 0 {
		next = min(next, c.pinged+c.cfg.Ping-now)
	}
	if c.cfg.Dead > 0 {
		since := time.Duration(c.since.Load())
		if since < 0 {
			since = now // a Read may begin right now
		}
		next = min(next, since+c.cfg.Dead-now)
	}
	return max(next, time.Millisecond)
}

// keep runs on a timer, not in a goroutine of its own: idle ends are cheap.
func (c *Conn) keep() {
	now := time.Since(c.start)
	if since := time.Duration(c.since.Load()); c.cfg.Dead > 0 && since >= 0 && now-since >= c.cfg.Dead {
		c.end(ErrDead)
		c.conn.Close()
		return
	}
	c.pmu.Lock()
	defer c.pmu.Unlock()
	if c.ended {
		return
	}
	if c.cfg.Ping > 0 && now-c.pinged >= c.cfg.Ping {
		c.pinged = now
		c.postLocked(OpPong, nil)
	}
	c.keeper.Reset(c.due(now))
}

// Close says goodbye with code 1000 and ends the connection.
func (c *Conn) Close() error { return c.CloseWith(1000, "") }

// CloseWith sends a close frame, waits up to CloseTimeout for the other end's,
// and ends the connection. Reads and writes under way return; data that was not
// read is lost. There is nothing to be done about how a connection ends, so the
// error is always nil.
func (c *Conn) CloseWith(code int, reason string) error {
	if !c.closing.CompareAndSwap(false, true) {
		<-c.closed
		return nil
	}
	defer close(c.closed)
	c.stop(cmp.Or(code, 1005), reason)
	c.drain()
	c.posts.Wait()
	c.conn.Close()
	return nil
}

// stop ends everything but drain. Code 0 says nothing to the other end.
func (c *Conn) stop(code int, reason string) {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	if c.ended {
		return
	}
	if code != 0 {
		c.postLocked(OpClose, AppendClose(nil, code, reason))
	}
	c.ended = true
	if c.keeper != nil {
		c.keeper.Stop()
	}
	c.end(net.ErrClosed)
	c.conn.SetDeadline(time.Now().Add(CloseTimeout))
}

// drain reads until the other end has said all it had to.
func (c *Conn) drain() {
	c.rmu.Lock() // a Read under way ends by the deadline
	defer c.rmu.Unlock()
	b := frames.Get().(*[]byte)
	defer frames.Put(b)
	var err error
	for err == nil {
		_, err = c.read(*b)
	}
	for err = nil; IsProtocolError(c.rerr) && err == nil; { // no frames any more, only bytes
		_, err = c.conn.Read(*b)
	}
}

// CloseNow ends the connection without a word.
func (c *Conn) CloseNow() error {
	c.stop(0, "")
	c.conn.Close()
	c.posts.Wait()
	return nil
}

// An ioLock is a mutex that is held during I/O. It is a channel because testing/synctest
// sees who waits for a channel, and not who waits for a sync.Mutex: with one,
// the clock of a test would stand still as soon as two ends wait for each other.
type ioLock chan struct{}

func newIOLock() ioLock  { return make(ioLock, 1) }
func (l ioLock) Lock()   { l <- struct{}{} }
func (l ioLock) Unlock() { <-l }

// SetReadDeadline bounds reads under way and to come. A read that timed out may
// be tried again.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	if c.ended { // the deadline is Close's now
		return net.ErrClosed
	}
	return c.conn.SetReadDeadline(t)
}

// LocalAddr and RemoteAddr are those of the connection below.
func (c *Conn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
