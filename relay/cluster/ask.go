package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"
)

const (
	// answerTimeout is for a peer to answer a request once it has proven itself; it
	// asks nobody for that.
	answerTimeout = 5 * time.Second
	// longTimeout is for one that has to ask a hub and a device first: 60 s for the device
	// at most, and 30 s for the hub.
	longTimeout = 90 * time.Second
	// maxAnswer is in bytes, of an answer's head and of its body: a list of ten thousand
	// bridges has four megabytes.
	maxAnswerHead = 64 << 10
	maxAnswer     = 16 << 20
)

// HeaderNode names the asking node's address in each request on a node port.
const HeaderNode = "Bridge-Node"

// An Answer is what a peer said. If its Status is 101 the connection is open, and Join
// or Close has to end it; otherwise Body is all of it, and the connection is closed.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	conn net.Conn
	head []byte // read behind the 101
}

// Ask sends a request to the node port at addr and returns its answer. Nothing is
// dialled, and the error is ErrNotPeer, if addr is no peer's. The request's header and
// body are sent as they are; what is left of its URL are path and query.
func (n *Node) Ask(ctx context.Context, addr string, r *http.Request) (*Answer, error) {
	return n.ask(ctx, addr, r, answerTimeout)
}

// AskLong is Ask for a question that a peer answers only when it has asked others, within
// 90 s.
func (n *Node) AskLong(ctx context.Context, addr string, r *http.Request) (*Answer, error) {
	return n.ask(ctx, addr, r, longTimeout)
}

func (n *Node) ask(ctx context.Context, addr string, r *http.Request, patience time.Duration) (*Answer, error) {
	dialCtx, cancel := context.WithTimeoutCause(ctx, n.cfg.DialTimeout, fmt.Errorf("no proof within %v", n.cfg.DialTimeout))
	defer cancel()
	if err := n.check(dialCtx, addr); err != nil {
		return nil, err
	}
	c, proof, err := n.dial(dialCtx, addr)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", addr, because(dialCtx, err))
	}
	sendCtx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	a, err := n.send(sendCtx, c, proof, r)
	if err != nil {
		below(c).Close()
		return nil, fmt.Errorf("node %s: %w", addr, because(sendCtx, err))
	}
	if a.Status != http.StatusSwitchingProtocols {
		below(c).Close()
	}
	return a, nil
}

// because puts in front of err why ctx has ended, if it has.
func because(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// dial returns a connection to a peer that has proven itself, and our proof, which is
// yet to be sent.
func (n *Node) dial(ctx context.Context, addr string) (net.Conn, []byte, error) {
	raw, err := n.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	c := raw
	if n.cfg.TLS != nil {
		c = tls.Client(raw, n.cfg.TLS)
	}
	proof, err := prove(c, n.cfg.Keys, nonce())
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	return c, proof, nil
}

func (n *Node) send(ctx context.Context, c net.Conn, proof []byte, r *http.Request) (*Answer, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r = r.Clone(ctx)
	r.URL.Scheme, r.URL.Host = "http", n.cfg.Address
	r.Header.Set(HeaderNode, n.cfg.Address)
	out := bytes.NewBuffer(proof)
	if err := r.Write(out); err != nil {
		return nil, fmt.Errorf("write request: %w", err)
	}
	if _, err := c.Write(out.Bytes()); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: c, N: maxAnswerHead}
	br := bufio.NewReader(limited)
	resp, err := http.ReadResponse(br, r)
	if err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("its head has more than %d bytes", maxAnswerHead)
		}
		return nil, fmt.Errorf("read answer: %w", err)
	}
	a := &Answer{Status: resp.StatusCode, Header: resp.Header, conn: c}
	switch {
	case a.Status == http.StatusSwitchingProtocols && r.Header.Get("Upgrade") != "":
		a.head, _ = br.Peek(br.Buffered())
		if !stop() {
			return nil, context.Cause(ctx)
		}
		return a, nil
	case a.Status < http.StatusOK:
		return nil, fmt.Errorf("it answered %d, which nobody asked for", a.Status)
	}
	limited.N = math.MaxInt64
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(a.Body) > maxAnswer {
		err = fmt.Errorf("it has more than %d bytes", maxAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return a, nil
}

// Close ends the connection of an upgrade that nobody wants.
func (a *Answer) Close() error { return below(a.conn).Close() }

// below is the connection that carries c's TLS. Closing it says no goodbye, for which
// tls.Conn waits up to 5 s if the other end does not read.
func below(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}
