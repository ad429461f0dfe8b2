package emulator

import (
	"crypto/rand"
	"errors"
	"fmt"

	"websocketbridge/test/emulator/amqp"
)

// An amqpDevice is an identity that is connected over AMQP: it is once it attaches
// its first link. Unlike with MQTT, it can abandon and reject messages.
type amqpDevice struct {
	ac *amqpConn
	id identity
	at *attachment

	// Hub.mu guards what follows.
	messages *amqp.Sender // nil: not attached
	methods  *amqp.Sender
	calls    map[string]string // rids of methods, by correlation-id
}

// device returns the identity's, and takes the identity over if it is new here.
func (ac *amqpConn) device(id identity) (*amqpDevice, *hubError) {
	expiry, err := ac.deviceClaim(id)
	if err != nil {
		return nil, err
	}
	ac.h.mu.Lock()
	d := ac.devices[id]
	ac.h.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d = &amqpDevice{ac: ac, id: id, calls: make(map[string]string)}
	if d.at, err = ac.h.attach(id, d, expiry); err != nil {
		return nil, err
	}
	ac.h.mu.Lock()
	defer ac.h.mu.Unlock()
	if d.at.dead { // another connection was faster
		return nil, errEvicted()
	}
	ac.devices[id] = d
	return d, nil
}

// deviceInlet is for what a device sends.
func (ac *amqpConn) deviceInlet(link *amqpLink) (amqp.Inlet, *hubError) {
	d, err := ac.device(link.address.id)
	if err != nil {
		return nil, err
	}
	if link.address.kind == addressEvents {
		return eventsInlet{deviceLinkEnd{d, link}}, nil
	}
	return answersInlet{deviceLinkEnd{d, link}}, nil
}

// deviceOutlet is for what a device is sent.
func (ac *amqpConn) deviceOutlet(s *amqp.Sender, link *amqpLink) (amqp.Outlet, *hubError) {
	d, err := ac.device(link.address.id)
	if err != nil {
		return nil, err
	}
	o := &deviceOutlet{deviceLinkEnd: deviceLinkEnd{d, link}, s: s, what: ListenMessages}
	if link.address.kind == addressDeviceMethods {
		o.what = ListenMethods
	}
	return o, nil
}

// deviceLinkEnd is what all links of a device have.
type deviceLinkEnd struct {
	d    *amqpDevice
	link *amqpLink
}

func (e deviceLinkEnd) Detached(error) {
	ac := e.d.ac
	ac.remove(e.link)
	ac.h.mu.Lock()
	for l := range ac.links {
		if l.address.id == e.d.id {
			ac.h.mu.Unlock()
			return
		}
	}
	if ac.devices[e.d.id] == e.d {
		delete(ac.devices, e.d.id)
	}
	ac.h.mu.Unlock()
	e.d.at.detach() // that was the last
}

// eventsInlet takes telemetry.
type eventsInlet struct{ deviceLinkEnd }

// Deliver implements amqp.Inlet.
func (in eventsInlet) Deliver(m *amqp.Delivery) {
	if err := in.d.at.telemetry(readEvent(m.Message)); err != nil {
		m.Settle(amqp.Rejected{Err: amqpError(err)})
		return
	}
	m.Settle(amqp.Accepted{})
}

// readEvent makes an event of a message, with the names of MQTT's bag.
func readEvent(m *amqp.Message) Event {
	e := Event{Properties: make(map[string]string), Body: m.Body()}
	set := func(name, value string) {
		if value != "" {
			e.Properties[name] = value
		}
	}
	if p := m.Properties; p != nil {
		mid, _ := idText(p.MessageID)
		cid, _ := idText(p.CorrelationID)
		set("$.mid", mid)
		set("$.cid", cid)
		set("$.uid", string(p.UserID))
		set("$.ct", string(p.ContentType))
		set("$.ce", string(p.ContentEncoding))
	}
	for _, entry := range m.ApplicationProperties {
		if name, ok := entry.Key.(string); ok && entry.Value != nil {
			e.Properties[name] = fmt.Sprint(entry.Value)
		}
	}
	return e
}

// answersInlet takes a device's answers to direct methods.
type answersInlet struct{ deviceLinkEnd }

