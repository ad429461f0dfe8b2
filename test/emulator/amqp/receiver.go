package amqp

const (
	defaultCredit     = 100
	defaultMaxMessage = 1 << 20
)

// A Receiver is a link on which the peer sends. The handler may set it up in
// Handler.Receive.
type Receiver struct {
	link
	inlet         Inlet
	limit         uint32 // of what is granted and what is not settled, together
	credit        uint32 // granted and not used
	unsettled     uint32 // delivered and without an outcome
	deliveryCount uint32
	partial       *Delivery
}

// A Delivery is a message that came. Its fields must not be changed.
type Delivery struct {
	Message *Message
	Tag     []byte
	Settled bool // by the peer, at once: it wants no outcome

	r       *Receiver
	id      uint32
	payload []byte
	first   bool // our outcome settles
	told    bool // it has an outcome, or needs none
}

func newReceiver(l link, p *attach) *Receiver {
	l.maxMessage = defaultMaxMessage
	r := &Receiver{link: l, limit: defaultCredit}
	if p.initialDeliveryCount != nil {
		r.deliveryCount = *p.initialDeliveryCount
	}
	return r
}

// Address returns where the peer wants to send.
func (r *Receiver) Address() string { return address(r.target) }

// SetMaxMessageSize bounds the peer's messages, all sections together; 0: no bound.
// A larger one ends the link. Not called: 1 MiB. It counts in Handler.Receive only,
// as the ATTACH tells it to the peer.
func (r *Receiver) SetMaxMessageSize(bytes uint64) {
	r.s.c.mu.Lock()
	defer r.s.c.mu.Unlock()
	r.maxMessage = bytes
}

// SetCredit bounds the messages on their way and not settled; 0 stops the peer, once
// it has used what it has. Not called: 100.
func (r *Receiver) SetCredit(n uint32) {
	r.s.c.mu.Lock()
	defer r.s.c.mu.Unlock()
	r.limit = n
	r.grant()
}

// grant tops the credit up when half is used.
func (r *Receiver) grant() {
	if r.state != attached || r.unsettled >= r.limit || r.credit > r.limit/2 || r.credit == r.limit-r.unsettled {
		return
	}
	if room := r.limit - r.unsettled; room > r.credit {
		r.credit = room
		r.s.sendFlow(r)
	}
}

func (r *Receiver) flow(p *flow) {
	if p != nil && p.deliveryCount != nil {
		// A peer that has nothing to send may give credit back by counting on.
		if skipped := *p.deliveryCount - r.deliveryCount; skipped <= r.credit {
			r.credit -= skipped
			r.deliveryCount = *p.deliveryCount
		}
	}
	r.grant()
}

func (r *Receiver) describe(f *flow) {
	f.handle, f.deliveryCount, f.linkCredit = &r.handle, &r.deliveryCount, &r.credit
}

// transfer takes one frame of a message.
func (r *Receiver) transfer(p *transfer, payload []byte) {
	d := r.partial
	switch {
	case d == nil && p.deliveryID == nil:
		r.detach(errorf(CondInvalidField, "first transfer of a delivery without an id"))
		return
	case d == nil && r.s.received[*p.deliveryID] != nil:
		r.detach(errorf(CondInvalidField, "delivery id %d is in use", *p.deliveryID))
		return
	case d == nil && r.credit == 0:
		r.detach(errorf(CondTransferLimit, "transfer without credit"))
		return
	case d == nil:
		r.credit--
		r.deliveryCount++
		d = &Delivery{r: r, id: *p.deliveryID, Tag: p.deliveryTag, first: r.rcvMode == modeRcvFirst}
		r.partial = d
	case p.deliveryID != nil && *p.deliveryID != d.id:
		r.detach(errorf(CondInvalidField, "delivery id %d amid delivery %d", *p.deliveryID, d.id))
		return
	}
	if p.rcvSettleMode != nil && *p.rcvSettleMode == modeRcvFirst {
		d.first = true
	}
	d.Settled = d.Settled || p.settled != nil && *p.settled
	d.payload = append(d.payload, payload...)
	if r.maxMessage > 0 && uint64(len(d.payload)) > r.maxMessage {
		r.detach(errorf(CondMessageSizeExceeded, "the message is larger than %d bytes", r.maxMessage))
		return
	}
	if p.more && !p.aborted {
		return
	}
	r.partial = nil
	if p.aborted {
		r.grant()
		return
	}
	r.complete(d)
}

func (r *Receiver) complete(d *Delivery) {
	d.told = d.Settled
	if !d.Settled {
		r.unsettled++
		r.s.received[d.id] = d
	}
	d.Message = new(Message)
	err := d.Message.UnmarshalBinary(d.payload)
	d.payload = nil
	if err != nil {
		d.settle(Rejected{errorf(CondDecode, "%v", err)})
		return
	}
	r.s.c.post(func() { r.inlet.Deliver(d) })
	r.grant()
}

// Receiver returns the link that the message came on.
func (d *Delivery) Receiver() *Receiver { return d.r }

// Settle tells the peer what became of the message. Only the first call counts. It
// does nothing if the peer wants no outcome, or if the link has ended.
func (d *Delivery) Settle(o Outcome) {
	d.r.s.c.mu.Lock()
	defer d.r.s.c.mu.Unlock()
	d.settle(o)
}

func (d *Delivery) settle(o Outcome) {
	r := d.r
	if d.told || r.state != attached || r.s.c.over || r.s.c.closing {
		return
	}
	d.told = true
	r.unsettled--
	if d.first {
		delete(r.s.received, d.id)
	}
	r.s.send(&disposition{role: roleReceiver, first: d.id, last: &d.id, settled: d.first, state: o.state()}, nil)
	r.grant()
}

// settledByPeer is the end of a delivery, with or without our outcome.
func (d *Delivery) settledByPeer() {
	delete(d.r.s.received, d.id)
	if !d.told {
		d.told = true
		d.r.unsettled--
		d.r.grant()
	}
}

func (r *Receiver) lost(err error) {
	for id, d := range r.s.received {
		if d.r == r {
			delete(r.s.received, id)
		}
	}
	r.partial = nil
	r.s.c.post(func() { r.inlet.Detached(err) })
}
