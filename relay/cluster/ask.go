package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// answerTimeout is for a peer to answer a request once it has proven itself; it
	// asks nobody for that.
	answerTimeout = 5 * time.Second
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
	dialCtx, cancel := context.WithTimeoutCause(ctx, n.cfg.DialTimeout, fmt.Errorf("no proof within %v", n.cfg.DialTimeout))
	defer cancel()
	if err := n.check(dialCtx, addr); err != nil {
		return nil, err
	}
	c, proof, err := n.dial(dialCtx, addr)
	if err != nil {
		if dialCtx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(dialCtx), err)
		}
		return nil, fmt.Errorf("node %s: %w", addr, err)
	}
	a, err := n.send(ctx, c, proof, r)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("node %s: %w", addr, err)
	}
	if a.Status != http.StatusSwitchingProtocols {
		c.Close()
	}
	return a, nil
}

// dial returns a connection to a peer that has proven itself, and our proof, which is
// yet to be sent.
func (n *Node) dial(ctx context.Context, addr string) (net.Conn, []byte, error) {
	c, err := n.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	raw := c
	if n.cfg.TLS != nil {
		c = tls.Client(c, n.cfg.TLS)
	}
	proof, err := prove(c, n.cfg.Keys)
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
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
	c.SetDeadline(time.Now().Add(answerTimeout))
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
		return nil, fmt.Errorf("read answer: %w", err)
	}
	a := &Answer{Status: resp.StatusCode, Header: resp.Header, conn: c}
	if a.Status == http.StatusSwitchingProtocols {
		a.head, _ = br.Peek(br.Buffered())
		if !stop() {
			return nil, context.Cause(ctx)
		}
		return a, c.SetDeadline(time.Time{})
	}
	defer resp.Body.Close()
	limited.N = maxAnswer
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return a, nil
}

// Close ends the connection of an upgrade that nobody wants.
func (a *Answer) Close() error { return a.conn.Close() }
