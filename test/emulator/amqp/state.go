package amqp

import "fmt"

// Error conditions of the standard that this package itself sends.
const (
	CondDecode              Symbol = "amqp:decode-error"
	CondIllegalState        Symbol = "amqp:illegal-state"
	CondInternal            Symbol = "amqp:internal-error"
	CondInvalidField        Symbol = "amqp:invalid-field"
	CondNotAllowed          Symbol = "amqp:not-allowed"
	CondNotFound            Symbol = "amqp:not-found"
	CondNotImplemented      Symbol = "amqp:not-implemented"
	CondResourceLimit       Symbol = "amqp:resource-limit-exceeded"
	CondUnauthorized        Symbol = "amqp:unauthorized-access"
	CondConnectionForced    Symbol = "amqp:connection:forced"
	CondFraming             Symbol = "amqp:connection:framing-error"
	CondWindowViolation     Symbol = "amqp:session:window-violation"
	CondHandleInUse         Symbol = "amqp:session:handle-in-use"
	CondUnattachedHandle    Symbol = "amqp:session:unattached-handle"
	CondDetachForced        Symbol = "amqp:link:detach-forced"
	CondTransferLimit       Symbol = "amqp:link:transfer-limit-exceeded"
	CondMessageSizeExceeded Symbol = "amqp:link:message-size-exceeded"
	CondStolen              Symbol = "amqp:link:stolen"
)

// An Error is why a message was rejected, or a link, session or connection ended.
type Error struct {
	Condition   Symbol
	Description string
	Info        Map
}

func (e *Error) Error() string {
	if e.Description == "" {
		return string(e.Condition)
	}
	return string(e.Condition) + ": " + e.Description
}

// errorf returns an Error without an info map.
func errorf(condition Symbol, format string, args ...any) *Error {
	return &Error{Condition: condition, Description: fmt.Sprintf(format, args...)}
}

func (e *Error) value() any {
	if e == nil {
		return nil
	}
	l := trim(List{e.Condition, orNull(e.Description), mapOrNull(e.Info)})
	return Described{uint64(codeError), l}
}

func readError(f *fields) *Error {
	v, ok := read[any](f, "error")
	if !ok {
		return nil
	}
	e, err := errorFrom(v)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("field error of %s: %w", f.of, err)
	}
	return e
}

func errorFrom(v any) (*Error, error) {
	code, l, err := composite(v)
	if err != nil {
		return nil, err
	}
	if code != codeError {
		return nil, fmt.Errorf("type 0x%x where an error should be", code)
	}
	f := &fields{of: "error", list: l}
	e := &Error{needed[Symbol](f, "condition"), value[string](f, "description"), value[Map](f, "info")}
	return e, f.err
}

// An Outcome is what became of a delivery: Accepted, Rejected, Released or Modified.
type Outcome interface{ state() Described }

// Accepted means that the receiver took the message over.
type Accepted struct{}

// Rejected means that the message is bad; sending it again does not help.
type Rejected struct{ Err *Error } // nil: without a reason

// Released means that nothing was done with the message.
type Released struct{}

// Modified is Released with a note.
type Modified struct {
	DeliveryFailed    bool // count it as an attempt
	UndeliverableHere bool // do not offer it to this receiver again
	Annotations       Map
}

func (Accepted) state() Described { return Described{uint64(codeAccepted), List{}} }
func (r Rejected) state() Described {
	return Described{uint64(codeRejected), trim(List{r.Err.value()})}
}
func (Released) state() Described { return Described{uint64(codeReleased), List{}} }
func (m Modified) state() Described {
	return Described{uint64(codeModified), trim(List{orNull(m.DeliveryFailed), orNull(m.UndeliverableHere), mapOrNull(m.Annotations)})}
}

// readOutcome decodes a delivery state. It returns nil for none and for received,
// which is no outcome yet.
func readOutcome(v any) (Outcome, error) {
	if v == nil {
		return nil, nil
	}
	code, l, err := composite(v)
	if err != nil {
		return nil, err
	}
	f := &fields{of: "delivery state", list: l}
	switch code {
	case codeReceived:
		return nil, nil
	case codeAccepted:
		return Accepted{}, nil
	case codeReleased:
		return Released{}, nil
	case codeRejected:
		r := Rejected{readError(f)}
		return r, f.err
	case codeModified:
		m := Modified{value[bool](f, "delivery-failed"), value[bool](f, "undeliverable-here"), value[Map](f, "message-annotations")}
		return m, f.err
	}
	return nil, fmt.Errorf("unknown delivery state 0x%x", code)
}
