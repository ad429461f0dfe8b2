package amqp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// highWater is how many bytes may wait for the peer to read them.
const highWater = 1 << 20

// A Conn is one connection. Its methods may be called from anywhere.
type Conn struct {
	server *Server
	nc     net.Conn
	r      *bufio.Reader
	h      Handler
	in     chan input    // frames to the protocol's goroutine
	wake   chan struct{} // there are events
	write  chan struct{} // there are bytes in out, or last is set
	sent   chan struct{} // the writer has taken bytes
	done   chan struct{} // closed when the connection cannot be used any more
	cut    chan struct{} // closed by Cut
	once   sync.Once     // for cut

	mu        sync.Mutex // guards what follows, and sessions and links
	out       []byte
	last      bool // the writer ends when out is empty
	events    []func()
	sessions  map[uint16]*session
	maxFrame  uint32
	chanMax   uint16
	heartbeat time.Duration
	asked     bool        // the handler has been asked something
	closing   bool        // our CLOSE went
	over      bool        // nothing more to do
	frozen    bool        // see Freeze
	tear      bool        // see Tear
	cause     error       // why it is over, or why our CLOSE went
	late      *time.Timer // since our CLOSE
}

type input struct {
	f   frame
	err error
}

// ServeConn speaks AMQP on nc until either side closes or the context ends, which
// cuts the connection without a word. It closes nc and waits for its goroutines. The
// error is nil if the connection was closed without one.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, h Handler) error {
	c := &Conn{
		server: s, nc: nc, h: h, r: bufio.NewReader(nc),
		in: make(chan input), wake: make(chan struct{}, 1), write: make(chan struct{}, 1), sent: make(chan struct{}, 1), done: make(chan struct{}), cut: make(chan struct{}),
		sessions: map[uint16]*session{}, maxFrame: minMaxFrameSize, chanMax: s.cfg.ChannelMax,
	}
	defer context.AfterFunc(ctx, c.Cut)()
	var writer, reader sync.WaitGroup
	writer.Go(c.writeFrames)
	err := c.handshake()
	if err == nil {
		reader.Go(c.readFrames)
		err = c.run()
	}
	c.finish(err)
	writer.Wait()
	nc.Close()
	reader.Wait()
	if ctx.Err() != nil {
		c.cause = context.Cause(ctx)
	}
	c.runEvents() // links and deliveries that the end took along
	if c.asked {
		h.Closed(c.cause)
	}
	return c.cause
}

// Cut ends the connection without a word.
func (c *Conn) Cut() {
	c.once.Do(func() {
		close(c.cut)
		c.nc.Close()
	})
}

// Freeze makes the connection half open: nothing more is read or written, but what is
// queued, until it is cut or was idle for too long.
func (c *Conn) Freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
	signal(c.wake)
}

// Tear cuts the connection in the middle of the next frame that is written.
func (c *Conn) Tear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tear = true
}

// Done is closed when the connection has ended or is lost.
func (c *Conn) Done() <-chan struct{} { return c.done }

// NetConn returns the connection below, for its addresses and certificates.
func (c *Conn) NetConn() net.Conn { return c.nc }

// CloseWith sends a CLOSE with an error, which may be nil, and ends the connection
// when the peer has answered or Config.CloseTimeout is over. It does not wait.
func (c *Conn) CloseWith(e *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(e)
}

// close is CloseWith for who holds mu.
func (c *Conn) close(e *Error) {
	if c.closing || c.over {
		return
	}
	c.closing = true
	if e != nil {
		c.cause = e
	}
	c.sendFrame(0, &closing{e}, nil)
	c.late = time.AfterFunc(c.server.cfg.CloseTimeout, c.Cut)
}

// finish is the end of everything, whoever comes first. The writer still writes what
// is there.
func (c *Conn) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over, c.last = true, true
	if c.cause == nil {
		c.cause = err
	}
	if c.late != nil {
		c.late.Stop()
	}
	for _, s := range c.sessions {
		s.drop(c.cause)
	}
	clear(c.sessions)
	close(c.done)
	signal(c.write)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// post runs f on the protocol's goroutine. The caller holds mu.
func (c *Conn) post(f func()) {
	c.events = append(c.events, f)
	signal(c.wake)
}

func (c *Conn) runEvents() {
	for {
		c.mu.Lock()
		events := c.events
		c.events = nil
		c.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, f := range events {
			f()
		}
	}
}

// ask calls a method of the handler. The caller holds mu, which is free meanwhile.
func (c *Conn) ask(f func() error) error {
	c.asked = true
	c.mu.Unlock()
	defer c.mu.Lock()
	return f()
}

// sendFrame queues a frame. The caller holds mu.
func (c *Conn) sendFrame(channel uint16, p performative, payload []byte) {
	if c.frozen || c.last {
		return
	}
	out, err := appendFrame(c.out, frame{channel: channel, body: p, payload: payload})
	if err != nil {
		// Only what a handler put into an Error can be at fault.
		panic(err)
	}
	if c.tear {
		out, c.last = out[:(len(c.out)+len(out))/2], true
	}
	c.out = out
	signal(c.write)
}

