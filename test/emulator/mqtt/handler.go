package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A Handler is one client's counterpart. Its methods are called one at a time.
type Handler interface {
	// OnConnect judges who comes. With Accepted, c may be used from OnReady on,
	// and OnClose will be called.
	OnConnect(c *Conn, in Connect) (code Code, sessionPresent bool)
	// OnReady: the CONNACK or SUBACK for what was asked before goes out ahead of
	// whatever is sent from now on. The SUBACK does when OnReady has returned.
	OnReady()
	// OnSubscribe returns the QoS granted, Refused for this filter, or Unanswered. qos
	// is at most 1. An error ends the connection instead.
	OnSubscribe(filter string, qos byte) (granted byte, err error)
	OnUnsubscribe(filter string)
	// OnPublish takes a message. At QoS 1, ack sends the PUBACK: now, later or
	// never, from any goroutine. It may wait for a slow reader. An error ends the
	// connection.
	OnPublish(m Message, ack func()) error
	// OnPing says whether PINGREQ is answered.
	OnPing() bool
	// OnAck: the client has the message that Send gave this id.
	OnAck(id uint16)
	// OnClose is the last call.
	OnClose(e End)
}

// A Code is what a CONNACK says.
type Code byte

const (
	Accepted       Code = packets.Accepted
	BadVersion     Code = packets.ErrRefusedBadProtocolVersion
	BadClientID    Code = packets.ErrRefusedIDRejected
	Unavailable    Code = packets.ErrRefusedServerUnavailable
	BadCredentials Code = packets.ErrRefusedBadUsernameOrPassword
	NotAuthorized  Code = packets.ErrRefusedNotAuthorised
)

// Codes that are no CONNACK's.
const (
	HangUp Code = 254 // close at once, without CONNACK
	Mute   Code = 255 // say nothing, ever, and let the client wait
)

// Not a QoS, in the answer to OnSubscribe.
const (
	Refused    = 0x80 // the filter was not taken, and the SUBACK says so
	Unanswered = 0xff // no SUBACK
)

// Connect is what a client says of itself.
type Connect struct {
	ClientID, Username, Password string // absent: empty
	Clean                        bool
	KeepAlive                    time.Duration
	Will                         *Message // nil: none
}

// String names the client without its password.
func (c Connect) String() string {
	return fmt.Sprintf("connect{%q as %q, clean %t, keep-alive %v}", c.ClientID, c.Username, c.Clean, c.KeepAlive)
}

// Format keeps every verb of package fmt from printing the password.
func (c Connect) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue keeps slog from printing the password.
func (c Connect) LogValue() slog.Value { return slog.StringValue(c.String()) }

// A Message is a PUBLISH, or a will.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte // 0 or 1
	Retain  bool
	Dup     bool // coming in: the client sent it before
}

// An End says how a connection ended.
type End struct {
	Cause    error    // nil: DISCONNECT
	Graceful bool     // DISCONNECT came
	Will     *Message // to publish now; nil: none, or DISCONNECT came
}

var (
	// ErrProtocol: the client sent what MQTT 3.1.1 or this server forbids.
	ErrProtocol = errors.New("mqtt: protocol violation")
	// ErrSilent: nothing came for 1.5 x keep-alive, or no CONNECT in time.
	ErrSilent = errors.New("mqtt: nothing from the client in time")
	// ErrRefused: OnConnect did, or the CONNECT was answered with a code.
	ErrRefused = errors.New("mqtt: connection refused")
	// ErrClosed: the connection has ended, or has not begun.
	ErrClosed = errors.New("mqtt: connection closed")
	// ErrWindow: too many messages wait for their PUBACK.
	ErrWindow = errors.New("mqtt: the client has not acknowledged enough")
	// ErrBacklog: the client does not read what was sent before.
	ErrBacklog = errors.New("mqtt: the client does not read")
	// ErrCut: SendHalf ended the connection.
	ErrCut = errors.New("mqtt: connection cut in the middle of a PUBLISH")
)
