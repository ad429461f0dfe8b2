package deviceagent

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// serve follows one accepted signal to the end of its bridge.
func (a *Agent) serve(ctx context.Context, s *signaler.Signal) {
	log := a.log.With("bridge", s.BridgeID, "principal", s.Principal, "target", s.Target)
	targets, _ := wire.SplitTargets(s.Target) // check has been here
	start := time.Now()
	b := a.follow(s)
	var err error
	if b.session {
		err = a.serveSession(ctx, s, b, targets)
	} else {
		err = a.serveRaw(ctx, s, b, targets)
	}
	why := reason(ctx, err)
	a.unfollow(b, why)
	log.Info("bridge closed", "duration", time.Since(start).Round(time.Millisecond), "reason", why)
}

// reason is what the log says of an end. Errors of package ws never hold the
// accept URL.
func reason(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return stopped(ctx).Message
	case err == nil:
		return "done"
	}
	return err.Error()
}

// rawTarget is the one target of a raw bridge.
func (a *Agent) rawTarget(targets []string) (Target, *signaler.Refusal) {
	if len(targets) > 1 {
		return nil, refuse("target_required", "a raw bridge has one target, not %d", len(targets))
	}
	name := named(targets)[0]
	if t, ok := a.cfg.Targets.Find(name); ok {
		return t, nil
	}
	return nil, a.missing(targets, name)
}

// serveRaw connects the one target first: a target that is down is still a refusal.
func (a *Agent) serveRaw(ctx context.Context, s *signaler.Signal, b *following, names []string) error {
	target, no := a.rawTarget(names)
	if no != nil {
		return errors.New(no.Message)
	}
	conn, err := a.dialTarget(ctx, target, b)
	if err != nil {
		a.reject(ctx, s, refuse("dial_failed", "%v", err))
		return err
	}
	local := session.NewLocal(conn)
	defer local.Close()
	c, err := a.dialBack(ctx, s)
	if err != nil {
		local.Reset()
		return err
	}
	a.opened(b)
	r := &raw{c, local}
	return r.run(ctx)
}

// raw is a bridge without a protocol of ours: its WebSocket is one flow of bytes
// each way, and the end of one direction is the end of both.
type raw struct {
	c     *ws.Conn
	local *session.Local
}

// What the other end reads of the target and of the session.
const (
	targetFailedCode = "target_failed"
	targetFailed     = "the target's connection failed"
)

// targetLinger is how long a target may take to end by itself after its requester
// has closed the bridge: to close over bytes that nobody reads could destroy what
// it has not read yet.
const targetLinger = 5 * time.Second

// goodbyeTimeout is how long a target outlives the end of ctx so that the requester
// hears first why its bridge ends.
const goodbyeTimeout = 250 * time.Millisecond

func (r *raw) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		defer time.AfterFunc(goodbyeTimeout, r.local.Reset).Stop()
		r.c.CloseWith(wire.CloseGoingAway, wire.Reason{Code: wire.PeerLost, Text: stopped(ctx).Message}.String())
		r.local.Reset()
	})()
	var wg sync.WaitGroup
	wg.Go(r.fromTarget)
	over := make(chan struct{})
	wg.Go(func() { r.watch(over) })
	err := r.toTarget()
	close(over)
	if err == nil && ctx.Err() == nil {
		r.local.CloseWrite()
		defer time.AfterFunc(targetLinger, func() { r.local.Close() }).Stop()
	} else {
		r.local.Reset() // the target must not take a cut for an end
	}
	r.c.Close()
	wg.Wait()
	if failed := r.local.ReadErr(); err == nil && failed != nil && !errors.Is(failed, net.ErrClosed) {
		return failed
	}
	return err
}

// stuckTimeout is how long a target may take to read what it has been sent before
// the bridge was lost. One that never reads must not hold a bridge for ever.
const stuckTimeout = time.Minute

