package c2d

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
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

	mu      sync.Mutex // guards what follows
	useful  bool       // it took a message
	sending int        // the channel of session; negative: not known yet
}

var (
	errLost   = errors.New("the connection was lost")
	errSilent = errors.New("the hub has gone silent")
	errStop   = errors.New("the signaler stops")
)

// open makes a connection that takes messages. ctx bounds it.
func (s *Signaler) open(ctx context.Context) (c *connection, tok credential.Token, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.DialTimeout, fmt.Errorf("not done within %v", s.cfg.DialTimeout))
	defer cancel()
	if tok, err = s.cfg.Credential.Token(ctx); err != nil {
		return nil, tok, openError("get a token", causeOr(ctx, err))
	}
	conn, raw, err := s.dial(ctx)
	if err != nil {
		return nil, tok, openError("dial "+s.addr, err)
	}
	c = newConnection()
	c.shim = newShim(conn, raw, writeTimeout, c.ended)
	// NewConn takes no ctx, and may wait for ever.
	stop := context.AfterFunc(ctx, func() { c.drop(context.Cause(ctx)) })
	err = c.attach(ctx, s, tok)
	if !stop() && err == nil {
		err = openError("connect", context.Cause(ctx))
	}
	if err != nil {
		c.close()
		return nil, tok, err
	}
	return c, tok, nil
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
	timer := time.NewTimer(silence)
	defer timer.Stop()
	lost := c.lost()
	for {
		select {
		case err := <-result:
			return c.outcome(ctx, err)
		case <-lost:
			lost = nil // go-amqp may have the hub's answer, and soon says so
			timer.Reset(lastWord)
		case <-ctx.Done():
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
		}
		if !c.shim.heardSince(start) {
			c.drop(errSilent)
		}
	})
}

func (c *connection) outcome(ctx context.Context, err error) error {
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.useful = true
		return nil
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return rejection(e)
	}
	if ctx.Err() != nil {
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

// tokenLinks show tokens to the hub: claims-based security, AMQP's working draft
// amqp-cbs-v1.0. They are used by one goroutine.
type tokenLinks struct {
	session  *amqp.Session
	name     string // the hub's, as tokens of keys have it
	host     string
	sender   *amqp.Sender // nil: to be attached
	receiver *amqp.Receiver
}

// put returns nil when the hub took the token, and a *tokenError if it did not.
func (l *tokenLinks) put(ctx context.Context, tok credential.Token, crew *crew) error {
	err := l.try(ctx, tok, crew)
	if _, ok := errors.AsType[*tokenError](err); err != nil && !ok {
		l.detach() // they may be gone, or owe an answer to another question
	}
	return err
}

func (l *tokenLinks) try(ctx context.Context, tok credential.Token, crew *crew) (err error) {
	if l.receiver == nil {
		if l.receiver, err = l.session.NewReceiver(ctx, "$cbs", &amqp.ReceiverOptions{Credit: 4, MaxMessageSize: maxFrame}); err != nil {
			l.receiver = nil
			return err
		}
	}
	if l.sender == nil {
		if l.sender, err = l.session.NewSender(ctx, "$cbs", &amqp.SenderOptions{IgnoreDispositionErrors: true}); err != nil {
			l.sender = nil
			return err
		}
	}
	kind, name := "servicebus.windows.net:sastoken", l.name
	if tok.Kind == credential.Bearer {
		kind, name = "Bearer", "amqps://"+l.host+":5671/"
	}
	id, replyTo, to := randomID(), "cbs", "$cbs"
	m := &amqp.Message{
		Properties:            &amqp.MessageProperties{MessageID: id, To: &to, ReplyTo: &replyTo},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": kind, "name": name},
		Value:                 tok.Text,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sender := l.sender
	if !crew.Go(func() {
		if err := sender.Send(ctx, m); err != nil {
			cancel(err)
		}
	}) {
		return errLost
	}
	for { // the answer may come before the request is settled
		answer, err := l.receiver.Receive(ctx)
		if err != nil {
			return causeOr(ctx, err)
		}
		if err := l.receiver.AcceptMessage(ctx, answer); err != nil {
			return causeOr(ctx, err)
		}
		if p := answer.Properties; p != nil && p.CorrelationID != nil && p.CorrelationID != any(id) {
			continue // to a question that we gave up
		}
		return verdict(answer)
	}
}

func verdict(answer *amqp.Message) error {
	status, err := strconv.Atoi(fmt.Sprint(answer.ApplicationProperties["status-code"])) // any integer type
	if err != nil {
		return fmt.Errorf("%w: the answer to put-token has no status-code", errProtocol)
	}
	if status/100 == 2 {
		return nil
	}
	text, _ := answer.ApplicationProperties["status-description"].(string)
	return &tokenError{status, text}
}

// detach forgets the links. A hub that does not answer is not waited for; what is
// left of them ends with the session.
func (l *tokenLinks) detach() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if l.sender != nil {
		l.sender.Close(ctx)
	}
	if l.receiver != nil {
		l.receiver.Close(ctx)
	}
	l.sender, l.receiver = nil, nil
}

// close waits for the links and the session of a connection that is gone.
func (l *tokenLinks) close(ctx context.Context) {
	l.detach()
	l.session.Close(ctx)
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// A crew is goroutines that somebody waits for. Unlike a sync.WaitGroup it may be
// joined while its end is waited for: then it says no.
type crew struct {
	mu   sync.Mutex // guards shut, and wg's Go against its Wait
	shut bool
	wg   sync.WaitGroup
}

// Go runs f unless the crew was told to leave.
func (c *crew) Go(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.wg.Go(f)
	return true
}

// Wait lets nobody in and returns when the last one is out.
func (c *crew) Wait() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.wg.Wait()
}
