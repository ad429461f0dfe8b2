package amqp

import (
	"slices"
)

// outgoingWindow that we advertise: we keep what we send until it fits the peer's
// window, so there is nothing to limit.
const outgoingWindow = 1<<32 - 1

// A session is the scope of handles, windows and delivery ids. Its connection's mu
// guards it. Both sides use the peer's channel number and handles.
type session struct {
	c       *Conn
	channel uint16
	ended   bool // our END went, for an error; what comes until the peer's is dropped

	nextIncomingID uint32
	incomingWindow uint32 // what the peer may still send
	received       map[uint32]*Delivery

	nextOutgoingID uint32
	remoteWindow   uint32 // what we may still send
	nextDeliveryID uint32
	queue          []*outgoing // not sent, or not to the end
	unsettled      map[uint32]*outgoing

	handleMax uint32
	links     map[uint32]endpoint
}

// begin answers a BEGIN.
func (c *Conn) begin(channel uint16, p *begin) error {
	switch {
	case channel > c.chanMax:
		return errorf(CondFraming, "channel %d is above the maximum of %d", channel, c.chanMax)
	case c.sessions[channel] != nil:
		return errorf(CondIllegalState, "second begin on channel %d", channel)
	case p.remoteChannel != nil:
		return errorf(CondInvalidField, "begin with a remote channel, but no begin was sent")
	}
	cfg := c.server.cfg
	s := &session{
		c: c, channel: channel, received: map[uint32]*Delivery{}, unsettled: map[uint32]*outgoing{}, links: map[uint32]endpoint{},
		nextIncomingID: p.nextOutgoingID, incomingWindow: cfg.Window,
		nextOutgoingID: cfg.FirstID, nextDeliveryID: cfg.FirstID, remoteWindow: p.incomingWindow,
		handleMax: cfg.HandleMax,
	}
	if p.handleMax != nil {
		s.handleMax = min(s.handleMax, *p.handleMax)
	}
	c.sessions[channel] = s
	s.send(&begin{remoteChannel: &channel, nextOutgoingID: s.nextOutgoingID, incomingWindow: s.incomingWindow, outgoingWindow: outgoingWindow, handleMax: &cfg.HandleMax}, nil)
	return nil
}

func (s *session) send(p performative, payload []byte) { s.c.sendFrame(s.channel, p, payload) }

// end ends the session with an error.
func (s *session) end(e *Error) {
	s.ended = true
	s.send(&end{e}, nil)
	s.drop(e)
}

// drop ends every link of a session that is no more.
func (s *session) drop(err error) {
	for _, l := range s.ordered() {
		l.base().gone(err)
	}
	s.queue = nil
	clear(s.links)
	clear(s.received)
}

// ordered returns the links by handle.
func (s *session) ordered() (out []endpoint) {
	for _, l := range s.links {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return int(int64(a.base().handle) - int64(b.base().handle)) })
	return out
}

// handle handles a frame. An error ends the connection.
func (s *session) handle(f frame) error {
	if p, ok := f.body.(*end); ok {
		if !s.ended {
			var err error
			if p.err != nil {
				err = p.err
			}
			s.drop(err)
			s.send(&end{}, nil)
		}
		delete(s.c.sessions, s.channel)
		return nil
	}
	if s.ended {
		return nil
	}
	switch p := f.body.(type) {
	case *attach:
		return s.attach(p)
	case *flow:
		s.flow(p)
	case *transfer:
		s.transfer(p, f.payload)
	case *disposition:
		return s.disposition(p)
	case *detach:
		s.detach(p)
	}
	return nil
}

// find returns the link of a handle. If there is none, it ends the session.
func (s *session) find(handle uint32) endpoint {
	l := s.links[handle]
	if l == nil {
		s.end(errorf(CondUnattachedHandle, "handle %d is not attached", handle))
	}
	return l
}

func (s *session) flow(p *flow) {
	// What the peer has not yet seen of ours takes room in its window.
	seen := s.c.server.cfg.FirstID
	if p.nextIncomingID != nil {
		seen = *p.nextIncomingID
	}
	s.remoteWindow = 0
	if unseen := s.nextOutgoingID - seen; unseen < p.incomingWindow {
		s.remoteWindow = p.incomingWindow - unseen
	}
	s.pump()
	if p.handle == nil {
		if p.echo {
			s.sendFlow(nil)
		}
		return
	}
	l := s.find(*p.handle)
	if l == nil || l.base().state > attached {
		return
	}
	l.flow(p)
	if p.echo && !p.drain {
		s.sendFlow(l)
	}
}

// sendFlow tells the peer our windows and, if l is not nil, how the link stands.
func (s *session) sendFlow(l endpoint) {
	f := &flow{incomingWindow: s.incomingWindow, nextOutgoingID: s.nextOutgoingID, outgoingWindow: outgoingWindow}
	if !s.c.server.omitNext.Load() {
		f.nextIncomingID = &s.nextIncomingID
	}
	if l != nil {
		l.describe(f)
	}
	s.send(f, nil)
}

func (s *session) transfer(p *transfer, payload []byte) {
	if s.incomingWindow == 0 {
		s.end(errorf(CondWindowViolation, "transfer beyond the incoming window"))
		return
	}
	s.incomingWindow--
	s.nextIncomingID++
	l := s.find(p.handle)
	if l == nil {
		return
	}
	r, ok := l.(*Receiver)
	if !ok {
		s.end(errorf(CondNotAllowed, "transfer on handle %d, whose sender is on this side", p.handle))
		return
	}
	if r.state == attached {
		r.transfer(p, payload)
	}
	if !s.ended && s.incomingWindow <= s.c.server.cfg.Window/2 {
		s.incomingWindow = s.c.server.cfg.Window
		s.sendFlow(nil)
	}
}

func (s *session) disposition(p *disposition) error {
	o, err := readOutcome(p.state)
	if err != nil {
		return errorf(CondDecode, "%v", err)
	}
	last := p.first
	if p.last != nil {
		last = *p.last
	}
	if p.bySender() {
		for _, id := range between(s.received, p.first, last) {
			if p.settled {
				s.received[id].settledByPeer()
			}
		}
		return nil
	}
	var answer *disposition
	for _, id := range between(s.unsettled, p.first, last) {
		d := s.unsettled[id]
		outcome := o
		if outcome == nil && p.settled {
			outcome = d.sender.defaultOutcome()
		}
		if outcome == nil {
			continue // received, so far
		}
		delete(s.unsettled, id)
		d.tell(outcome)
		if p.settled {
			continue
		}
		// The peer settles second: it waits for our word. That repeats its outcome, but
		// not the reason of a rejection: Service Bus does so, and Azure's library would
		// take the reason for ours.
		if _, ok := outcome.(Rejected); ok {
			outcome = Rejected{}
		}
		if answer != nil && *answer.last+1 == id {
			answer.last = &id
			continue
		}
		if answer != nil {
			s.send(answer, nil)
		}
		answer = &disposition{role: roleSender, first: id, last: &id, settled: true, state: outcome.state()}
	}
	if answer != nil {
		s.send(answer, nil)
	}
	return nil
}

// between returns the keys of m from first to last, in that order, where numbers wrap
// around. It looks at no more than m holds: a range may span billions.
func between[V any](m map[uint32]V, first, last uint32) (ids []uint32) {
	for id := range m {
		if id-first <= last-first {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint32) int { return int(int64(a-first) - int64(b-first)) })
	return ids
}
