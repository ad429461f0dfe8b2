package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// Config is how to reach a relay.
type Config struct {
	// URL of the relay: wss://relay.example.com, perhaps with a path in front of
	// /bridge. ws:// sends the API key in clear and is refused unless the host is
	// loopback or AllowPlain is set. https and http read as wss and ws.
	URL    string
	APIKey string      // sent as X-Api-Key; empty: none
	Header http.Header // sent as well
	// Credentials, if not nil, is asked at each dial for headers to send as well: a
	// Link dials for days, and a token lasts for an hour. ctx bounds the dial. An error
	// ends the dial as a *CredentialsError.
	Credentials func(ctx context.Context) (http.Header, error)

	AllowPlain bool
	Dialer     ws.Dialer
	Session    session.Config // MaxStreams 0: the device may open none; our agent never does
}

// A Request is what a bridge is wanted for.
type Request struct {
	Device string
	// Targets the bridge may be used for. The relay checks that the principal may
	// reach them, the device serves no others on this bridge. Empty: its target
	// "default".
	Targets []string
	Data    string // opaque, handed to the device
}

// ErrNoSession: the device's agent speaks no version of the session protocol
// that this library does.
var ErrNoSession = errors.New("the device speaks no session protocol that this client knows")

// A Session is many streams on one bridge to a device.
type Session struct {
	*session.Session
	BridgeID string // for finding this bridge in the logs of the relay and the device

	conn     *ws.Conn
	draining chan struct{} // closed when the node has said that it drains
	done     chan struct{} // closed when Run has returned

	// For a Link.
	left  chan struct{} // closed when it lends the session out no more
	users int           // Opens and Forwards that it has made, and that have not ended; guarded by the Link's mu
}

// Dial opens a bridge and a session on it. ctx bounds the dialling only.
func Dial(ctx context.Context, cfg Config, req Request) (*Session, error) {
	if err := cfg.Session.Validate(); err != nil { // before a device is asked
		return nil, badRequest("%w", err)
	}
	cfg.Session.MaxStreams = cmp.Or(cfg.Session.MaxStreams, -1)
	s := &Session{draining: make(chan struct{}), done: make(chan struct{}), left: make(chan struct{})}
	cfg.Dialer.Config.OnPing = s.onPing(cfg.Dialer.Config.OnPing)
	c, err := dial(ctx, cfg, req, wire.SessionV1)
	if err != nil {
		return nil, err
	}
	if c.Subprotocol() != wire.SessionV1 {
		c.CloseWith(wire.ClosePolicy, "no_session")
		return nil, fmt.Errorf("device %q: %w", req.Device, ErrNoSession)
	}
	inner, err := session.New(c, session.Requester, cfg.Session)
	if err != nil {
		c.CloseNow()
		return nil, err
	}
	s.Session, s.BridgeID, s.conn = inner, c.Header().Get(wire.HeaderBridgeID), c
	go func() {
		defer close(s.done)
		inner.Run(context.Background()) // until Close; Err has what it returns
	}()
	return s, nil
}

// onPing hears what the node says in a ping, and hands pings on to next, if not nil.
func (s *Session) onPing(next func([]byte)) func([]byte) {
	drains := sync.OnceFunc(func() { close(s.draining) })
	return func(payload []byte) {
		if string(payload) == wire.PingDraining {
			drains()
		}
		if next != nil {
			next(payload)
		}
	}
}

// Draining is closed when the relay's node has said that it drains: it takes no new
// bridges, and ends this one at its deadline, minutes later. Who wants no
// interruption dials another session now, which another node will take, opens new
// streams there, and closes this one when its streams have ended, so that the node
// need not wait for it. A Link does that by itself. Not every relay says it.
func (s *Session) Draining() <-chan struct{} { return s.draining }

// Close ends the session, its streams and the bridge, and waits for all of them.
func (s *Session) Close() error {
	if errors.Is(s.Err(), session.ErrDead) {
		s.conn.CloseNow() // after a silence like that no goodbye would be answered
	}
	s.Session.Close()
	<-s.done
	return nil
}

// Why says why the session ended, as an *Error where the relay gave a reason.
// It is nil while the session lives.
func (s *Session) Why() error { return fromClose(s.Err()) }

// DialRaw opens a raw bridge. A device serves at most one target on it. Whoever wants
// to know when the node drains looks for wire.PingDraining in pings: ws.Config.OnPing.
func DialRaw(ctx context.Context, cfg Config, req Request) (*ws.Conn, error) {
	return dial(ctx, cfg, req)
}

// Explain turns an error of a raw bridge into an *Error where the relay or the
// device gave a reason in its close frame.
func Explain(err error) error { return fromClose(err) }

func dial(ctx context.Context, cfg Config, req Request, subprotocols ...string) (*ws.Conn, error) {
	u, err := requestURL(cfg, req, wire.PathConnect)
	if err != nil {
		return nil, err
	}
	h, err := header(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c, err := cfg.Dialer.DialWebSocket(ctx, u.String(), h, subprotocols...)
	if err != nil {
		return nil, fromHandshake(err)
	}
	return c, nil
}

// requestURL is where to ask for req: a path that takes the parameters of connect.
func requestURL(cfg Config, req Request, path string) (*url.URL, error) {
	u, err := ParseURL(cfg.URL, cfg.AllowPlain)
	if err != nil {
		return nil, badRequest("%w", err)
	}
	if err := wire.CheckDeviceID(req.Device); err != nil {
		return nil, badRequest("device ID %q %w", req.Device, err)
	}
	for _, name := range req.Targets {
		if err := wire.CheckTarget(name); err != nil { // a comma would make two of it
			return nil, badRequest("target %q %w", name, err)
		}
	}
	target := wire.JoinTargets(req.Targets)
	if _, err := wire.SplitTargets(target); err != nil {
		return nil, badRequest("target %w", err)
	}
	if err := wire.CheckRequestData(req.Data); err != nil {
		return nil, badRequest("request data %w", err)
	}
	q := url.Values{wire.ParamDeviceID: {req.Device}}
	if target != "" {
		q.Set(wire.ParamTarget, target)
	}
	if req.Data != "" {
		q.Set(wire.ParamRequestData, req.Data)
	}
	u = u.JoinPath(path)
	u.RawQuery = q.Encode()
	return u, nil
}

// ParseURL reads a relay's address. Its errors keep to themselves what may be a
// secret: a user, a query.
func ParseURL(s string, allowPlain bool) (*url.URL, error) {
	fault := func(format string, args ...any) (*url.URL, error) {
		return nil, fmt.Errorf("relay address %q "+format, append([]any{shown(s)}, args...)...)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return fault("is not a URL; write it as wss://relay.example.com")
	}
	u.Scheme = cmp.Or(map[string]string{"https": "wss", "http": "ws"}[u.Scheme], u.Scheme)
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return fault("does not start with wss://")
	case u.Hostname() == "":
		return fault("has no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("relay address has a user, a query or a fragment; only scheme, host and path belong there")
	case u.Scheme == "ws" && !allowPlain && !ws.IsLoopback(u.Hostname()):
		return fault("would send credentials in clear; use wss://, or allow plain ws:// if you mean it")
	}
	return u, nil
}

// shown is s, or only how it begins if there is more to it than an address.
func shown(s string) string {
	if !strings.ContainsAny(s, "@?#") {
		return s
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok && !strings.ContainsAny(scheme, "@?#") {
		return scheme + "://…"
	}
	return "…"
}
