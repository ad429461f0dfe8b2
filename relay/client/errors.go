package client

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	// NoRelay: the answer was no relay's, so Code is a guess from the status: a
	// proxy's answer, or that of something else at the address.
	NoRelay bool
}

func (e *Error) Error() string { return e.Detail }

// Temporary says whether the same request may work later without anyone
// changing anything.
func (e *Error) Temporary() bool {
	if e.Code == wire.DeviceRefused {
		return slices.Contains(passing, e.DeviceCode)
	}
	if o, ok := wire.Lookup(e.Code); ok {
		return o.Retry
	}
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Close != 0 // a code of a newer relay
}

// passing are the codes of our agent's refusals that may be over soon: its bridges
// end, it starts again, a target comes up, a clock is set, its owner lets people in again.
var passing = []string{"limit_reached", "stopping", "dial_failed", "expired", "disabled"}

// An UnreachableError is a relay that gave no answer at all: no way to it, no
// TLS with it, or a connection that broke while the relay held its answer.
type UnreachableError struct{ err error }

func (e *UnreachableError) Error() string { return e.err.Error() }

// Unwrap returns what went wrong.
func (e *UnreachableError) Unwrap() error { return e.err }

// ErrSignIn: there are no credentials, and only a person can get some again. A
// Config.Credentials returns it, wrapped or not, and a Link ends with it. Any other error
// passes by itself: the Link tries again.
var ErrSignIn = errors.New("a person has to sign in")

// A CredentialsError is an error of Config.Credentials: the relay was not asked.
type CredentialsError struct{ err error }

func (e *CredentialsError) Error() string { return e.err.Error() }

// Unwrap returns what Config.Credentials did.
func (e *CredentialsError) Unwrap() error { return e.err }

// fromHandshake reads the problem in a refused handshake.
func fromHandshake(err error) error {
	var h *ws.HandshakeError
	if !errors.As(err, &h) {
		return &UnreachableError{err}
	}
	e := &Error{Status: h.Status, RetryAfter: retryAfter(h.Header.Get("Retry-After"))}
	said := strings.TrimSpace(fmt.Sprintf("%d %s", h.Status, http.StatusText(h.Status)))
	p, perr := wire.ParseProblem(h.Body)
	if perr != nil { // a proxy, or something that is no relay
		e.Code, e.NoRelay = guess(h.Status), true
		e.Detail = fmt.Sprintf("the relay's address answered %s, without saying why", said)
		e.Hint = "is this a relay? a proxy in front of it may have answered instead"
		return e
	}
	e.Code, e.Detail, e.Hint, e.BridgeID, e.DeviceCode = p.Code, p.Detail, p.Hint, p.BridgeID, p.DeviceCode
	if e.RetryAfter == 0 && p.RetryAfter > 0 {
		e.RetryAfter = retryAfter(strconv.Itoa(p.RetryAfter))
	}
	if e.Detail == "" {
		e.Detail = cmp.Or(sentence(p.Title), "the relay answered "+said)
	}
	return e
}

// retryAfter reads the header in both of its forms (RFC 9110 section 10.2.3).
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// sentence makes a title go on after "bridge: ".
func sentence(title string) string {
	title = strings.TrimSuffix(title, ".")
	if r, n := utf8.DecodeRuneInString(title); n > 0 {
		return string(unicode.ToLower(r)) + title[n:]
	}
	return ""
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
	case status >= 500, status == http.StatusRequestTimeout:
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
	case e.Detail != "" && !ok && c.Code >= 3000: // a peer's own words, and a number of its own (RFC 6455 section 7.4.2)
		e.Detail = fmt.Sprintf("%s (close code %d)", e.Detail, c.Code)
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
