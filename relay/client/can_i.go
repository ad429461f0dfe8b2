package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// canITimeout is for the whole of a question that the relay answers from memory.
const canITimeout = 30 * time.Second

// CanI asks the relay whether it would let a request through, and why. It asks neither the
// device nor the hub, so yes does not mean that the device is there. A no is no error.
func CanI(ctx context.Context, cfg Config, req Request) (wire.Permission, error) {
	u, err := requestURL(cfg, req, wire.PathCanI)
	if err != nil {
		return wire.Permission{}, err
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	ctx, cancel := context.WithTimeout(ctx, canITimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return wire.Permission{}, badRequest("%w", err)
	}
	if r.Header, err = header(ctx, cfg); err != nil {
		return wire.Permission{}, err
	}
	t := cfg.Dialer.Transport()
	t.DisableKeepAlives = true
	c := http.Client{
		Transport: t,
		// A key is for the relay that was named, and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(r)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the URL
		}
		return wire.Permission{}, &UnreachableError{fmt.Errorf("dial %s: %w", u.Host, err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxProblem+1))
	if err != nil {
		return wire.Permission{}, &UnreachableError{fmt.Errorf("read the answer of %s: %w", u.Host, err)}
	}
	if resp.StatusCode != http.StatusOK {
		return wire.Permission{}, fromHandshake(&ws.HandshakeError{Status: resp.StatusCode, Header: resp.Header, Body: body})
	}
	p, err := wire.ParsePermission(body)
	if err != nil {
		return p, &Error{
			Code: wire.BadRequest, Status: resp.StatusCode, NoRelay: true,
			Detail: "the relay's address answered 200, but not as a relay does", Hint: "is this a relay? a proxy in front of it may have answered instead",
		}
	}
	return p, nil
}

// header says who asks.
func header(ctx context.Context, cfg Config) (http.Header, error) {
	h := cfg.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	if cfg.APIKey != "" {
		h.Set(wire.HeaderAPIKey, cfg.APIKey)
	}
	if cfg.Credentials != nil {
		more, err := cfg.Credentials(ctx)
		if err != nil {
			return nil, &CredentialsError{err}
		}
		maps.Copy(h, more)
	}
	return h, nil
}