// watch ends a target that takes nothing: while a write to it waits, nobody reads
// the WebSocket and sees that it has ended.
func (r *raw) watch(over <-chan struct{}) {
	select {
	case <-r.c.Broken():
	case <-over:
		return
	}
	t := time.NewTimer(stuckTimeout)
	defer t.Stop()
	select {
	case <-t.C:
		r.local.Reset()
	case <-over:
	}
}

// fromTarget copies what the target says, and passes its end on.
func (r *raw) fromTarget() {
	_, err := io.Copy(r.c, r.local)
	switch {
	case err == nil:
		r.c.Close()
	case r.local.ReadErr() != nil:
		r.c.CloseWith(wire.CloseInternal, targetFailed)
	default: // the bridge is over, and nobody hears the target any more
		io.Copy(io.Discard, r.local)
	}
}

// toTarget copies what the requester says until the bridge is over. It returns nil
// if one of the ends closed it, and else why it was lost.
func (r *raw) toTarget() error {
	_, err := io.Copy(r.local, r.c)
	if r.local.WriteErr() != nil { // it takes no more, but may still have an answer to give
		_, err = io.Copy(io.Discard, r.c)
	}
	if errors.Is(err, net.ErrClosed) { // by fromTarget
		return nil
	}
	return err
}

func (a *Agent) serveSession(ctx context.Context, s *signaler.Signal, b *following, allowed []string) error {
	c, err := a.dialBack(ctx, s, wire.SessionV1)
	if err != nil {
		return err
	}
	if c.Subprotocol() != wire.SessionV1 {
		c.CloseWith(wire.ClosePolicy, "the relay took the subprotocol out of the way")
		return errors.New("the relay did not agree on the session protocol")
	}
	sess, err := session.New(c, session.Device, a.cfg.Session)
	if err != nil {
		c.CloseNow()
		return err
	}
	a.opened(b)
	var streams sync.WaitGroup
	defer streams.Wait()
	live, cancel := context.WithCancel(ctx) // a session that is over dials no targets
	defer cancel()
	streams.Go(func() {
		for {
			in, err := sess.Accept(live)
			if err != nil {
				return
			}
			streams.Go(func() { a.serveStream(live, in, allowed, b) })
		}
	})
	streams.Go(func() {
		<-sess.Done()
		if errors.Is(sess.Err(), session.ErrDead) {
			c.CloseNow() // after a silence like that no goodbye would be answered
		}
	})
	return sess.Run(ctx)
}

// serveStream connects one stream to the target it names.
func (a *Agent) serveStream(ctx context.Context, in *session.Incoming, allowed []string, b *following) {
	name := in.Target()
	log := a.log.With("bridge", b.id, "target", name)
	var conn net.Conn
	var no *signaler.Refusal
	dialed := make(chan struct{})
	go func() { // whose stack goes with it: a dial needs a larger one than a stream that is open
		defer close(dialed)
		conn, no = a.dialStream(ctx, name, named(allowed), b)
	}()
	<-dialed
	if no != nil {
		a.countStreamRefused(no.Code)
		log.Info("stream refused", "reason", no.Code, "text", no.Message)
		in.Refuse(no.Code, no.Message)
		return
	}
	defer conn.Close()
	st, err := in.Accept()
	if err != nil {
		return // its opener has given up
	}
	log.Debug("stream open")
	err = st.Splice(conn, targetFailedCode, targetFailed)
	log.Debug("stream closed", "error", err)
}

func (a *Agent) dialStream(ctx context.Context, name string, allowed []string, b *following) (net.Conn, *signaler.Refusal) {
	target, ok := a.cfg.Targets.Find(name)
	switch {
	case !ok:
		return nil, notAllowed(name)
	case !slices.Contains(allowed, name):
		return nil, refuse("target_not_allowed", "this bridge was opened for %s, not for %q", wire.JoinTargets(allowed), name)
	}
	conn, err := a.dialTarget(ctx, target, b)
	if err != nil {
		return nil, refuse("dial_failed", "%v", err)
	}
	return conn, nil
}

func (a *Agent) dialTarget(ctx context.Context, t Target, b *following) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DialTimeout)
	defer cancel()
	c, err := t.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return a.count(c, b), nil
}
