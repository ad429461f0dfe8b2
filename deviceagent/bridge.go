package deviceagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
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
	var err error
	if wantsSession(s) {
		err = a.serveSession(ctx, s, targets)
	} else {
		err = a.serveRaw(ctx, s, targets)
	}
	log.Info("bridge closed", "duration", time.Since(start).Round(time.Millisecond), "reason", reason(ctx, err))
}

// reason is what the log says of an end. Errors of package ws never hold the
// accept URL.
func reason(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return "the agent stops"
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, session.ErrClosed):
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

func (a *Agent) serveRaw(ctx context.Context, s *signaler.Signal, names []string) error {
	target, no := a.rawTarget(names)
	if no != nil {
		return errors.New(no.Message)
	}
	local, err := a.dialTarget(ctx, target)
	if err != nil {
		a.reject(ctx, s, refuse("dial_failed", "%v", err))
		return err
	}
	defer local.Close()
	c, err := a.dialBack(ctx, s)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		c.CloseWith(wire.CloseGoingAway, "stopping")
		local.Close()
	})()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(c, onlyReader{local})
		if err != nil && !errors.Is(err, net.ErrClosed) {
			c.CloseWith(wire.CloseInternal, "the target's connection failed")
			return
		}
		c.Close()
	})
	_, err = io.Copy(onlyWriter{local}, c)
	local.Close()
	c.Close()
	wg.Wait()
	return err
}

// onlyReader and onlyWriter keep io.Copy from methods that would read a pipe's
// end by itself.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func (a *Agent) serveSession(ctx context.Context, s *signaler.Signal, allowed []string) error {
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
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			in, err := sess.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { a.serveStream(ctx, in, allowed, s) })
		}
	})
	return sess.Run(ctx)
}

// serveStream connects one stream to the target it names.
func (a *Agent) serveStream(ctx context.Context, in *session.Incoming, allowed []string, s *signaler.Signal) {
	name := in.Target()
	log := a.log.With("bridge", s.BridgeID, "target", name)
	target, ok := a.cfg.Targets.Find(name)
	no := notAllowed(name)
	switch {
	case !ok:
	case !slices.Contains(named(allowed), name):
		no = refuse("target_not_allowed", "this bridge was opened for %s, not for %q", wire.JoinTargets(named(allowed)), name)
	default:
		local, err := a.dialTarget(ctx, target)
		if err == nil {
			st, err := in.Accept()
			if err != nil {
				local.Close()
				return
			}
			log.Debug("stream open")
			join(ctx, st, local)
			log.Debug("stream closed")
			return
		}
		no = refuse("dial_failed", "%v", err)
	}
	log.Info("stream refused", "reason", no.Code, "text", no.Message)
	in.Refuse(no.Code, no.Message)
}

// A halfCloser can end what it sends and still receive.
type halfCloser interface{ CloseWrite() error }

// join copies both ways until both have ended. The end of one direction is
// passed on alone: a peer that has finished asking still gets its answer.
func join(ctx context.Context, st *session.Stream, local net.Conn) {
	defer local.Close()
	defer st.Close()
	defer context.AfterFunc(ctx, func() { local.Close(); st.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(st, local); err != nil {
			st.Reset("target_failed", "the target's connection failed")
			return
		}
		st.CloseWrite()
	})
	if _, err := io.Copy(local, st); err != nil {
		local.Close() // nobody is left to read the target's answer
	} else if h, ok := local.(halfCloser); ok {
		h.CloseWrite()
	}
	wg.Wait()
}

func (a *Agent) dialTarget(ctx context.Context, t Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DialTimeout)
	defer cancel()
	return t.Dial(ctx)
}

// Between tries to reach the relay.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 2 * time.Second
)

// dialBack dials the accept URL until the relay answers or the signal expires.
func (a *Agent) dialBack(ctx context.Context, s *signaler.Signal, subprotocols ...string) (*ws.Conn, error) {
	until := s.ExpiresAt
	if until.IsZero() {
		until = time.Now().Add(30 * time.Second)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, errors.New("the signal expired"))
	defer cancel()
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		c, err := a.cfg.Dialer.DialWebSocket(ctx, s.AcceptURL, nil, subprotocols...)
		if err == nil {
			return c, nil
		}
		var answer *ws.HandshakeError
		if errors.As(err, &answer) {
			if p, perr := wire.ParseProblem(answer.Body); perr == nil {
				return nil, fmt.Errorf("the relay answered %d %s", p.Status, p.Code)
			}
			return nil, err
		}
		a.log.Warn("dial back failed", "bridge", s.BridgeID, "error", err)
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

// reject tells the relay no, where the hub does not carry the answer.
func (a *Agent) reject(ctx context.Context, s *signaler.Signal, no *signaler.Refusal) {
	if s.RejectURL == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DialTimeout)
	defer cancel()
	body, err := json.Marshal(no)
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.RejectURL, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{
		Transport:     a.cfg.Dialer.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // only listed hosts
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		var ue interface{ Unwrap() error } // the outer error quotes the URL
		if errors.As(err, &ue) {
			err = ue.Unwrap()
		}
		a.log.Warn("reject failed", "bridge", s.BridgeID, "error", err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusGone {
		a.log.Warn("reject failed", "bridge", s.BridgeID, "status", resp.StatusCode)
	}
}
