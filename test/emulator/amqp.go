package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"websocketbridge/test/emulator/amqp"
)

// An amqpConn is one AMQP connection, of a service or of devices: with CBS one
// connection may carry many. Package amqp calls it from one goroutine.
type amqpConn struct {
	h    *Hub
	ctx  context.Context // ends with the connection
	stop context.CancelFunc
	tls  *tls.ConnectionState
	work sync.WaitGroup // what serves links besides package amqp
	cbs  cbsAnswers     // only package amqp's goroutine

	// Hub.mu guards what follows. The hub's lock comes before package amqp's, which
	// holds none when it calls us.
	conn    *amqp.Conn             // nil before Open
	links   map[*amqpLink]struct{} // all but those of $cbs
	service claim
	claims  map[identity]*claim
	devices map[identity]*amqpDevice
	ended   bool
}

// An amqpLink is a link that an action or the end of a token may end.
type amqpLink struct {
	address amqpAddress
	detach  func(*amqp.Error)
}

// serveAMQP serves one AMQP connection, of TLS or of a WebSocket. Faults of the
// connection as a whole are those in force when it comes.
func (h *Hub) serveAMQP(ctx context.Context, c net.Conn, state *tls.ConnectionState) {
	ctx, cancel := context.WithCancel(ctx)
	ac := &amqpConn{
		h: h, ctx: ctx, stop: cancel, tls: state, links: make(map[*amqpLink]struct{}),
		claims: make(map[identity]*claim), devices: make(map[identity]*amqpDevice),
	}
	faults := h.Faults().AMQP
	server := amqp.NewServer(amqp.Config{HandshakeTimeout: h.cfg.HandshakeTimeout})
	server.SetOmitNextIncomingID(faults.FlowWithoutNextIncomingID)
	switch faults.SASL {
	case "required":
		server.SetSASL(amqp.SASLRequired)
	case "refused":
		server.SetSASL(amqp.SASLRefused)
	}
	unwatch := h.watch(ac.act)
	err := server.ServeConn(ctx, c, ac)
	unwatch()
	cancel()
	ac.work.Wait()
	if err != nil {
		h.log.Debug("AMQP connection ended", "reason", err)
	}
}

// Login implements amqp.Handler. Only PLAIN proves anything: after the other
// mechanisms CBS or the TLS certificate do.
func (ac *amqpConn) Login(l amqp.Login) error {
	if l.Mechanism != "PLAIN" {
		return nil
	}
	if err := ac.loginPlain(l.User, l.Password); err != nil {
		return errors.New(err.Message) // the peer learns no more than "no"
	}
	return nil
}

// Open implements amqp.Handler.
func (ac *amqpConn) Open(c *amqp.Conn, _ amqp.Peer) error {
	ac.h.mu.Lock()
	ac.conn = c
	ac.h.mu.Unlock()
	if ac.h.strikes(func(f *Faults) *Trigger { return f.AMQP.HalfOpen }, "") {
		c.Freeze()
	}
	return nil
}

// Receive implements amqp.Handler: the peer wants to send.
func (ac *amqpConn) Receive(r *amqp.Receiver) (amqp.Inlet, error) {
	a := parseAddress(r.Address())
	if a.kind == addressCBS {
		return cbsInlet{ac}, nil
	}
	if err := ac.attachFault(r.Address()); err != nil {
		return nil, err
	}
	var in amqp.Inlet
	var err *hubError
	link := &amqpLink{a, r.Detach}
	switch a.kind {
	case addressC2D:
		err = ac.needService()
		in = &c2dInlet{ac: ac, link: link}
	case addressEvents, addressDeviceMethods:
		in, err = ac.deviceInlet(link)
	default:
		err = errAddress(r.Address())
	}
	if err != nil {
		return nil, amqpError(err)
	}
	r.SetMaxMessageSize(maxEvent) // for C2D the hub itself judges, on the live link
	if ac.h.strikes(func(f *Faults) *Trigger { return f.AMQP.Credit }, a.id.Device) {
		r.SetCredit(0)
	}
	ac.add(link)
	return in, nil
}

