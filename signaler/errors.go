package signaler

import (
	"errors"
	"fmt"
	"time"
)

// Facts about a signal that was not accepted. An implementation wraps them with
// what the hub said, for the log.
var (
	// ErrDeviceNotFound: the hub has no such device.
	ErrDeviceNotFound = errors.New("hub does not know the device")
	// ErrDeviceOffline: the hub knows the device, which is not connected or
	// does not listen for signals.
	ErrDeviceOffline = errors.New("device is not connected to the hub")
	// ErrRefused: the device answered no. The error is a *RefusedError.
	ErrRefused = errors.New("device refused")
	// ErrTimedOut: the hub or the device did not answer in time. The device may
	// have the signal all the same.
	ErrTimedOut = errors.New("no answer in time")
	// ErrThrottled: the hub wants fewer requests. The error is a *ThrottledError
	// when the hub said how long to wait.
	ErrThrottled = errors.New("hub throttles")
	// ErrUnauthorized: the hub refused the relay's own credentials.
	ErrUnauthorized = errors.New("hub refused the relay's credentials")
	// ErrNotSupported: the hub's tier has neither cloud-to-device messages nor
	// direct methods (IoT Hub Basic).
	ErrNotSupported = errors.New("hub's tier has no way to signal a device")
	// ErrTooBig: the signal does not fit MaxSize. It was not sent.
	ErrTooBig = errors.New("signal is too big")
	// ErrUnavailable: the hub cannot be reached or failed by itself.
	ErrUnavailable = errors.New("hub is unavailable")
)

// A Refusal is a device's no: a code for programs, a sentence for a person. It
// is the body of a refused direct method and of a POST to the reject URL.
type Refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// RefusedError is a device's no.
type RefusedError struct{ Refusal }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("device refused: %s: %s", e.Code, e.Message)
}

// Unwrap makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Unwrap() error { return ErrRefused }

// ThrottledError says how long the hub wants to be left alone.
type ThrottledError struct {
	RetryAfter time.Duration // 0: the hub did not say
}

func (e *ThrottledError) Error() string {
	if e.RetryAfter <= 0 {
		return ErrThrottled.Error()
	}
	return fmt.Sprintf("%v; retry after %v", ErrThrottled, e.RetryAfter)
}

// Unwrap makes errors.Is(err, ErrThrottled) true.
func (e *ThrottledError) Unwrap() error { return ErrThrottled }
