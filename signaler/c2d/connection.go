package c2d

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler/credential"
)

// devicebound is where messages for devices are sent to.
const devicebound = "/messages/devicebound"

// A connection is one AMQP connection, from the dial to its end: a session for the
// token, one for messages, and one for feedback if that is read.
type connection struct {
	shim    *shim
	amqp    *amqp.Conn
	session *amqp.Session
	sender  *amqp.Sender
	tokens  *tokenLinks

	sends chan struct{} // one per message under way
	crew  crew          // what runs on the connection
	born  time.Time

	probing atomic.Bool

	mu         sync.Mutex // guards what follows
	useful     bool       // it took a message
	sending    int        // the channel of session; negative: not known yet
	unanswered time.Time  // when the first message was sent that got no answer; zero: the last one got one
}

var (
	errLost   = errors.New("the connection was lost")
	errSilent = errors.New("the hub has gone silent")
	errDeaf   = errors.New("the hub answers no message any more")
	errStop   = errors.New("the signaler stops")
)

// open makes a connection that takes messages. ctx bounds it.
func (s *Signaler) open(ctx context.Context) (c *connection, tok credential.Token, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.DialTimeout, fmt.Errorf("not done within %v", s.cfg.DialTimeout))
	defer cancel()
	if tok, err = s.cfg.Credential.Token(ctx); err != nil {
		return nil, tok, noToken(ctx, err)
	}
	conn, raw, err := s.dial(ctx)
	if err != nil {
		return nil, tok, openError("dial "+s.addr, err)
	}
	fresh := newConnection() // not c, which a return sets while drop runs
	fresh.shim = newShim(conn, raw, writeTimeout, fresh.ended)
	// NewConn takes no ctx, and may wait for ever.
	stop := context.AfterFunc(ctx, func() { fresh.drop(context.Cause(ctx)) })
	err = fresh.attach(ctx, s, tok)
	if !stop() && err == nil {
		err = openError("connect", context.Cause(ctx))
	}
	if err != nil {
		fresh.close()
		return nil, tok, err
	}
	return fresh, tok, nil
}

func newConnection() *connection {
	return &connection{sends: make(chan struct{}, maxSends), born: time.Now(), sending: -1}
}

// attach does everything that comes after the dial.
func (c *connection) attach(ctx context.Context, s *Signaler, tok credential.Token) (err error) {
	step := func(doing string, err error) error {
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if why := c.shim.reason(); why != nil && !errors.Is(why, net.ErrClosed) {
			err = why // go-amqp often knows only that the connection is closed
		}
		return openError(doing, err)
	}
	c.amqp, err = amqp.NewConn(c.shim, &amqp.ConnOptions{
		HostName: s.host, IdleTimeout: s.cfg.IdleTimeout, MaxFrameSize: maxFrame,
	})
	if err != nil {
		return step("open AMQP", err)
	}
	tokens, err := c.amqp.NewSession(ctx, nil)
	if err != nil {
		return step("begin a session", err)
	}
	c.tokens = &tokenLinks{session: tokens, name: s.cfg.HostName, host: s.host}
	if err = c.put(ctx, tok); err != nil {
		return step("sign in", err)
	}
	if c.session, err = c.amqp.NewSession(ctx, nil); err != nil {
		return step("begin a session", err)
	}
	c.watch(c.shim.lastBegun())
	// Rejected messages are ours to report: by default go-amqp would end the link for
	// all of them, each time a device is not known.
	c.sender, err = c.session.NewSender(ctx, devicebound, &amqp.SenderOptions{IgnoreDispositionErrors: true})
	return step("attach to "+devicebound, err)
}

// put shows the hub a token.
func (c *connection) put(ctx context.Context, tok credential.Token) error {
	return c.tokens.put(ctx, tok, &c.crew)
}

// ended is told by the reader what the hub ended, of which go-amqp tells only
// whoever sends next. It drops the connection if it cannot send any more. Links of
// tokens and of feedback are renewed by those who use them.
func (c *connection) ended(code byte, channel uint16, err *amqp.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if code == codeClose || int(channel) == c.sending {
		c.shim.finish(linkError(err))
	}
}

