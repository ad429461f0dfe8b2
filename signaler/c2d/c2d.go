package c2d

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// Config of a Signaler. HostName and Credential are needed.
type Config struct {
	HostName   string            // the hub's name, as in a connection string; a port may follow
	Addr       string            // host:port to dial; "": HostName, with 5671 or, over a WebSocket, 443 if it has no port
	Credential credential.Source // asked at each connect and ahead of each expiry

	TLS       *tls.Config // nil: the system's roots; ServerName "": HostName's
	WebSocket bool        // AMQP in a WebSocket on 443, for networks that let nothing else out
	// Proxy says through which proxy to reach the hub: http, https or socks5, with user
	// and password or without. nil: http.ProxyFromEnvironment. Only a WebSocket goes
	// through a proxy; few proxies let 5671 pass.
	Proxy func(*http.Request) (*url.URL, error)

	// Feedback is called for each record that tells what became of a message; one after
	// the other. nil: the hub is asked for none. Records of other relays and of other
	// applications come too, and they may take ours: a hub has one queue of them.
	Feedback func(Feedback)
	Logger   *slog.Logger // nil: silent

	MessageLife    time.Duration // of a signal that has no expiry; 0: 1 min
	ConnectWait    time.Duration // how long a signal waits for a connection at the most; 0: 10 s
	DialTimeout    time.Duration // for a connection to come up; 0: 30 s
	IdleTimeout    time.Duration // a hub that is silent for so long is gone; 0: 1 min. It is told to beat twice as often
	SilenceTimeout time.Duration // while a message waits: a hub that is silent for so long is asked, and for as long again is gone; 0: 3 s
	RetryMin       time.Duration // the first connect that fails is followed by a wait of up to this; 0: 1 s
	RetryMax       time.Duration // and no wait is longer than this; 0: 1 min
}

const (
	// maxSends is how many messages wait for an answer at a time. The hub's link credit
	// is larger; a session's window, too.
	maxSends = 100
	// writeTimeout bounds one write. Frames are small: the peer does not read, or the
	// network is gone.
	writeTimeout = 15 * time.Second
	// lastWord is for go-amqp to tell of an answer that came just before the end.
	lastWord = 100 * time.Millisecond
	// deafAfter is how long messages are sent in vain before the connection is renewed;
	// those count that waited for patience.
	deafAfter = time.Minute
	patience  = 5 * time.Second
	// settled is how long a connection has lived when its loss is not taken for a failed
	// attempt: some hubs let a link attach, and then detach it.
	settled = 10 * time.Second
	// tokenTimeout is for the answer to put-token.
	tokenTimeout = 15 * time.Second
	// tokenRetry is between attempts to renew a token.
	tokenRetry = 5 * time.Second
	// tokenLife is for a token that does not say.
	tokenLife = 30 * time.Minute
	// eager is how often a connection is tried while signals wait for it.
	eager = 2 * time.Second
)

// A Signaler sends signals as cloud-to-device messages over one connection.
type Signaler struct {
	cfg  Config
	log  *slog.Logger
	host string // HostName without a port
	addr string
	tls  *tls.Config
	dial func(ctx context.Context) (conn, raw net.Conn, err error) // dialHub, but in tests

	wake  chan struct{} // a signal waits: try sooner
	renew chan struct{} // the hub refused a message: show it a token
	fresh chan struct{} // Renew was called
	news  reporter

	mu      sync.Mutex // guards what follows
	running bool
	stopped bool
	up      *connection   // nil: down
	since   time.Time     // when up or down began
	err     error         // why it is down, or was last
	hard    bool          // err will not pass by itself
	changed chan struct{} // closed and replaced with every change
}

var _ signaler.Signaler = (*Signaler)(nil)

// New returns a Signaler. It starts nothing; Run does.
func New(cfg Config) (*Signaler, error) {
	s := &Signaler{
		cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), renew: make(chan struct{}, 1), fresh: make(chan struct{}, 1),
		since: time.Now(), changed: make(chan struct{}),
	}
	s.dial = s.dialHub
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("c2d: %w", err)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.news.log = s.log.With("hub", s.host)
	return s, nil
}

