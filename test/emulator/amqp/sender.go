package amqp

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
)

// Errors of Sender.Push, Ready and Send.
var (
	ErrNoCredit = errors.New("amqp: the peer has granted no credit") // Push only
	ErrDetached = errors.New("amqp: the link has ended")
	ErrTooLarge = errors.New("amqp: the message is larger than the peer takes")
)

// A Sender is a link on which the peer receives.
type Sender struct {
	link
	outlet        Outlet
	credit        uint32
	deliveryCount uint32
	drain         bool
	waiting       int           // pushed and not sent to the end
	tags          uint64        // of deliveries
	changed       chan struct{} // closed when credit comes or the link ends
}

// An outgoing delivery.
type outgoing struct {
	sender  *Sender
	id      uint32
	begun   bool
	tag     []byte
	payload []byte // what is left
	done    func(Outcome)
}

func newSender(l link, p *attach) *Sender {
	l.maxMessage = p.maxMessageSize
	return &Sender{link: l, deliveryCount: l.s.c.server.cfg.FirstID, changed: make(chan struct{})}
}

// Address returns where the peer wants to receive from.
func (s *Sender) Address() string { return address(s.source) }

// Push queues a message, which takes one credit. done, if not nil, is called once, on
// the connection's goroutine: with the peer's outcome, or with nil if the link ended
// without one. The errors are ErrNoCredit, ErrDetached, ErrTooLarge, or that the
// message cannot be encoded; then done is not called.
func (s *Sender) Push(m *Message, done func(Outcome)) error {
	payload, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	s.s.c.mu.Lock()
	defer s.s.c.mu.Unlock()
	switch {
	case s.state > attached || s.s.c.over || s.s.c.closing:
		return ErrDetached
	case s.state == attaching || s.credit == 0:
		return ErrNoCredit
	case s.maxMessage > 0 && uint64(len(payload)) > s.maxMessage:
		return ErrTooLarge
	}
	s.credit--
	s.deliveryCount++
	s.waiting++
	s.tags++
	s.s.queue = append(s.s.queue, &outgoing{sender: s, tag: binary.BigEndian.AppendUint64(nil, s.tags), payload: payload, done: done})
	s.s.pump()
	return nil
}

// Credit returns how many messages Push would take now.
func (s *Sender) Credit() uint32 {
	s.s.c.mu.Lock()
	defer s.s.c.mu.Unlock()
	return s.credit
}

