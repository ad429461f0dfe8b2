package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// An Error is a no of the relay or of the device, before or after the upgrade.
type Error struct {
	Code       wire.Code
	Status     int    // HTTP status; 0 after the upgrade
	Close      int    // close code; 0 before the upgrade
	Detail     string // what happened
	Hint       string // what to try next; may be empty
	BridgeID   string // may be empty
	DeviceCode string // the device's own code when Code is wire.DeviceRefused
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Detail }

// Temporary says whether the same request may work later without anyone
// changing anything.
func (e *Error) Temporary() bool {
	o, ok := wire.Lookup(e.Code)
	return ok && o.Retry
}

// An UnreachableError is a relay that gave no answer at all: no way to it, no
// TLS with it, or a connection that broke while the relay held its answer.
type UnreachableError struct{ err error }

func (e *UnreachableError) Error() string { return e.err.Error() }

// Unwrap returns what went wrong.
func (e *UnreachableError) Unwrap() error { return e.err }

// fromHandshake reads the problem in a refused handshake.
func fromHandshake(err error) error {
	var h *ws.HandshakeError
	if !errors.As(err, &h) {
		return &UnreachableError{err}
	}
	retry, _ := strconv.Atoi(h.Header.Get("Retry-After"))
	e := &Error{Status: h.Status, RetryAfter: time.Duration(retry) * time.Second}
	p, perr := wire.ParseProblem(h.Body)
	if perr != nil { // a proxy, or something that is no relay
		e.Code = guess(h.Status)
		e.Detail = fmt.Sprintf("the relay's address answered %d %s, without saying why", h.Status, http.StatusText(h.Status))
		e.Hint = "is this a relay? a proxy in front of it may have answered instead"
		return e
	}
	e.Code, e.Detail, e.Hint, e.BridgeID, e.DeviceCode = p.Code, p.Detail, p.Hint, p.BridgeID, p.DeviceCode
	if e.Detail == "" {
		e.Detail = sentence(p.Title)
	}
	return e
}

// sentence makes a title go on after "bridge: ".
func sentence(title string) string {
	title = strings.TrimSuffix(title, ".")
	r, n := utf8.DecodeRuneInString(title)
	return string(unicode.ToLower(r)) + title[n:]
}

// badRequest is what the relay would have answered, known without asking it.
func badRequest(format string, args ...any) error {
	return &Error{Code: wire.BadRequest, Detail: fmt.Errorf(format, args...).Error()}
}

// guess is the code for a status without a problem body.
func guess(status int) wire.Code {
	switch {
	case status == http.StatusUnauthorized:
		return wire.Unauthenticated
	case status == http.StatusForbidden:
		return wire.Forbidden
	case status == http.StatusTooManyRequests:
		return wire.LimitReached
	case status >= 500:
		return wire.OwnerLost
	}
	return wire.BadRequest
}

// fromClose reads the code in the reason of a close frame.
func fromClose(err error) error {
	var c *ws.CloseError
	if !errors.As(err, &c) {
		return err
	}
	r := wire.ParseReason(c.Reason)
	e := &Error{Code: r.Code, Close: c.Code, Detail: r.Text}
	o, ok := wire.Lookup(r.Code)
	if ok {
		e.Hint = o.Hint
	}
	switch {
	case e.Detail != "":
	case ok:
		e.Detail = sentence(o.Title)
	default:
		e.Detail = c.Error()
	}
	if e.Code == "" && (c.Code == wire.CloseRestart || c.Code == wire.CloseOverload || c.Code == wire.CloseGoingAway) {
		e.Code = wire.PeerLost
	}
	return e
}