// configure checks the Config and fills in what is zero. Every fault is reported.
func (s *Signaler) configure() error {
	c := &s.cfg
	var errs []error
	port := ""
	s.host = c.HostName
	if h, p, err := net.SplitHostPort(c.HostName); err == nil {
		if _, err := strconv.ParseUint(p, 10, 16); err == nil {
			s.host, port = h, p
		}
	}
	if s.host == "" || strings.ContainsAny(s.host, "/?#@:; \t\r\n") {
		errs = append(errs, fmt.Errorf("the HostName %q is not a hub's name like hub.azure-devices.net", c.HostName))
	}
	if port == "" {
		port = map[bool]string{false: "5671", true: "443"}[c.WebSocket]
	}
	s.addr = cmp.Or(c.Addr, net.JoinHostPort(s.host, port))
	if _, _, err := net.SplitHostPort(s.addr); err != nil {
		errs = append(errs, fmt.Errorf("the Addr %q is not a host and a port", c.Addr))
	}
	if c.Credential == nil {
		errs = append(errs, errors.New("the Credential is missing"))
	}
	for name, d := range map[string]*time.Duration{
		"MessageLife": &c.MessageLife, "ConnectWait": &c.ConnectWait, "DialTimeout": &c.DialTimeout, "IdleTimeout": &c.IdleTimeout,
		"SilenceTimeout": &c.SilenceTimeout, "RetryMin": &c.RetryMin, "RetryMax": &c.RetryMax,
	} {
		if *d < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	c.MessageLife = cmp.Or(c.MessageLife, time.Minute)
	c.ConnectWait = cmp.Or(c.ConnectWait, 10*time.Second)
	c.DialTimeout = cmp.Or(c.DialTimeout, 30*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, time.Minute)
	c.SilenceTimeout = cmp.Or(c.SilenceTimeout, 3*time.Second)
	c.RetryMin = cmp.Or(c.RetryMin, time.Second)
	c.RetryMax = max(cmp.Or(c.RetryMax, time.Minute), c.RetryMin)
	if c.Proxy == nil {
		c.Proxy = http.ProxyFromEnvironment
	}
	if s.tls = c.TLS.Clone(); s.tls == nil {
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	s.tls.NextProtos = nil // a shared Config may offer HTTP/2
	if s.tls.ServerName == "" {
		s.tls.ServerName = s.host
	}
	if s.tls.MinVersion == 0 {
		s.tls.MinVersion = tls.VersionTLS12
	}
	return errors.Join(errs...)
}

// Run owns the connection: it connects, renews the token ahead of its expiry, and
// connects again when the connection is lost, for ever. It returns nil when ctx
// ends and nothing runs any more. A Signaler runs once.
func (s *Signaler) Run(ctx context.Context) error {
	s.mu.Lock()
	again := s.running
	s.running = true
	s.mu.Unlock()
	if again {
		return errors.New("c2d: Run was called twice")
	}
	defer s.set(nil, errStop, false)
	for failures := 0; ctx.Err() == nil; {
		c, tok, err := s.open(ctx)
		hard := definite(err)
		if err == nil {
			s.news.up()
			s.set(c, nil, false)
			if err = s.serve(ctx, c, tok); c.good() {
				failures = 0
			} else {
				hard = definite(err)
			}
		}
		if ctx.Err() != nil {
			break
		}
		s.news.down(err)
		s.set(nil, err, hard)
		s.pause(ctx, backoff(failures, s.cfg.RetryMin, s.cfg.RetryMax))
		failures++
	}
	return nil
}

// Renew has the Credential asked for a token at once, and the hub shown it if it is
// another one: its key was replaced, and the hub will soon not know the old one any more.
// The connection stays. Without Renew a new key is noticed when the old token is due to
// be renewed, or when the hub has refused a message.
func (s *Signaler) Renew() {
	select {
	case s.fresh <- struct{}{}:
	default: // it will be asked anyway, and later than now
	}
}

// serve keeps a connection until it is lost, and says why it was.
func (s *Signaler) serve(ctx context.Context, c *connection, tok credential.Token) error {
	defer c.close()
	if s.cfg.Feedback != nil {
		c.crew.Go(func() { s.readFeedback(c) })
	}
	t := time.NewTimer(renewal(tok, time.Now()))
	defer t.Stop()
	select {
	case <-s.renew: // it was about another connection
	default:
	}
	for shown := time.Now(); ; {
		asked := false
		select {
		case <-ctx.Done():
			s.set(nil, errStop, false)
			return nil
		case <-c.lost():
			err := c.shim.reason()
			if h, ok := errors.AsType[*hubError](err); ok {
				return h
			}
			return fmt.Errorf("%w: %w", signaler.ErrUnavailable, err)
		case <-s.renew:
			if time.Since(shown) < tokenRetry {
				continue
			}
			asked = true
		case <-s.fresh:
		case <-t.C:
		}
		t.Reset(s.refresh(ctx, c, &tok, asked))
		shown = time.Now()
	}
}

// refresh shows the hub a new token if there is one, or the old one again if asked,
// and returns when to do so next.
func (s *Signaler) refresh(ctx context.Context, c *connection, tok *credential.Token, asked bool) time.Duration {
	ctx, cancel := context.WithTimeoutCause(ctx, tokenTimeout, fmt.Errorf("no answer within %v", tokenTimeout))
	defer cancel()
	defer context.AfterFunc(c.shim.ctx, cancel)()
	next, err := s.cfg.Credential.Token(ctx)
	if err == nil && next.Text == tok.Text && !asked {
		return renewal(next, time.Now()) // the source has no newer one yet
	}
	if err == nil {
		err = c.put(ctx, next)
	}
	if err == nil {
		*tok = next
		s.news.renewed()
		return renewal(next, time.Now())
	}
	if _, ok := errors.AsType[*amqp.SessionError](err); ok {
		c.drop(err) // only a new connection has a session for tokens
	}
	if c.shim.reason() == nil {
		s.news.notRenewed(err, tok.Expires)
	}
	left := time.Until(tok.Expires)
	return min(tokenRetry, max(left/4, tokenRetry/20))
}

// renewal is how long a token is used: 2/3 of what is left of its life.
func renewal(tok credential.Token, now time.Time) time.Duration {
	if tok.Expires.IsZero() {
		return tokenLife
	}
	return max(tok.Expires.Sub(now)*2/3, tokenRetry/20)
}

// State says whether the hub is connected, since when it is or is not, and why it
// is not, or was not the last time.
func (s *Signaler) State() (up bool, since time.Time, lastErr error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up != nil, s.since, s.err
}

// set says what is true from now on. err nil: the last one stays.
func (s *Signaler) set(c *connection, err error, hard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (c == nil) != (s.up == nil) {
		s.since = time.Now()
	}
	s.up, s.hard = c, hard
	if err == errStop {
		s.stopped = true
	} else if err != nil {
		s.err = err
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// pause waits for d, or less if signals wait.
func (s *Signaler) pause(ctx context.Context, d time.Duration) {
	start := time.Now()
	t := time.NewTimer(d)
	defer t.Stop()
	for wake := s.wake; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-wake:
			sooner := min(eager, s.cfg.RetryMax)
			t.Reset(min(d, sooner/2+rand.N(sooner/2+1)) - time.Since(start))
			wake = nil
		}
	}
}

// backoff grows twofold from least, with full jitter: many relays must not come
// back in one moment.
func backoff(failures int, least, most time.Duration) time.Duration {
	d := least
	for range failures {
		if d >= most {
			break
		}
		d *= 2
	}
	return rand.N(min(d, most)) + time.Millisecond
}