// Ready waits for credit. The errors are ErrDetached and the context's.
func (s *Sender) Ready(ctx context.Context) error {
	for {
		s.s.c.mu.Lock()
		state, credit, changed := s.state, s.credit, s.changed
		s.s.c.mu.Unlock()
		switch {
		case state > attached:
			return ErrDetached
		case state == attached && credit > 0:
			return nil
		}
		select {
		case <-changed:
		case <-s.s.c.done:
			return ErrDetached
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Send waits for credit, pushes and waits for the outcome. After the context has
// ended, the message may be on its way all the same. Not to be called by the methods
// of a Handler, Inlet or Outlet.
func (s *Sender) Send(ctx context.Context, m *Message) (Outcome, error) {
	outcome := make(chan Outcome, 1)
	for {
		if err := s.Ready(ctx); err != nil {
			return nil, err
		}
		err := s.Push(m, func(o Outcome) { outcome <- o })
		if err == nil {
			break
		}
		if err != ErrNoCredit { // somebody else took it
			return nil, err
		}
	}
	select {
	case o := <-outcome:
		if o == nil {
			return nil, ErrDetached
		}
		return o, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// pump sends what the peer's window and our own buffer have room for.
func (s *session) pump() {
	if s.ended || s.c.closing || s.c.over {
		return
	}
	for len(s.queue) > 0 && s.remoteWindow > 0 && len(s.c.out) < highWater {
		d := s.queue[0]
		if !d.begun {
			d.begun = true
			d.id = s.nextDeliveryID
			s.nextDeliveryID++
			s.unsettled[d.id] = d
		}
		if s.sendPart(d) {
			s.queue = s.queue[1:]
			d.sender.sent(d)
		}
	}
}

// sendPart sends one frame and says whether it was the last of the delivery.
func (s *session) sendPart(d *outgoing) (last bool) {
	settled, format := d.sender.sndMode == modeSettled, uint32(0)
	p := &transfer{handle: d.sender.handle, deliveryID: &d.id, deliveryTag: d.tag, messageFormat: &format, settled: &settled, more: true}
	if d.tag == nil {
		p.deliveryID, p.messageFormat = nil, nil // not the first frame
	}
	head, err := appendFrame(nil, frame{body: p})
	if err != nil {
		panic(err) // all fields are ours
	}
	n := min(len(d.payload), int(s.c.maxFrame)-len(head))
	p.more = n < len(d.payload)
	s.send(p, d.payload[:n])
	d.payload, d.tag = d.payload[n:], nil
	s.nextOutgoingID++
	s.remoteWindow--
	return !p.more
}

// sent is called when a delivery went to its end.
func (s *Sender) sent(d *outgoing) {
	s.waiting--
	if s.sndMode == modeSettled {
		delete(s.s.unsettled, d.id)
		d.tell(Accepted{})
	}
	s.drained()
}

// tell reports the outcome; nil: none will come.
func (d *outgoing) tell(o Outcome) {
	if done := d.done; done != nil {
		d.done = nil
		d.sender.s.c.post(func() { done(o) })
	}
}

func (s *Sender) flow(p *flow) {
	if p == nil || p.linkCredit == nil {
		return
	}
	seen := s.s.c.server.cfg.FirstID // of a peer that had not seen our ATTACH
	if p.deliveryCount != nil {
		seen = *p.deliveryCount
	}
	s.credit = 0
	if pushed := s.deliveryCount - seen; pushed < *p.linkCredit {
		s.credit = *p.linkCredit - pushed
	}
	s.drain = p.drain
	close(s.changed)
	s.changed = make(chan struct{})
	s.s.c.post(func() {
		s.outlet.Credit()
		s.s.c.mu.Lock()
		defer s.s.c.mu.Unlock()
		s.drained()
	})
}

// drained gives back the credit that a draining peer wants used or gone.
func (s *Sender) drained() {
	if !s.drain || s.waiting > 0 || s.state != attached {
		return
	}
	s.deliveryCount += s.credit
	s.credit = 0
	s.s.sendFlow(s)
	s.drain = false
}

func (s *Sender) describe(f *flow) {
	available := uint32(s.waiting)
	f.handle, f.deliveryCount, f.linkCredit, f.available, f.drain = &s.handle, &s.deliveryCount, &s.credit, &available, s.drain
}

// defaultOutcome is that of a delivery settled without one. The peer may have named
// it; else nothing is known of the message, and it should be offered again.
func (s *Sender) defaultOutcome() Outcome {
	if len(s.source) > outcomeInTerms {
		if o, err := readOutcome(s.source[outcomeInTerms]); err == nil && o != nil {
			return o
		}
	}
	return Released{}
}

func (s *Sender) lost(err error) {
	ids := between(s.s.unsettled, s.s.nextDeliveryID, s.s.nextDeliveryID-1)
	for _, id := range ids {
		if d := s.s.unsettled[id]; d.sender == s {
			delete(s.s.unsettled, id)
			d.tell(nil)
		}
	}
	s.s.queue = slices.DeleteFunc(s.s.queue, func(d *outgoing) bool {
		if d.sender != s {
			return false
		}
		d.tell(nil)
		return true
	})
	s.credit, s.waiting = 0, 0
	close(s.changed)
	s.changed = make(chan struct{})
	s.s.c.post(func() { s.outlet.Detached(err) })
}
