package amqp

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Config of a Server. Zero values are what IoT Hub's gateway says in its OPEN.
type Config struct {
	ContainerID      string        // "": DeviceGateway
	MaxFrameSize     uint32        // bytes; 0: 65535; at least 512
	ChannelMax       uint16        // highest channel number; 0: 1024
	HandleMax        uint32        // highest handle of a session; 0: 255
	Window           uint32        // frames the peer may send ahead in a session; 0: 5000
	IdleTimeout      time.Duration // silence that ends a connection, advertised; 0: 240 s
	HandshakeTimeout time.Duration // for headers, SASL and OPEN together; 0: 30 s
	CloseTimeout     time.Duration // for the peer's answer to our CLOSE; 0: 5 s
	Mechanisms       []Symbol      // of SASL, as offered; nil: PLAIN ANONYMOUS MSSBCBS EXTERNAL
	FirstID          uint32        // of transfers and deliveries out; 0: 0. Close to 1<<32 it shows a peer that cannot wrap around.
}

func (c Config) withDefaults() Config {
	set := func(v *uint32, to uint32) {
		if *v == 0 {
			*v = to
		}
	}
	wait := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	if c.ContainerID == "" {
		c.ContainerID = "DeviceGateway"
	}
	set(&c.MaxFrameSize, 65535)
	c.MaxFrameSize = max(c.MaxFrameSize, minMaxFrameSize)
	if c.ChannelMax == 0 {
		c.ChannelMax = 1024
	}
	set(&c.HandleMax, 255)
	set(&c.Window, 5000)
	wait(&c.IdleTimeout, 240*time.Second)
	wait(&c.HandshakeTimeout, 30*time.Second)
	wait(&c.CloseTimeout, 5*time.Second)
	if c.Mechanisms == nil {
		c.Mechanisms = []Symbol{"PLAIN", "ANONYMOUS", "MSSBCBS", "EXTERNAL"}
	}
	return c
}

// A SASLMode is what the server makes of a peer that does, or does not, begin with
// SASL.
type SASLMode int32

const (
	SASLOptional SASLMode = iota // both are fine, as on IoT Hub
	SASLRequired                 // a plain header is answered with the SASL one, and closed
	SASLRefused                  // the other way round
)

// A Server holds what its connections share. Make one with NewServer.
type Server struct {
	cfg      Config
	omitNext atomic.Bool
	sasl     atomic.Int32
}

// NewServer starts nothing.
func NewServer(cfg Config) *Server { return &Server{cfg: cfg.withDefaults()} }

// SetOmitNextIncomingID says whether FLOW frames from now on leave out the
// next-incoming-id, as some of IoT Hub's gateways do although the standard demands
// it. Clients that insist on the field end the session.
func (s *Server) SetOmitNextIncomingID(omit bool) { s.omitNext.Store(omit) }

// SetSASL applies to connections accepted from now on.
func (s *Server) SetSASL(m SASLMode) { s.sasl.Store(int32(m)) }

// A Handler decides for one connection. An error that is an *Error goes to the peer
// as it is, any other as amqp:internal-error.
type Handler interface {
	// Login judges a SASL-INIT; an error says no to the peer, and not why. Peers
	// without SASL never come here.
	Login(Login) error
	// Open judges the OPEN. The connection may be kept, to end it one day.
	Open(*Conn, Peer) error
	// Receive judges a link on which the peer sends. Its address is the target's.
	Receive(*Receiver) (Inlet, error)
	// Send judges a link on which the peer receives. Its address is the source's.
	Send(*Sender) (Outlet, error)
	// Closed comes last, after Detached of every link. It is called once if Login or
	// Open was. err is nil after a CLOSE without an error.
	Closed(err error)
}

// An Inlet takes what comes on a Receiver.
type Inlet interface {
	// Deliver takes a message. Somebody must Settle it, now or later.
	Deliver(*Delivery)
	// Detached comes once, when the link has ended. err is nil if the peer detached
	// without an error.
	Detached(err error)
}

// An Outlet watches over a Sender.
type Outlet interface {
	// Credit comes when the peer granted credit, and when it drains: then what is
	// not pushed before Credit returns finds no credit.
	Credit()
	// Detached is as for an Inlet.
	Detached(err error)
}

// A Login is a SASL-INIT.
type Login struct {
	Mechanism Symbol
	User      string // of PLAIN; the authentication identity
	Password  string // of PLAIN; a secret
}

// A Peer is what the OPEN of the other side says.
type Peer struct {
	ContainerID  string
	Hostname     string
	MaxFrameSize uint32
	ChannelMax   uint16
	IdleTimeout  time.Duration // 0: none
	Properties   Map
}

// asError turns what a handler returned into what goes on the wire.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Condition: CondInternal, Description: err.Error()}
}

// isTimeout says whether a deadline passed.
func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
