package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler"
)

var (
	errConnectTimeout = errors.New("no answer of the hub")
	errDeaf           = errors.New("the hub did not take the subscription")
	errRefused        = errors.New("the hub refuses this identity")
)

const (
	// enqueueTimeout is for paho to take a packet from us. If its connection has just
	// ended, it takes none and says so only after this.
	enqueueTimeout = 5 * time.Second
	// drainTimeout bounds each step of a planned reconnect.
	drainTimeout = 5 * time.Second
	// goodbyeTimeout is for paho to write DISCONNECT and end its goroutines.
	goodbyeTimeout = time.Second
)

// A link is one connection to the hub, from its dial to its end. It is never used
// again: paho's own ways to reconnect are off.
type link struct {
	s      *Source
	wire   *wire
	client mqtt.Client
	lost   chan error // gets why paho gave up; all its workers have ended then
	inbox  inbox
}

// session is one link's life. It returns when the link and all that belongs to it
// have ended.
func (s *Source) session(ctx context.Context, h signaler.Handler, keepAlive time.Duration, up func()) ending {
	l := &link{s: s, lost: make(chan error, 1)}
	l.inbox.init(l)
	expires, e := l.connect(ctx, keepAlive)
	if e != nil {
		return *e
	}
	l.inbox.start(ctx, h)
	defer l.inbox.stop()
	defer l.close()
	if err := l.subscribe(ctx); err != nil {
		return ending{stage: subscribing, err: err}
	}
	since := time.Now()
	up()
	err := l.listen(ctx, expires)
	return ending{
		stage: listening, err: err, lived: time.Since(since),
		byPeer: err != nil && closedByPeer(l.wire.ended(), s.cfg.WebSocket),
	}
}

// connect dials, and says who we are. It returns when the token expires, or how it
// ended.
func (l *link) connect(ctx context.Context, keepAlive time.Duration) (expires time.Time, e *ending) {
	s := l.s
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.ConnectTimeout, fmt.Errorf("%w within %v", errConnectTimeout, s.cfg.ConnectTimeout))
	defer cancel()
	now := time.Now()
	password, expires, err := s.cfg.password(ctx, now)
	switch {
	case err != nil:
		return expires, &ending{err: fmt.Errorf("make a token: %w", err)}
	case !expires.IsZero() && !expires.After(now):
		return expires, &ending{err: errors.New("make a token: it has expired already")}
	}
	if l.wire, err = s.dial(ctx, func() { l.inbox.count(1) }); err != nil {
		return expires, &ending{stage: dialling, err: err}
	}
	o := s.options(keepAlive)
	o.Password = password
	o.CustomOpenConnectionFn = func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return l.wire, nil }
	o.OnConnectionLost = func(_ mqtt.Client, err error) { l.lost <- err }
	o.DefaultPublishHandler = l.inbox.receive
	l.client = mqtt.NewClient(o)
	// paho heeds no context here. Without its connection it gives up, rather than
	// connect some day as a client nobody knows of.
	stop := context.AfterFunc(ctx, l.wire.hangUp)
	token := l.client.Connect()
	<-token.Done()
	if err := token.Error(); err != nil {
		stop()
		l.wire.hangUp()
		return expires, l.notWelcome(ctx, token.(*mqtt.ConnectToken).ReturnCode(), err)
	}
	if !stop() {
		l.close()
		return expires, &ending{stage: connecting, err: context.Cause(ctx)}
	}
	return expires, nil
}

// notWelcome says why CONNECT failed.
func (l *link) notWelcome(ctx context.Context, code byte, err error) *ending {
	switch {
	case code == packets.ErrRefusedNotAuthorised || code == packets.ErrRefusedBadUsernameOrPassword:
		return &ending{stage: connecting, err: fmt.Errorf("%w (CONNACK %d)", errRefused, code), refused: true}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case l.wire.ended() != nil:
		err = fmt.Errorf("the hub ended the connection instead of answering: %w", l.wire.ended())
	}
	if expired := l.s.cfg.checkCertificate(time.Now()); expired != nil {
		return &ending{stage: connecting, err: expired, refused: true}
	}
	return &ending{stage: connecting, err: err}
}

// options are paho's, for a connection that this package makes and ends itself.
func (s *Source) options(keepAlive time.Duration) *mqtt.ClientOptions {
	o := mqtt.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tls", Host: s.cfg.Addr}} // one, so that paho tries once
	o.ClientID, o.Username = s.cfg.clientID(), s.cfg.username()
	o.SetProtocolVersion(4) // else paho tries again with MQTT 3.1 when a hub refuses
	o.SetCleanSession(true)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetConnectTimeout(s.cfg.ConnectTimeout)
	o.SetWriteTimeout(enqueueTimeout)
	o.SetAutoAckDisabled(true)
	o.SetOrderMatters(true) // receive never blocks; otherwise each packet would have a goroutine
	ping, pong := pings(keepAlive)
	o.SetKeepAlive(ping)
	o.SetPingTimeout(pong)
	return o
}

