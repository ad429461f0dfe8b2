package c2d

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
)

// property marks a message as a signal, so that a device never takes one of its
// own messages for one.
const property, propertyValue = "bridge-signal", "v1"

const (
	// attempts is how often a message is sent at the most: once, and again when the
	// connection broke before the hub answered or the hub failed by itself.
	attempts = 4
	// again is up to how long to wait before a hub that failed by itself is asked again.
	again = time.Second
	// fullWait is how long a signal waits for room in the device's queue: a connected
	// device empties it in a moment, and for another the answer is not to be late.
	fullWait = 3 * time.Second
	// fullFirst is up to how long it waits the first time; then twice as long, and so on.
	fullFirst = 200 * time.Millisecond
)

// Signal implements signaler.Signaler. nil means that the hub queued the message.
//
// It waits for a connection that is down, but for ConnectWait at the most, and
// not at all when the hub refused the credentials.
func (s *Signaler) Signal(ctx context.Context, sig *signaler.Signal) error {
	if err := s.signal(ctx, sig); err != nil {
		return fmt.Errorf("message to device %q: %w", sig.DeviceID, err)
	}
	return nil
}

func (s *Signaler) signal(ctx context.Context, sig *signaler.Signal) error {
	if ctx.Err() != nil {
		return ended(ctx, signaler.ErrTimedOut)
	}
	payload, err := sig.Encode()
	if err != nil {
		return err
	}
	if sig.DeviceID == "" {
		return fmt.Errorf("%w: the signal names none", signaler.ErrDeviceNotFound)
	}
	expires := sig.ExpiresAt
	if expires.IsZero() {
		expires = time.Now().Add(s.cfg.MessageLife)
	}
	full := time.Now().Add(fullWait)
	for attempt, tries := 1, 0; ; attempt++ {
		c, err := s.connected(ctx)
		if err != nil {
			return err
		}
		if !time.Now().Before(expires) {
			return fmt.Errorf("%w: the signal has expired", signaler.ErrTimedOut)
		}
		err = c.send(ctx, s.message(sig, payload, expires), s.cfg.SilenceTimeout)
		no, _ := errors.AsType[*hubError](err)
		switch {
		case err == nil:
			return nil
		case no == nil && ctx.Err() != nil:
			return ended(ctx, signaler.ErrTimedOut)
		case no != nil && no.is == signaler.ErrUnauthorized:
			poke(s.renew)
			return no
		case no != nil && no.full:
			d := fullFirst << tries / 2
			if d += rand.N(d); time.Now().Add(d).After(full) {
				return no
			}
			if err := pause(ctx, d); err != nil {
				return fmt.Errorf("%w: %w", no, err)
			}
			tries++
			attempt-- // the hub and the connection are well
		case no != nil && (!no.again || attempt == attempts):
			return no
		case attempt == attempts:
			return fmt.Errorf("%w: the connection was lost %d times while it was sent: %w", signaler.ErrUnavailable, attempts, c.shim.reason())
		case no != nil:
			if err := pause(ctx, rand.N(again)); err != nil {
				return fmt.Errorf("%w: %w", no, err)
			}
		}
	}
}

// message builds the message. The signal is all in the body: properties and topics
// are rewritten on their way to the device.
func (s *Signaler) message(sig *signaler.Signal, payload []byte, expires time.Time) *amqp.Message {
	to := "/devices/" + escape(sig.DeviceID) + devicebound
	m := amqp.NewMessage(payload)
	m.Properties = &amqp.MessageProperties{To: &to, AbsoluteExpiryTime: &expires}
	if sig.BridgeID != "" {
		m.Properties.MessageID = sig.BridgeID
	}
	m.ApplicationProperties = map[string]any{property: propertyValue}
	if s.cfg.Feedback != nil {
		m.ApplicationProperties["iothub-ack"] = "full"
	}
	return m
}

// escape percent-encodes a device's ID; a plus is a plus in a path.
func escape(id string) string { return strings.ReplaceAll(url.QueryEscape(id), "+", "%20") }

// connected returns the connection, or why there is none.
func (s *Signaler) connected(ctx context.Context) (*connection, error) {
	t := time.NewTimer(s.cfg.ConnectWait)
	defer t.Stop()
	for {
		s.mu.Lock()
		c, changed, err, hard, stopped := s.up, s.changed, s.err, s.hard, s.stopped
		s.mu.Unlock()
		if err == nil {
			err = fmt.Errorf("%w: there is no connection yet", signaler.ErrUnavailable)
		}
		switch {
		case stopped:
			return nil, fmt.Errorf("%w: the signaler has stopped", signaler.ErrUnavailable)
		case c != nil && c.shim.reason() == nil:
			return c, nil
		case c == nil && hard:
			poke(s.wake) // somebody may have mended it
			return nil, err
		}
		poke(s.wake)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ended(ctx, err)
		case <-t.C:
			return nil, fmt.Errorf("no connection within %v: %w", s.cfg.ConnectWait, err)
		}
	}
}

// ended is the error when ctx ends: what was the matter until then, and why it
// ended.
func ended(ctx context.Context, err error) error {
	return fmt.Errorf("%w: %w", err, context.Cause(ctx))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poke leaves a word for whoever waits on ch.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
