package ws

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config is how a Conn keeps itself alive.
type Config struct {
	Ping time.Duration // between unsolicited pongs; 0: 15 s; < 0: never
	Dead time.Duration // without any byte while reading; 0: 35 s; < 0: never
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
	subprotocol string
	header      http.Header
	err         atomic.Pointer[error] // why it ended; the first wins

	wmu       sync.Mutex // guards writes to conn, keys and closeSent
	keys      [512]byte  // random mask keys, used up from the end
	keysLeft  int
	closeSent bool

	pmu     sync.Mutex // guards the three below; never held during I/O
	pending []byte     // control frames that the reader or a timer wants written
	posting bool       // a goroutine is writing them
	ended   bool       // no more control frames
	posts   sync.WaitGroup

	// The reader's own.
	in         []byte // read, not yet handed out; a part of buf
	buf        []byte
	left       int64         // of the current data frame
	inMessage  bool          // the last data frame had no FIN
	since      atomic.Int64  // when the current Read began or last got bytes, in ns of epoch; 0: not reading
	closeFrame chan struct{} // closed when the other end's close frame came
	keeper     *time.Timer
}

// readSize is the buffer for headers and small frames; larger payloads are read
// straight into the caller's.
const readSize = 4 << 10

// NewClient takes over a connection after a handshake; head was read too much.
func NewClient(c net.Conn, head []byte, cfg Config) *Conn {
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.Dead == 0 {
		cfg.Dead = DefaultDead
	}
	conn := &Conn{conn: c, cfg: cfg, in: head, closeFrame: make(chan struct{})}
	if d := conn.tick(); d > 0 {
		conn.pmu.Lock()
		conn.keeper = time.AfterFunc(d, conn.keep)
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
	if len(p) == 0 {
		return 0, nil
	}
	c.since.Store(time.Now().UnixNano())
	defer c.since.Store(0)
	for c.left == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, c.fail(err)
		}
	}
	p = p[:min(int64(len(p)), c.left)]
	n := copy(p, c.in)
	if n > 0 {
		c.in = c.in[n:]
	} else {
		var err error
		if len(p) >= readSize {
			n, err = c.readConn(p)
		} else if err = c.fill(1); err == nil {
			n = copy(p, c.in)
			c.in = c.in[n:]
		}
		if err != nil && n == 0 {
			return 0, c.fail(noEOF(err))
		}
	}
	c.left -= int64(n)
	return n, nil
}

// nextFrame reads frames until a data frame with a payload starts.
func (c *Conn) nextFrame() error {
	var (
		h   Header
		n   int
		err error
	)
	for {
		if h, n, err = ParseHeader(c.in); err != nil {
			return err
		}
		if n > 0 {
			break
		}
		if err := c.fill(len(c.in) + 1); err != nil {
			return noEOF(err)
		}
	}
	if h.Masked {
		return ErrMask
	}
	c.in = c.in[n:]
	if h.Control() {
		if err := c.fill(int(h.Len)); err != nil {
			return noEOF(err)
		}
		payload := c.in[:h.Len]
		c.in = c.in[h.Len:]
		return c.control(h.Opcode, payload)
	}
	if (h.Opcode == OpContinuation) != c.inMessage {
		return ErrContinuation
	}
	c.inMessage = !h.Fin
	c.left = h.Len
	return nil
}

func (c *Conn) control(op byte, payload []byte) error {
	switch op {
	case OpPing:
		c.post(OpPong, payload)
	case OpClose:
		code, reason, err := ParseClose(payload)
		if err != nil {
			return err
		}
		close(c.closeFrame)
		c.post(OpClose, payload[:min(2, len(payload))])
		if code == 1000 || code == 1005 {
			return io.EOF
		}
		return &CloseError{code, reason}
	}
	return nil
}

// fill reads until n bytes are buffered.
func (c *Conn) fill(n int) error {
	if len(c.in) >= n {
		return nil
	}
	if c.buf == nil {
		c.buf = make([]byte, readSize)
	}
	have := copy(c.buf, c.in)
	c.in = c.buf[:have]
	for have < n {
		m, err := c.readConn(c.buf[have:])
		have += m
		c.in = c.buf[:have]
		if err != nil && have < n {
			return err
		}
	}
	return nil
}

