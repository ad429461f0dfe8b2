package c2d

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
)

// A row says what a condition of the hub means for a message. Source: the error
// mappers of Microsoft's C# and Node SDKs.
type row struct {
	is  error
	say string // what to try, or more than the hub says; may be empty
	// again: the hub did not take the message for a reason that passes, so that the
	// same signal may succeed in a moment.
	again bool
	full  bool // the device's queue is full, which may pass in a moment
}

var conditions = map[amqp.ErrCond]row{
	"amqp:not-found":                           {is: signaler.ErrDeviceNotFound},
	"amqp:unauthorized-access":                 {is: signaler.ErrUnauthorized, say: "it needs the right ServiceConnect, or the role's action cloudToDeviceMessages/send"},
	"amqp:resource-limit-exceeded":             {is: signaler.ErrThrottled, full: true, say: "the device's queue is full; is it connected, does it take its messages?"},
	"com.microsoft:device-container-throttled": {is: signaler.ErrThrottled},
	"com.microsoft:quota-exceeded":             {is: signaler.ErrThrottled, say: "the hub's messages of the day are used up; the count starts anew at midnight UTC"},
	"amqp:link:message-size-exceeded":          {is: signaler.ErrTooBig},

	"amqp:not-allowed":                      {is: signaler.ErrUnavailable, say: "the hub does not allow the message"},
	"amqp:not-implemented":                  {is: signaler.ErrNotSupported},
	"com.microsoft:argument-error":          {is: signaler.ErrUnavailable, say: "the hub does not like the message; is this machine's clock right?"},
	"com.microsoft:argument-out-of-range":   {is: signaler.ErrUnavailable, say: "the hub does not like the message; is this machine's clock right?"},
	"com.microsoft:precondition-failed":     {is: signaler.ErrUnavailable},
	"com.microsoft:iot-hub-suspended":       {is: signaler.ErrUnavailable, say: "the hub is suspended; see its subscription"},
	"com.microsoft:iot-hub-not-found-error": {is: signaler.ErrUnavailable, say: "no hub of that name is there; it may just fail over to another region"},
	"com.microsoft:timeout":                 {is: signaler.ErrUnavailable, again: true},
	"amqp:internal-error":                   {is: signaler.ErrUnavailable, again: true},
	"amqp:link:detach-forced":               {is: signaler.ErrUnavailable, again: true},
	"amqp:connection:forced":                {is: signaler.ErrUnavailable, again: true},
	condReleased:                            {is: signaler.ErrUnavailable, again: true},
	condModified:                            {is: signaler.ErrUnavailable, again: true},
	condRejected:                            {is: signaler.ErrUnavailable},
	condNoOutcome:                           {is: signaler.ErrUnavailable},
}

// codes are those of the hub's six-digit codes that say more than their condition.
var codes = map[int]row{
	403010: {is: signaler.ErrNotSupported}, // a tier without messages to devices
	403009: {is: signaler.ErrUnavailable, say: "the hub does not like the expiry; is this machine's clock right?"},
	404006: {is: signaler.ErrUnavailable}, // a link's address
	404010: {is: signaler.ErrDeviceNotFound},
}

// A hubError is what the hub said. It wraps one sentinel of package signaler.
type hubError struct {
	row
	condition   amqp.ErrCond
	description description
}

// rejection explains why the hub did not take a message.
func rejection(e *amqp.Error) *hubError {
	if e == nil { // go-amqp returns a nil *Error, in an error that is not nil
		e = &amqp.Error{Condition: condRejected}
	}
	h := &hubError{condition: e.Condition, description: describe(e.Description)}
	var ok bool
	if h.row, ok = codes[h.description.code]; ok {
		return h
	}
	if h.row, ok = conditions[e.Condition]; !ok {
		h.row = row{is: signaler.ErrUnavailable}
	}
	return h
}

// linkError explains why the hub ended a link, a session or the connection. No
// device is meant there.
func linkError(e *amqp.Error) *hubError {
	if e == nil {
		return &hubError{row: row{is: signaler.ErrUnavailable}, condition: "no reason given"}
	}
	h := rejection(e)
	switch {
	case errors.Is(h.is, signaler.ErrDeviceNotFound), errors.Is(h.is, signaler.ErrTooBig):
		h.row = row{is: signaler.ErrUnavailable}
	case h.full:
		h.full, h.say = false, ""
	}
	return h
}

func (e *hubError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s", e.is, printable(string(e.condition), 100))
	if d := e.description.String(); d != "" {
		fmt.Fprintf(&b, ": %s", printable(d, 300))
	}
	if e.say != "" {
		fmt.Fprintf(&b, "; %s", e.say)
	}
	return b.String()
}

// Unwrap gives the sentinel.
func (e *hubError) Unwrap() error { return e.is }

// A description is what stands in an error's description: JSON in newer hubs,
// "ErrorCode:Name;text" or only text in others.
type description struct {
	code           int // six digits; 0: not said
	text, tracking string
}

// String is one line, without what only fills it.
func (d description) String() string {
	s := d.text
	if d.code != 0 {
		s = strings.TrimSuffix(fmt.Sprintf("%d %s", d.code, s), " ")
	}
	if d.tracking != "" {
		s += " [tracking " + d.tracking + "]"
	}
	return s
}

func describe(s string) description {
	var j struct {
		ErrorCode  json.Number `json:"errorCode"`
		TrackingID string      `json:"trackingId"`
		Message    string      `json:"message"`
	}
	if strings.HasPrefix(strings.TrimSpace(s), "{") && json.Unmarshal([]byte(s), &j) == nil {
		code, _ := j.ErrorCode.Int64()
		return description{int(code), j.Message, j.TrackingID}
	}
	return description{text: s}
}

// A tokenError is the hub's no to a token.
type tokenError struct {
	status int // as of HTTP
	text   string
}

func (e *tokenError) Error() string {
	hint := ""
	if e.Unwrap() == signaler.ErrUnauthorized {
		hint = "; check the key or the role, and this machine's clock"
	}
	return fmt.Sprintf("%v: put-token: %d %s%s", e.Unwrap(), e.status, printable(describe(e.text).String(), 300), hint)
}

// Unwrap gives the sentinel.
func (e *tokenError) Unwrap() error {
	switch e.status {
	case 401, 403:
		return signaler.ErrUnauthorized
	case 429:
		return signaler.ErrThrottled
	}
	return signaler.ErrUnavailable
}

// openError explains why a connection did not come up.
func openError(doing string, err error) error {
	var h *hubError
	var t *tokenError
	var remote *amqp.Error
	var c *amqp.ConnError
	var s *amqp.SessionError
	var d *amqp.DetachError
	switch {
	case errors.As(err, &h), errors.As(err, &t):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.As(err, &c) && c.RemoteErr != nil:
		remote = c.RemoteErr
	case errors.As(err, &s) && s.RemoteErr != nil:
		remote = s.RemoteErr
	case errors.As(err, &d) && d.RemoteErr != nil:
		remote = d.RemoteErr
	case errors.As(err, &remote) && remote != nil:
	default:
		return fmt.Errorf("%w: %s: %w", signaler.ErrUnavailable, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, linkError(remote))
}

// definite says whether err, of a connection that did not come up, will be the
// same at the next try unless somebody changes something.
func definite(err error) bool {
	return errors.Is(err, signaler.ErrUnauthorized) || errors.Is(err, signaler.ErrNotSupported)
}
