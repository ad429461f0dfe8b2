package amqp

// Settle modes, as on the wire.
const (
	modeUnsettled  = 0 // of the sender: every delivery waits for an outcome
	modeSettled    = 1 // of the sender: none does
	modeMixed      = 2 // of the sender: as it likes
	modeRcvFirst   = 0 // of the receiver: its outcome settles
	modeRcvSecond  = 1 // of the receiver: the sender's answer to its outcome settles
	addressInTerms = 0 // field of a source or target
	outcomeInTerms = 8 // field default-outcome of a source
)

type linkState int

const (
	attaching linkState = iota // the handler is asked
	attached
	detaching // our DETACH went, the peer's is awaited
	detached
)

// An endpoint is a Receiver or a Sender. The connection's mu guards it.
type endpoint interface {
	base() *link
	flow(*flow)     // takes the peer's
	describe(*flow) // fills in ours
	lost(err error) // the link has ended
}

// link is what both kinds have in common.
type link struct {
	s              *session
	self           endpoint
	name           string
	handle         uint32
	state          linkState
	pendingDetach  *detach // asked for while attaching
	sndMode        uint8
	rcvMode        uint8
	source, target List
	properties     Map
	maxMessage     uint64 // of the one who receives; 0: no bound
}

func (l *link) base() *link { return l }

// Name returns the name that the peer gave the link.
func (l *link) Name() string { return l.name }

// Properties returns those of the peer's ATTACH. They must not be changed.
func (l *link) Properties() Map { return l.properties }

// Conn returns the link's connection.
func (l *link) Conn() *Conn { return l.s.c }

// Channel returns the number of the link's session.
func (l *link) Channel() uint16 { return l.s.channel }

// SettlesFirst says whether the receiving side's outcome settles a delivery; else the
// sending side confirms it.
func (l *link) SettlesFirst() bool { return l.rcvMode == modeRcvFirst }

// Detach ends the link; the error may be nil. The Inlet or Outlet hears of it, too.
func (l *link) Detach(e *Error) {
	l.s.c.mu.Lock()
	defer l.s.c.mu.Unlock()
	l.detach(e)
}

// DetachForced is Detach as a hub does it every few days, and when it moves the
// device.
func (l *link) DetachForced() {
	l.Detach(errorf(CondDetachForced, "Server Busy. Please retry operation"))
}

func (l *link) detach(e *Error) {
	p := &detach{handle: l.handle, closed: true, err: e}
	switch l.state {
	case attaching:
		if l.pendingDetach == nil {
			l.pendingDetach = p
		}
	case attached:
		l.s.send(p, nil)
		l.state = detaching
		var err error
		if e != nil {
			err = e
		}
		l.self.lost(err)
	}
}

// gone ends a link whose session is no more.
func (l *link) gone(err error) {
	was := l.state
	l.state = detached
	if was == attached {
		l.self.lost(err)
	}
}

func address(terminus List) string {
	if len(terminus) <= addressInTerms {
		return ""
	}
	a, _ := terminus[addressInTerms].(string)
	return a
}

// attach answers an ATTACH as the handler says. An error ends the connection.
func (s *session) attach(p *attach) error {
	if p.handle > s.handleMax {
		return errorf(CondFraming, "handle %d is above the maximum of %d", p.handle, s.handleMax)
	}
	if s.links[p.handle] != nil {
		s.end(errorf(CondHandleInUse, "handle %d is attached", p.handle))
		return nil
	}
	source, target, err := termini(p)
	if err != nil {
		return errorf(CondDecode, "%v", err)
	}
	s.steal(p)
	l := link{s: s, name: p.name, handle: p.handle, sndMode: modeMixed, source: source, target: target, properties: p.properties}
	if p.sndSettleMode != nil {
		l.sndMode = *p.sndSettleMode
	}
	if p.rcvSettleMode != nil {
		l.rcvMode = *p.rcvSettleMode
	}
	if l.sndMode > modeMixed || l.rcvMode > modeRcvSecond {
		return errorf(CondInvalidField, "settle mode %d or %d is unknown", l.sndMode, l.rcvMode)
	}
	answer := &attach{name: p.name, handle: p.handle, role: !p.role, sndSettleMode: &l.sndMode, rcvSettleMode: &l.rcvMode, source: p.source, target: p.target}
	var self endpoint
	var ask func() error
	if p.peerSends() {
		r := newReceiver(l, p)
		self = r
		ask = func() (err error) { r.inlet, err = s.c.h.Receive(r); return err }
	} else {
		sn := newSender(l, p)
		self = sn
		answer.initialDeliveryCount = &sn.deliveryCount
		ask = func() (err error) { sn.outlet, err = s.c.h.Send(sn); return err }
	}
	b := self.base()
	b.self = self
	s.links[p.handle] = self
	err = s.c.ask(ask)
	if s.c.closing {
		// The answer is our CLOSE, but who said yes is told of the end.
		if b.state = detaching; err == nil {
			b.state = attached
		}
		return nil
	}
	if err != nil {
		answer.source, answer.target = nil, nil
		s.send(answer, nil)
		s.send(&detach{handle: p.handle, closed: true, err: asError(err)}, nil)
		b.state = detaching
		return nil
	}
	b.state = attached
	if r, ok := self.(*Receiver); ok {
		answer.maxMessageSize = r.maxMessage
	}
	s.send(answer, nil)
	if b.pendingDetach != nil {
		b.detach(b.pendingDetach.err)
		return nil
	}
	self.flow(nil)
	return nil
}

// steal ends the link that the peer attaches anew under the same name.
func (s *session) steal(p *attach) {
	for _, l := range s.links {
		_, isReceiver := l.(*Receiver)
		if b := l.base(); b.name == p.name && isReceiver == p.peerSends() && b.state == attached {
			b.detach(errorf(CondStolen, "the link was attached anew"))
		}
	}
}

func termini(p *attach) (source, target List, err error) {
	if p.source != nil {
		if _, source, err = composite(p.source); err != nil {
			return nil, nil, err
		}
	}
	if p.target != nil {
		if _, target, err = composite(p.target); err != nil {
			return nil, nil, err
		}
	}
	return source, target, nil
}

// detach handles the peer's DETACH.
func (s *session) detach(p *detach) {
	l := s.find(p.handle)
	if l == nil {
		return
	}
	b := l.base()
	delete(s.links, p.handle)
	if b.state == attached {
		s.send(&detach{handle: p.handle, closed: p.closed}, nil)
		var err error
		if p.err != nil {
			err = p.err
		}
		l.lost(err)
	}
	b.state = detached
}