// run is the protocol after the handshake.
func (c *Conn) run() error {
	for {
		c.runEvents()
		if err := c.throttle(); err != nil {
			return err
		}
		select {
		case in := <-c.in:
			if over, err := c.take(in); over {
				return err
			}
		case <-c.wake:
		}
	}
}

// throttle waits while the peer does not read.
func (c *Conn) throttle() error {
	for {
		c.mu.Lock()
		waiting, last, frozen := len(c.out), c.last, c.frozen
		c.mu.Unlock()
		if frozen {
			c.freeze()
			return errors.New("cut while half open")
		}
		if last {
			return errors.New("the connection cannot be written to")
		}
		if waiting < highWater {
			return nil
		}
		<-c.sent
	}
}

// freeze waits for the end of a connection that is half open.
func (c *Conn) freeze() {
	idle := time.NewTimer(c.server.cfg.IdleTimeout)
	defer idle.Stop()
	select {
	case <-c.cut:
	case <-idle.C:
	}
}

// take handles a frame, or the end of them.
func (c *Conn) take(in input) (over bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.err == nil {
		over, err = c.handle(in.f)
	} else {
		err = in.err
	}
	var e *Error
	switch {
	case over:
		return true, err
	case err == nil:
		return false, nil
	case errors.As(err, &e):
		c.close(e)
		return false, nil
	case isTimeout(err) && !c.closing:
		c.close(errorf(CondResourceLimit, "the connection was inactive for more than the allowed %d milliseconds", c.server.cfg.IdleTimeout.Milliseconds()))
		return false, nil
	case c.closing:
		return true, nil // the peer closed its socket instead of answering
	case errors.Is(err, io.EOF):
		return true, io.ErrUnexpectedEOF
	}
	return true, err
}

// handle handles a frame. over means that the peer has closed.
func (c *Conn) handle(f frame) (over bool, err error) {
	if p, ok := f.body.(*closing); ok {
		if !c.closing {
			c.sendFrame(0, &closing{}, nil)
		}
		if p.err != nil {
			return true, fmt.Errorf("the peer closed the connection: %w", p.err)
		}
		return true, nil
	}
	switch p := f.body.(type) {
	case nil:
		return false, nil
	case *open:
		if c.closing {
			return false, nil
		}
		return false, errorf(CondIllegalState, "second open")
	case *begin:
		if c.closing {
			return false, nil
		}
		return false, c.begin(f.channel, p)
	}
	if c.closing {
		return false, nil // the peer did not know yet
	}
	s := c.sessions[f.channel]
	if s == nil {
		return false, errorf(CondIllegalState, "frame on channel %d, which has no session", f.channel)
	}
	return false, s.handle(f)
}

// readFrames reads until it cannot. After a fault in the frames, what comes is read
// and dropped, so that the peer, who may still write, comes to read our CLOSE.
func (c *Conn) readFrames() {
	for {
		c.nc.SetReadDeadline(time.Now().Add(c.server.cfg.IdleTimeout))
		f, err := readFrame(c.r, c.server.cfg.MaxFrameSize)
		if err == nil && f.kind != frameTypeAMQP {
			err = errorf(CondFraming, "frame of type %d after the OPEN", f.kind)
		}
		select {
		case c.in <- input{f, err}:
		case <-c.done:
			return
		}
		var e *Error
		if errors.As(err, &e) || isTimeout(err) {
			c.nc.SetReadDeadline(time.Time{})
			_, err = io.Copy(io.Discard, c.r)
			if err == nil {
				err = io.EOF
			}
			select {
			case c.in <- input{err: err}:
			case <-c.done:
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// writeFrames writes what is queued, and an empty frame if nothing was for half of
// what the peer endures.
func (c *Conn) writeFrames() {
	defer c.nc.Close() // if a frame was torn; else the reader has ended, or it is to
	var idle <-chan time.Time
	for {
		beat := false
		select {
		case <-c.write:
		case <-idle:
			beat = true
		}
		c.mu.Lock()
		if beat && len(c.out) == 0 && !c.frozen && !c.closing {
			c.out, _ = appendFrame(nil, frame{})
		}
		b, last, interval := c.out, c.last, c.heartbeat
		c.out = nil
		c.mu.Unlock()
		if len(b) > 0 {
			timeout := c.server.cfg.IdleTimeout
			if last {
				timeout = c.server.cfg.CloseTimeout
			}
			c.nc.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := c.nc.Write(b); err != nil {
				c.mu.Lock()
				c.last = true
				c.mu.Unlock()
				signal(c.sent)
				return
			}
			if interval > 0 {
				idle = time.After(interval)
			}
		} else if last {
			return
		}
		c.mu.Lock()
		for _, s := range c.sessions {
			s.pump()
		}
		if c.last {
			signal(c.write)
		}
		c.mu.Unlock()
		signal(c.sent)
	}
}