// pings turns the time in which a connection may be silent into paho's terms. paho
// looks whether a ping is due, or its answer overdue, every 5 s, or with a ping of
// at most 10 s every quarter of it. So a ping may come that much later, a dead
// connection is found at most 10 s after keepAlive, and the hub, which waits 1.5
// times as long as it was told, always has 2.5 s to spare, or a quarter of a
// shorter ping.
func pings(keepAlive time.Duration) (ping, pong time.Duration) {
	if keepAlive >= 20*time.Second {
		return keepAlive - 5*time.Second, 9 * time.Second
	}
	return min(keepAlive, 10*time.Second), 4 * time.Second
}

// subscribe asks for the signals, and wants the hub's word for it.
func (l *link) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.s.cfg.SubscribeTimeout, fmt.Errorf("%w: no SUBACK within %v", errDeaf, l.s.cfg.SubscribeTimeout))
	defer cancel()
	filters := l.s.cfg.filters()
	tokens := make([]mqtt.Token, len(filters))
	for i, f := range filters {
		// No handler of its own: what comes that nobody asked for is acknowledged, too.
		tokens[i] = l.client.Subscribe(f.topic, f.qos, nil)
	}
	for i, f := range filters {
		if err := l.await(ctx, tokens[i]); err != nil {
			return fmt.Errorf("subscribe to %s: %w", kind(f.topic), err)
		}
		if qos := tokens[i].(*mqtt.SubscribeToken).Result()[f.topic]; qos > 2 {
			return fmt.Errorf("subscribe to %s: %w: SUBACK 0x%02x", kind(f.topic), errDeaf, qos)
		}
	}
	return nil
}

func kind(filter string) string {
	if filter == methodFilter {
		return "direct methods"
	}
	return "cloud-to-device messages"
}

// await waits for a packet's answer.
func (l *link) await(ctx context.Context, token mqtt.Token) error {
	select {
	case <-token.Done():
		err := token.Error()
		if err == nil {
			return nil
		}
		// If the connection is lost paho says why right after it has ended its tokens.
		select {
		case lost := <-l.lost:
			err = lost
			l.lost <- lost
		case <-time.After(goodbyeTimeout):
		}
		return l.why(err)
	case err := <-l.lost:
		l.lost <- err // for whoever asks next
		return l.why(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// why prefers what the connection saw to what paho made of it.
func (l *link) why(err error) error {
	if seen := l.wire.ended(); seen != nil && !errors.Is(seen, net.ErrClosed) {
		err = seen
	}
	switch {
	case closedByPeer(err, l.s.cfg.WebSocket):
		return errors.New("the hub closed the connection")
	case err.Error() == pahoNoPong:
		return errors.New("the hub answers no ping: the connection is dead")
	}
	return err
}

// pahoNoPong is all that paho says of a dead connection.
const pahoNoPong = "pingresp not received, disconnecting"

// listen waits for the end of the connection. It returns nil if that was planned.
func (l *link) listen(ctx context.Context, expires time.Time) error {
	var renew <-chan time.Time
	if !expires.IsZero() {
		t := time.NewTimer(renewIn(time.Until(expires)))
		defer t.Stop()
		renew = t.C
	}
	select {
	case err := <-l.lost:
		return l.why(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-renew:
		return l.drain(ctx)
	}
}

// renewIn is before 2/3 of a token's life, spread over a tenth of it: the devices
// of a site that came up together need not come back together.
func renewIn(life time.Duration) time.Duration {
	return life*2/3 - rand.N(life/10+1)
}

// drain ends the connection so that nothing is lost: once the hub has taken the
// subscriptions back, it tells the callers of methods at once, and keeps messages
// for the next connection. What it has sent before is handled and answered.
func (l *link) drain(ctx context.Context) error {
	l.s.log.Debug("reconnecting with a new token")
	bounded, cancel := context.WithTimeoutCause(ctx, drainTimeout, nil)
	defer cancel()
	var tokens []mqtt.Token
	for _, f := range l.s.cfg.filters() {
		tokens = append(tokens, l.client.Unsubscribe(f.topic))
	}
	for _, token := range tokens {
		if err := l.await(bounded, token); err != nil {
			return l.late(ctx, err)
		}
	}
	select {
	case err := <-l.lost:
		return l.why(err)
	case <-l.inbox.idle():
		return nil
	case <-bounded.Done():
		return l.late(ctx, bounded.Err())
	}
}

// late is nil if a step of drain took too long: the token does not wait.
func (l *link) late(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// close ends the connection, politely if it lives, and paho's goroutines.
func (l *link) close() {
	l.client.Disconnect(uint(goodbyeTimeout / time.Millisecond))
	l.wire.hangUp()
	// Nothing can hold paho up any more. This waits for what the first call, whose
	// time was limited, has left; it returns at once if that was nothing.
	l.client.Disconnect(uint(writeTimeout / time.Millisecond))
}