// Send implements amqp.Handler: the peer wants to receive.
func (ac *amqpConn) Send(s *amqp.Sender) (amqp.Outlet, error) {
	a := parseAddress(s.Address())
	if a.kind == addressCBS {
		return ac.cbs.attach(s), nil
	}
	if err := ac.attachFault(s.Address()); err != nil {
		return nil, err
	}
	var out amqp.Outlet
	var err *hubError
	link := &amqpLink{a, s.Detach}
	switch a.kind {
	case addressFeedback:
		if err = ac.needService(); err == nil {
			out = ac.newFeedbackOutlet(s, link)
		}
	case addressFiles: // there are no uploads, so nothing ever comes
		err = ac.needService()
		out = silentOutlet{ac, link}
	case addressDeviceC2D, addressDeviceMethods:
		out, err = ac.deviceOutlet(s, link)
	default:
		err = errAddress(s.Address())
	}
	if err != nil {
		return nil, amqpError(err)
	}
	ac.add(link)
	return out, nil
}

// Closed implements amqp.Handler.
func (ac *amqpConn) Closed(error) {
	ac.h.mu.Lock()
	ac.ended = true
	ac.h.cancel(ac.service.alarm)
	devices := ac.devices
	ac.devices = nil
	ac.h.mu.Unlock()
	for _, d := range devices {
		d.at.detach()
	}
	ac.stop()
}

func (ac *amqpConn) add(l *amqpLink) {
	ac.h.mu.Lock()
	defer ac.h.mu.Unlock()
	ac.links[l] = struct{}{}
}

func (ac *amqpConn) remove(l *amqpLink) {
	ac.h.mu.Lock()
	defer ac.h.mu.Unlock()
	delete(ac.links, l)
}

// attachFault says how a fault answers an attach.
func (ac *amqpConn) attachFault(address string) error {
	h := ac.h
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.faults.AMQP.Link
	if f == nil || !containsFold(address, f.Address) || !h.strikeLocked(&f.Trigger, parseAddress(address).id.Device) {
		return nil
	}
	e := errUnavailable()
	if f.Condition != "" {
		e.Condition = f.Condition
	}
	if f.Description != "" {
		e.Message = f.Description
	}
	return &amqp.Error{Condition: amqp.Symbol(e.Condition), Description: e.Message}
}

// act does the actions that are AMQP's.
func (ac *amqpConn) act(a Action) {
	e := &amqp.Error{Condition: amqp.Symbol(a.Condition), Description: a.Description}
	ac.h.mu.Lock()
	defer ac.h.mu.Unlock()
	switch {
	case a.Do == "detach":
		if e.Condition == "" {
			e.Condition = conditionDetachForced
		}
		if e.Description == "" {
			e.Description = errUnavailable().Message
		}
		for l := range ac.links {
			l.detach(e)
		}
	case a.Do == "close" && ac.conn != nil:
		if e.Condition == "" {
			e.Condition = amqp.CondConnectionForced
		}
		ac.conn.CloseWith(e)
	}
}

// amqpError is an error on the wire: what it is in the condition, the rest as JSON
// in the description.
func amqpError(err *hubError) *amqp.Error {
	return &amqp.Error{
		Condition: amqp.Symbol(err.Condition), Description: err.describe(),
		// Seen in azure-iot-sdk-c #210; what it is for nobody says.
		Info: amqp.Map{{Key: amqp.Symbol("com.microsoft:is-filtered"), Value: true}},
	}
}

// silentOutlet is a link on which nothing comes.
type silentOutlet struct {
	ac   *amqpConn
	link *amqpLink
}

func (silentOutlet) Credit()          {}
func (o silentOutlet) Detached(error) { o.ac.remove(o.link) }