// watch says on which channel messages are sent. What the hub ended before, the
// attach will find out.
func (c *connection) watch(channel uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = int(channel)
}

// lost is closed when the connection is over.
func (c *connection) lost() <-chan struct{} { return c.shim.ctx.Done() }

// drop ends the connection at once.
func (c *connection) drop(why error) { c.shim.abort(why) }

// send hands a message to go-amqp and returns when the hub has answered, with
// errLost if the connection broke first, or with the cause of ctx's end.
//
// The work is done in a goroutine of its own: Send waits for the link's turn
// without looking at ctx, and that may take long when there is no credit.
func (c *connection) send(ctx context.Context, m *amqp.Message, silence time.Duration) error {
	select {
	case c.sends <- struct{}{}:
	case <-c.lost():
		return errLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	result := make(chan error, 1)
	ok := c.crew.Go(func() {
		defer func() { <-c.sends }()
		result <- c.sender.Send(ctx, m)
	})
	if !ok {
		<-c.sends
		return errLost
	}
	start := time.Now()
	timer := time.NewTimer(silence)
	defer timer.Stop()
	lost := c.lost()
	for {
		select {
		case err := <-result:
			return c.outcome(ctx, start, err)
		case <-lost:
			lost = nil // go-amqp may have the hub's answer, and soon says so
			timer.Reset(lastWord)
		case <-ctx.Done():
			c.gaveUp(start)
			return context.Cause(ctx)
		case <-timer.C:
			if lost == nil {
				return errLost
			}
			c.probe(silence)
			timer.Reset(silence)
		}
	}
}

// probe drops the connection if the hub is silent for d, and then does not even
// answer a BEGIN. A hub that shapes the traffic answers that at once, and messages
// much later; it must not be left for that.
func (c *connection) probe(d time.Duration) {
	if c.shim.heardSince(time.Now().Add(-d)) || !c.probing.CompareAndSwap(false, true) {
		return
	}
	c.crew.Go(func() {
		defer c.probing.Store(false)
		start := time.Now()
		ctx, cancel := context.WithTimeout(c.shim.ctx, d)
		defer cancel()
		if session, err := c.amqp.NewSession(ctx, nil); err == nil {
			session.Close(ctx)
		} else if !c.shim.heardSince(start) {
			c.drop(errSilent)
		}
	})
}

// gaveUp notes a message that nobody waits for any more. A link that has no credit,
// or whose session has no window, and never will, looks as healthy as any.
func (c *connection) gaveUp(start time.Time) {
	if time.Since(start) < patience {
		return // the requester left, or was in a hurry
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unanswered.IsZero() {
		c.unanswered = start
	}
	if time.Since(c.unanswered) > deafAfter {
		c.drop(errDeaf)
	}
}

func (c *connection) answered(taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.useful = c.useful || taken
	c.unanswered = time.Time{}
}

func (c *connection) outcome(ctx context.Context, start time.Time, err error) error {
	if err == nil {
		c.answered(true)
		return nil
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		c.answered(false)
		return rejection(e)
	}
	if ctx.Err() != nil {
		c.gaveUp(start)
		return context.Cause(ctx)
	}
	// The link, session or connection is gone, or go-amqp could not encode the
	// message, which it always can.
	c.drop(err)
	return errLost
}

// good says whether the connection was worth having: the next one need not wait.
func (c *connection) good() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.useful || time.Since(c.born) > settled
}

// close ends the connection, with a goodbye if that is still possible, and returns
// when nothing runs on it any more.
func (c *connection) close() {
	c.shim.finish(errLost)
	t := time.AfterFunc(goodbye, func() { c.drop(errStop) })
	defer t.Stop()
	if c.amqp == nil {
		c.drop(errStop) // NewConn closes it too
	} else {
		c.amqp.Close() // its error is the shim's reason
		// The connection is gone: these only wait for go-amqp's goroutines.
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		if c.sender != nil {
			c.sender.Close(ctx)
		}
		if c.session != nil {
			c.session.Close(ctx)
		}
		if c.tokens != nil {
			c.tokens.close(ctx)
		}
	}
	c.crew.Wait()
	c.drop(errStop)
}
