package session

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Why a session ended, as Err, Run and the errors of its streams wrap it.
var (
	// ErrClosed: this side called Close. It matches net.ErrClosed as well.
	ErrClosed error = closedError{}
	// ErrDead: not one byte arrived for Config.DeadAfter.
	ErrDead = errors.New("session: the other side is dead")
	// ErrProtocol: the other side broke the protocol; the wrapping error says how.
	ErrProtocol = errors.New("session: protocol violation")
	// ErrLost: the transport failed or ended without a word from the other side.
	ErrLost = errors.New("session: transport lost")
)

// Why one call failed while the session lives on.
var (
	// ErrStopped: a write on a stream whose other side reads no more.
	ErrStopped = errors.New("session: the other side reads no more")
	// ErrGoingAway: an Open after GoAway on this side.
	ErrGoingAway = errors.New("session: going away, no new streams")
	// ErrSpent: an Open after all 2^30 stream IDs of this side were used.
	ErrSpent = errors.New("session: stream IDs are spent")
	// ErrAnswered: an Incoming was accepted or refused before.
	ErrAnswered = errors.New("session: incoming stream was answered before")
)

// Codes the session itself puts into RESET and GOAWAY. Applications add their
// own: a device answers "target_failed", say.
const (
	CodeLimitReached = "limit_reached" // RESET: MaxStreams or AcceptBacklog of the refusing side
	CodeCancelled    = "cancelled"     // RESET: the opener gave up waiting for the answer
	CodeGoingAway    = "going_away"    // RESET: OPEN crossed a GOAWAY; GOAWAY: the default
	CodeClosed       = "closed"        // GOAWAY: the sender closed the session
	CodeProtocol     = "protocol"      // GOAWAY: the receiver broke the protocol
)

// An OpenError is the other side's refusal of an Open, in its own words.
type OpenError struct {
	Target, Code, Message string
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("session: open %q refused: %s", e.Target, reasonText(e.Code, e.Message))
}

// A ResetError is what a stream's calls return after the other side reset it.
type ResetError struct {
	Code, Message string
}

func (e *ResetError) Error() string {
	return "session: stream reset by the other side: " + reasonText(e.Code, e.Message)
}

// A GoAwayError is the other side's GOAWAY: what Open returns after one, and
// the cause of a session that the other side ended with one.
type GoAwayError struct {
	Code, Message string
}

func (e *GoAwayError) Error() string {
	return "session: the other side goes away: " + reasonText(e.Code, e.Message)
}

type closedError struct{}

func (closedError) Error() string        { return "session: closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

// violation describes a breach of the protocol by the other side.
func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// reasonText joins a code and a message for a person. Both come from the other
// side and may reach a terminal, so whatever does not print is quoted.
func reasonText(code, message string) string {
	s := code
	if message != "" {
		s += ": " + message
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return strconv.Quote(s)
	}
	return s
}
