package fake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"websocketbridge/signaler"
)

// Backoff of a RemoteSource. Nothing is saved by waiting long for a process on
// the same machine.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	dialTime   = 10 * time.Second
)

// RemoteConfig of a RemoteSource.
type RemoteConfig struct {
	URL      string       // where the hub serves: ws:// or http://, a loopback host, no path
	DeviceID string       // who listens
	Logger   *slog.Logger // nil: silent
	// Dial opens the TCP connection; nil: the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A RemoteSource is the device's side of a hub in another process on the same
// machine.
type RemoteSource struct {
	url    string
	log    *slog.Logger
	record signaler.SourceRecord
	dialer websocket.Dialer
}

// NewRemoteSource returns the device's side. It starts nothing.
func NewRemoteSource(cfg RemoteConfig) (*RemoteSource, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("fake hub: its URL is like ws://127.0.0.1:7071")
	case u.Scheme != "ws" && u.Scheme != "http":
		return nil, fmt.Errorf("fake hub: scheme %q is neither ws nor http", u.Scheme)
	case !loopbackHost(u.Host):
		return nil, fmt.Errorf("fake hub: %s is not a loopback address; signals from elsewhere would be anybody's", u.Host)
	}
	if err := checkDeviceID(cfg.DeviceID); err != nil {
		return nil, fmt.Errorf("fake hub: %w", err)
	}
	at := url.URL{Scheme: "ws", Host: u.Host, Path: "/signals", RawQuery: url.Values{"deviceId": {cfg.DeviceID}}.Encode()}
	s := &RemoteSource{
		url: at.String(), log: cfg.Logger,
		dialer: websocket.Dialer{NetDialContext: cfg.Dial, HandshakeTimeout: dialTime}, // no Proxy: it is loopback
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("device", cfg.DeviceID)
	return s, nil
}

// refusedError: the hub does not want this device, whenever it asks.
type refusedError struct {
	status string
	body   string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("fake hub answered %s: %s", e.status, e.body)
}

// Run hands deliveries to handle, one after the other, until ctx ends, and then
// returns nil. A hub that cannot be reached or is lost is dialled again for
// ever. Run returns signaler.ErrTakenOver when another connection of the device
// replaced this one, and an error when the hub refuses the request as such.
func (s *RemoteSource) Run(ctx context.Context, handle signaler.Handler) (err error) {
	s.record.Begin("fake", s.url)
	defer func() { s.record.Down(err) }()
	lost, tries := false, 0
	for ctx.Err() == nil {
		start := time.Now()
		err := s.session(ctx, handle, func() {
			if lost {
				s.log.Info("fake hub is back")
			} else {
				s.log.Info("listening for signals of the fake hub")
			}
			lost = false
			s.record.Up()
		})
		var no *refusedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, signaler.ErrTakenOver), errors.As(err, &no):
			return err
		}
		s.record.Down(err)
		if !lost {
			lost = true
			s.log.Warn("fake hub lost; dialling until it is back", "reason", err)
		}
		if time.Since(start) > maxBackoff {
			tries = 0 // it was a good connection
		}
		pause(ctx, backoff(tries))
		tries++
	}
	return nil
}

// State says whether signals are heard, and if not, why.
func (s *RemoteSource) State() signaler.SourceState { return s.record.State() }

// backoff grows twofold from minBackoff, with full jitter, so that many devices
// do not come back in one moment.
func backoff(tries int) time.Duration {
	return rand.N(min(minBackoff<<min(tries, 10), maxBackoff)) + time.Millisecond
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// session is one connection, from dialling to its end.
func (s *RemoteSource) session(ctx context.Context, handle signaler.Handler, up func()) error {
	ws, resp, err := s.dialer.DialContext(ctx, s.url, nil)
	if err != nil {
		if resp != nil && resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
			body := make([]byte, 200)
			n, _ := resp.Body.Read(body)
			return &refusedError{resp.Status, strings.TrimSpace(string(body[:n]))}
		}
		return err
	}
	defer ws.Close()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
		ws.Close()
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()
	up()
	return deliver(ctx, ws, handle)
}

// deliver reads deliveries and answers them until the connection ends.
func deliver(ctx context.Context, ws *websocket.Conn, handle signaler.Handler) error {
	alive := func() { ws.SetReadDeadline(time.Now().Add(deadAfter)) }
	ws.SetReadLimit(maxDelivery)
	ws.SetPingHandler(func(data string) error {
		alive()
		ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
		return nil // a lost connection shows when it is read
	})
	for {
		alive() // the handler took no part of the time
		_, b, err := ws.ReadMessage()
		if err != nil {
			if websocket.IsCloseError(err, closeTakenOver) {
				return signaler.ErrTakenOver
			}
			return err
		}
		d, err := parseDelivery(b)
		if err != nil {
			return err
		}
		r := reply{ID: &d.ID}
		if no := handle(ctx, signaler.Delivery{Payload: d.Signal, Answers: d.Answers}); d.Answers {
			r.Refuse = no
		}
		ws.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := ws.WriteJSON(r); err != nil {
			return err
		}
	}
}
