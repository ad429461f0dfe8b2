package signaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// ErrTakenOver ends a source: another connection of the same identity replaced
// this one. A hub keeps one per identity, and the newest wins.
var ErrTakenOver = errors.New("another connection took over this device's identity")

// A Delivery is one signal as it reached the device.
type Delivery struct {
	Payload []byte // what Parse reads; holds the accept URL, a secret
	// Answers: the source carries the handler's answer back to the relay (direct
	// method). Otherwise the device refuses through the reject URL.
	Answers bool
}

// A Handler takes a delivery. It returns at once: nil accepts, and the device
// dials afterwards. A source calls it for one delivery after the other. Its ctx
// ends with the source's Run.
//
// A source is what a device listens with. The agent declares the interface it
// needs; every source has this method:
//
//	Run(ctx context.Context, h Handler) error
//
// It delivers until ctx ends and then returns nil. An error is final:
// ErrTakenOver, or one that no retry can mend. What a retry may mend, a source
// retries by itself.
type Handler func(ctx context.Context, d Delivery) *Refusal

// String names the delivery without its payload.
func (d Delivery) String() string {
	return fmt.Sprintf("delivery{%d bytes, answers %t}", len(d.Payload), d.Answers)
}

// Format keeps every verb of package fmt from printing the payload.
func (d Delivery) Format(f fmt.State, verb rune) { redacted(f, verb, d.String()) }

// MarshalJSON keeps JSON logs from printing the payload.
func (d Delivery) MarshalJSON() ([]byte, error) { return redactedJSON(d.String()) }

// LogValue keeps slog from printing the payload.
func (d Delivery) LogValue() slog.Value { return slog.StringValue(d.String()) }
