package deviceagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// How long the relay is dialled. The signal says, but by a clock that need not be
// ours; the bounds are a dial on a slow link, and the longest life of a token.
const (
	dialLeast = 15 * time.Second
	dialMost  = 90 * time.Second
	dialPlain = 30 * time.Second // for a signal without an expiry, as websocketbridge's
)

// Between tries to reach the relay, with jitter.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 2 * time.Second
	// lostTries is how often a relay may say that the node which owns the bridge is
	// lost before that is believed: another node, which the next dial may reach, may
	// have a way to it.
	lostTries = 3
)

var errDialExpired = errors.New("the signal expired")

// dialBack dials the accept URL until the relay answers or the signal expires.
func (a *Agent) dialBack(ctx context.Context, s *signaler.Signal, subprotocols ...string) (*ws.Conn, error) {
	life := dialPlain
	if !s.ExpiresAt.IsZero() {
		life = min(max(time.Until(s.ExpiresAt), dialLeast), dialMost)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, life, errDialExpired)
	defer cancel()
	start := time.Now()
	lost := 0
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		c, err := a.cfg.Dialer.DialWebSocket(ctx, s.AcceptURL, traceHeader(s), subprotocols...)
		if err == nil {
			about := []any{"bridge", s.BridgeID, "principal", s.Principal, "target", s.Target, "dialled", time.Since(start).Round(time.Millisecond)}
			if id := wire.TraceID(s.TraceParent); id != "" {
				about = append(about, "trace", id)
			}
			a.log.Info("bridge open", about...)
			return c, nil
		}
		code, err, final := answered(err)
		if code == wire.OwnerLost {
			lost++
			final = lost == lostTries
		}
		if final {
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

// traceHeader puts what is sent to the relay into the trace of which the signal is part.
// The agent itself traces nothing.
func traceHeader(s *signaler.Signal) http.Header {
	if wire.TraceID(s.TraceParent) == "" {
		return nil
	}
	return http.Header{wire.HeaderTraceParent: {s.TraceParent}}
}

// answered says what the relay's answer was, if err is one, and whether it is final: a
// token works once. What a proxy says while the relay behind it is away is none.
func answered(err error) (code wire.Code, why error, final bool) {
	var answer *ws.HandshakeError
	if !errors.As(err, &answer) {
		return "", err, false
	}
	if p, perr := wire.ParseProblem(answer.Body); perr == nil {
		return p.Code, fmt.Errorf("the relay answered %d %s", answer.Status, p.Code), true
	}
	return "", err, answer.Status < 500 && answer.Status != http.StatusTooManyRequests
}

// reject tells the relay no, where the hub does not carry the answer.
func (a *Agent) reject(ctx context.Context, s *signaler.Signal, no *signaler.Refusal) {
	if s.RejectURL == "" || a.checkRelay(s.RejectURL) != nil { // not checked yet if an earlier check refused
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DialTimeout)
	defer cancel()
	status, err := a.postReject(ctx, s, no)
	if err != nil {
		a.log.Warn("reject failed", "bridge", s.BridgeID, "error", err)
	} else if status != http.StatusNoContent && status != http.StatusGone {
		a.log.Warn("reject failed", "bridge", s.BridgeID, "status", status)
	}
}

func (a *Agent) postReject(ctx context.Context, s *signaler.Signal, no *signaler.Refusal) (int, error) {
	body, err := json.Marshal(no)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.RejectURL, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("the reject URL is not a URL") // err quotes it
	}
	if h := traceHeader(s); h != nil {
		req.Header = h
	}
	req.Header.Set("Content-Type", "application/json")
	t := a.cfg.Dialer.Transport()
	t.DisableKeepAlives = true
	client := &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // only listed hosts
	}
	resp, err := client.Do(req)
	if ue := (*url.Error)(nil); errors.As(err, &ue) { // it quotes the URL
		err = ue.Err
	}
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}