// Deliver implements amqp.Inlet.
func (in answersInlet) Deliver(m *amqp.Delivery) {
	d, h := in.d, in.d.ac.h
	v, _ := m.Message.ApplicationProperties.Get("IoThub-status")
	status, isInt := v.(int32)
	rid := ""
	if p := m.Message.Properties; p != nil {
		id, _ := idText(p.CorrelationID)
		h.mu.Lock()
		rid = d.calls[id]
		delete(d.calls, id)
		h.mu.Unlock()
	}
	if !isInt || !d.at.methodResult(rid, int(status), m.Message.Body()) {
		m.Settle(amqp.Rejected{Err: amqpError(errArgument("The answer of a direct method needs an IoThub-status of type int, and JSON."))})
		return
	}
	m.Settle(amqp.Accepted{})
}

// deviceOutlet sends messages, or requests of direct methods.
type deviceOutlet struct {
	deviceLinkEnd
	s       *amqp.Sender
	what    Listen
	greeted bool
}

// Credit implements amqp.Outlet. A device listens when it grants credit.
func (o *deviceOutlet) Credit() {
	if o.greeted {
		o.d.at.flow()
		return
	}
	o.greeted = true
	h := o.d.ac.h
	h.mu.Lock()
	*o.slot() = o.s
	h.mu.Unlock()
	o.d.at.listen(o.what, true)
}

func (o *deviceOutlet) slot() **amqp.Sender {
	if o.what == ListenMethods {
		return &o.d.methods
	}
	return &o.d.messages
}

// Detached implements amqp.Outlet.
func (o *deviceOutlet) Detached(err error) {
	h := o.d.ac.h
	h.mu.Lock()
	mine := *o.slot() == o.s
	if mine {
		*o.slot() = nil
	}
	h.mu.Unlock()
	if mine {
		o.d.at.listen(o.what, false)
	}
	o.deviceLinkEnd.Detached(err)
}

// deliver implements deviceLink.
func (d *amqpDevice) deliver(lock uint64, m *c2dMessage) bool {
	if d.messages == nil {
		return false
	}
	return d.messages.Push(writeC2D(d.id, m), func(o amqp.Outcome) {
		switch o.(type) {
		case amqp.Accepted:
			d.at.complete(lock)
		case amqp.Rejected:
			d.at.reject(lock)
		case amqp.Released, amqp.Modified:
			d.at.abandon(lock)
		}
		// Without an outcome the lock ends by itself, or with the connection.
	}) == nil
}

// invoke implements deviceLink.
func (d *amqpDevice) invoke(rid, method string, payload []byte) bool {
	if d.methods == nil {
		return false
	}
	var id amqp.UUID // of version 4: the Node SDK's answer has it as text if it is of none
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	if len(payload) == 0 {
		payload = []byte("null")
	}
	err := d.methods.Push(&amqp.Message{
		Properties:            &amqp.Properties{CorrelationID: id},
		ApplicationProperties: amqp.Map{{Key: "IoThub-methodname", Value: method}},
		Data:                  [][]byte{payload},
	}, nil)
	if err != nil {
		return false
	}
	if len(d.calls) >= maxAMQPCalls { // of those that were never answered
		clear(d.calls)
	}
	d.calls[id.String()] = rid
	return true
}

// maxAMQPCalls of a device that are kept for an answer.
const maxAMQPCalls = 1000

// desired implements deviceLink. The twin is not served over AMQP.
func (d *amqpDevice) desired(int64, []byte) bool { return false }

// close implements deviceLink. A connection of this device alone is cut; where others
// share it, the device's links end. A token that expired ends just them, too.
func (d *amqpDevice) close(cause error) {
	expired := errors.Is(cause, errExpired)
	alone := len(d.ac.devices) == 1 && d.ac.devices[d.id] == d && !d.ac.service.ok
	delete(d.ac.devices, d.id)
	if alone && !expired {
		hardClose(d.ac.conn.NetConn()) // Cut may say goodbye, which takes time
		return
	}
	e := amqpError(errEvicted())
	if expired {
		e = amqpError(errUnauthorized("Unauthorized: the token expired."))
	}
	for l := range d.ac.links {
		if l.address.id == d.id {
			l.detach(e)
		}
	}
}
