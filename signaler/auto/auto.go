// Package auto signals a device by direct method, and by cloud-to-device message where
// nobody on it handles the method. It is for a hub whose devices are of both kinds: our
// agent handles the method; older devices listen for messages only.
//
// # When a message follows
//
//	signaler.ErrDeviceOffline   the device is not connected, or does not handle methods: the
//	                            hub has one answer for both
//	method.ErrModuleNotFound    the device has no agent in a module of its own
//	method.ErrNoHandler         the device answered that it does not know the method
//	signaler.ErrTimedOut, or    the device took the call and said nothing: SDKs drop a method
//	no answer in Config.Patience  that their application has not registered
//
// Every other answer stands: a refusal is a refusal, and a hub that throttles, fails or
// refuses the relay's credentials does so for messages, too.
//
// # What a requester hears
//
// The hub takes a message for a device that is off. So with this signaler an offline
// device is no fast "device_offline": the requester waits for the dial-back, and hears
// "dial_back_timeout". That is right as far as anybody can know, and it has a good side:
// the message lives as long as the bridge's token, so a device that connects in time
// is bridged after all, and one that connects later does not get it. Where all devices
// run the agent, the signaler method alone is faster and costs less.
//
// Give method.Config.AskOnce where agents are on the devices themselves: a device that
// is on its way back finds the message. An agent in a module gets no messages, so there
// the method's second try is of use.
//
// A device may get a signal twice, by method and by message. Package signaler allows
// that; the agent drops the second one.
//
// # Why
//
// Why nothing is remembered: which way a device was reached last would save the method's
// call (two messages of the hub's quota) for a device that takes messages only. But a
// device that is upgraded would be reached in the old way until the memory ends, and
// which of the relay's nodes remembers what would show in how fast a bridge opens.
package auto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/method"
)

// DefaultPatience is how long a device may take to answer the method. The agent answers
// at once, and the rest of the 15 s that a requester waits is for the message.
const DefaultPatience = 5 * time.Second

// Config is what a Signaler needs.
type Config struct {
	Method  signaler.Signaler // a *method.Signaler
	Message signaler.Signaler // a *c2d.Signaler
	// Patience is how long a device may take to answer the method before the message
	// is sent as well; 0: DefaultPatience.
	Patience time.Duration
	Logger   *slog.Logger // nil: silent
}

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method == nil {
		bad("Method: is missing")
	}
	if c.Message == nil {
		bad("Message: is missing")
	}
	if c.Patience < 0 {
		bad("Patience: %v is negative", c.Patience)
	}
	return errors.Join(errs...)
}

// A Signaler tries the method first. It is a signaler.Signaler.
type Signaler struct {
	cfg Config
	log *slog.Logger
}

var _ signaler.Signaler = (*Signaler)(nil)

// New checks cfg. It starts nothing; whoever made the two signalers runs them.
func New(cfg Config) (*Signaler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auto: %w", err)
	}
	cfg.Patience = cmp.Or(cfg.Patience, DefaultPatience)
	s := &Signaler{cfg: cfg, log: cfg.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// errSilent is the cause when a device does not answer the method.
var errSilent = errors.New("no answer to the direct method")

// Signal implements signaler.Signaler.
func (s *Signaler) Signal(ctx context.Context, sig *signaler.Signal) error {
	mctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Patience, errSilent)
	err := s.cfg.Method.Signal(mctx, sig)
	cancel()
	if err == nil || ctx.Err() != nil || !nobodyHandles(err) {
		return err
	}
	s.log.Debug("message follows", "device", sig.DeviceID, "bridge", sig.BridgeID, "reason", err)
	if second := s.cfg.Message.Signal(ctx, sig); second != nil {
		return fmt.Errorf("after %q: %w", err.Error(), second) // one fact only: the last
	}
	return nil
}

// nobodyHandles tells whether a message has a chance.
func nobodyHandles(err error) bool {
	for _, reason := range []error{signaler.ErrDeviceOffline, method.ErrModuleNotFound, method.ErrNoHandler, signaler.ErrTimedOut, errSilent} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