func (c *Conn) readConn(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	if n > 0 {
		c.since.Store(time.Now().UnixNano())
	}
	return n, err
}

// fail keeps the first reason and tells the other end when it broke the protocol.
func (c *Conn) fail(err error) error {
	if IsProtocolError(err) {
		c.post(OpClose, AppendClose(nil, 1002, "protocol"))
	}
	return c.end(err)
}

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
	if c.closeSent {
		if p := c.err.Load(); p != nil && *p != io.EOF {
			return *p
		}
		return net.ErrClosed
	}
	h.Key = c.key()
	AppendHeader(b[start:start], h)
	Mask(payload, payload, h.Key, 0)
	_, err := c.conn.Write(b[start:])
	if err != nil {
		err = c.end(err)
	}
	return err
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

// Write sends p as binary messages of at most 32 KiB.
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
	if c.ended || len(c.pending) > 1<<10 { // the other end does not read; a ping more would tell it nothing
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
	if c.closeSent {
		return
	}
	for rest := b; len(rest) > 0; { // a close frame is the last thing said
		h, n, err := ParseHeader(rest)
		if err != nil || n == 0 {
			break
		}
		rest = rest[n+int(h.Len):]
		if h.Opcode == OpClose {
			c.closeSent = true
			b = b[:len(b)-len(rest)]
			break
		}
	}
	if _, err := c.conn.Write(b); err != nil {
		c.end(err)
	}
}

// tick is how often the keeper looks; 0: never.
func (c *Conn) tick() time.Duration {
	switch {
	case c.cfg.Ping > 0 && c.cfg.Dead > 0:
		return min(c.cfg.Ping, c.cfg.Dead/4)
	case c.cfg.Ping > 0:
		return c.cfg.Ping
	case c.cfg.Dead > 0:
		return c.cfg.Dead / 4
	}
	return 0
}

// keep runs on a timer, not in a goroutine of its own: idle ends are cheap.
func (c *Conn) keep() {
	if since := c.since.Load(); c.cfg.Dead > 0 && since > 0 && time.Since(time.Unix(0, since)) >= c.cfg.Dead {
		c.end(ErrDead)
		c.conn.Close()
		return
	}
	if c.cfg.Ping > 0 {
		c.post(OpPong, nil)
	}
	c.pmu.Lock()
	defer c.pmu.Unlock()
	if !c.ended {
		c.keeper.Reset(c.tick())
	}
}

// Close says goodbye with code 1000 and ends the connection.
func (c *Conn) Close() error { return c.CloseWith(1000, "") }

// CloseWith sends a close frame, waits up to CloseTimeout for the other end's if
// a Read is under way to see it, and ends the connection. Writes and reads under
// way return.
func (c *Conn) CloseWith(code int, reason string) error {
	c.pmu.Lock()
	if c.ended {
		c.pmu.Unlock()
		c.posts.Wait()
		return nil
	}
	c.pmu.Unlock()
	c.post(OpClose, AppendClose(nil, code, reason))
	c.pmu.Lock()
	c.ended = true
	if c.keeper != nil {
		c.keeper.Stop()
	}
	c.pmu.Unlock()
	c.end(net.ErrClosed)
	c.conn.SetDeadline(time.Now().Add(CloseTimeout))
	c.posts.Wait()
	if c.since.Load() != 0 {
		c.awaitClose()
	}
	return c.conn.Close()
}

// awaitClose waits for the reader to see the other end's close frame: closing
// with unread bytes in the kernel would reset the connection and could destroy
// what we sent last (RFC 6455 section 7.1.1).
func (c *Conn) awaitClose() {
	t := time.NewTimer(CloseTimeout)
	defer t.Stop()
	select {
	case <-c.closeFrame:
	case <-t.C:
	}
}

// CloseNow ends the connection without a word.
func (c *Conn) CloseNow() error {
	c.pmu.Lock()
	c.ended = true
	if c.keeper != nil {
		c.keeper.Stop()
	}
	c.pmu.Unlock()
	c.end(net.ErrClosed)
	err := c.conn.Close()
	c.posts.Wait()
	return err
}

// SetReadDeadline bounds reads under way and to come. A read that timed out may
// be tried again.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// LocalAddr and RemoteAddr are those of the connection below.
func (c *Conn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
