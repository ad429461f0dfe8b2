package emulator

import (
	"fmt"
	"strings"

	"websocketbridge/test/emulator/amqp"
)

// ackProperty asks for feedback. It is the one application property that the hub
// reads.
const ackProperty = "iothub-ack"

// c2dInlet takes a service's messages to devices. A message that is refused leaves
// the link alive.
type c2dInlet struct {
	ac   *amqpConn
	link *amqpLink
}

// Deliver implements amqp.Inlet. Messages are queued in order, but where the hub
// shapes traffic, or a fault delays it: then each has a goroutine, as one that waits
// must not hold up the connection.
func (in *c2dInlet) Deliver(d *amqp.Delivery) {
	h := in.ac.h
	h.mu.Lock()
	slow := h.cfg.Throttle || h.faults.C2D != nil
	h.mu.Unlock()
	if slow {
		in.ac.work.Go(func() { in.take(d) })
	} else {
		in.take(d)
	}
}

func (in *c2dInlet) take(d *amqp.Delivery) {
	h := in.ac.h
	id, m, err := readC2D(d.Message)
	if err == nil {
		err = h.enqueueC2D(in.ac.ctx, id, m)
	} else {
		h.count(func(s *Stats) { s.MessagesRejected++ })
	}
	outcome, answered := c2dOutcome(err)
	switch {
	case err != nil && err.Close:
		in.ac.conn.Cut()
	case answered:
		if h.strikes(func(f *Faults) *Trigger { return f.AMQP.Cut }, id.Device) {
			in.ac.conn.Tear()
		}
		d.Settle(outcome)
	}
}

// Detached implements amqp.Inlet.
func (in *c2dInlet) Detached(error) { in.ac.remove(in.link) }

func c2dOutcome(err *hubError) (o amqp.Outcome, answered bool) {
	switch {
	case err == nil:
		return amqp.Accepted{}, true
	case err.Outcome == outcomeReleased:
		return amqp.Released{}, true
	case err.Outcome == outcomeModified:
		return amqp.Modified{DeliveryFailed: true}, true
	case err.Outcome == outcomeNone:
		return nil, false
	}
	return amqp.Rejected{Err: amqpError(err)}, true
}

// readC2D makes the hub's message of AMQP's.
func readC2D(in *amqp.Message) (id identity, out *c2dMessage, err *hubError) {
	p := in.Properties
	if p == nil || p.To == "" {
		return identity{}, nil, errArgument("The message has no property 'to'.")
	}
	to := parseAddress(p.To)
	if to.kind != addressDeviceC2D {
		return identity{}, nil, errArgument("The property 'to' is not /devices/{deviceId}/messages/devicebound.")
	}
	if in.Value != nil || in.Sequences != nil {
		return identity{}, nil, errArgument("The message's body is not a data section.")
	}
	out = &c2dMessage{
		UserID: string(p.UserID), ContentType: string(p.ContentType), ContentEncoding: string(p.ContentEncoding), To: p.To, Body: in.Body(),
	}
	var ok bool
	if out.ID, ok = idText(p.MessageID); !ok {
		return identity{}, nil, errArgument("The message-id is neither a string nor a UUID.")
	}
	if out.CorrelationID, ok = idText(p.CorrelationID); !ok {
		return identity{}, nil, errArgument("The correlation-id is neither a string nor a UUID.")
	}
	// amenzhinsky's library sends the year 1754 when it means none.
	if p.AbsoluteExpiryTime > 0 {
		out.Expiry = p.AbsoluteExpiryTime.Time()
	}
	for _, e := range in.ApplicationProperties {
		name, isText := e.Key.(string)
		value, isString := e.Value.(string)
		switch {
		case !isText || !isString && e.Value != nil:
			return identity{}, nil, errArgument("Application property '%v' is not a string.", e.Key)
		case strings.EqualFold(name, ackProperty):
			out.Ack = value
		case e.Value == nil:
			out.Properties = append(out.Properties, property{Name: name})
		default:
			out.Properties = append(out.Properties, property{name, &value})
		}
	}
	return to.id, out, nil
}

// idText is a message-id as the hub keeps it.
func idText(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case amqp.UUID:
		return v.String(), true
	case uint64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// writeC2D makes AMQP's message of the hub's, for a device.
func writeC2D(id identity, m *c2dMessage) *amqp.Message {
	to := "/devices/" + id.Device
	if id.Module != "" {
		to += "/modules/" + id.Module
	}
	p := &amqp.Properties{
		To: to + "/messages/devicebound", ContentType: amqp.Symbol(m.ContentType), ContentEncoding: amqp.Symbol(m.ContentEncoding),
		AbsoluteExpiryTime: amqp.TimestampOf(m.Expiry),
	}
	if m.ID != "" {
		p.MessageID = m.ID
	}
	if m.CorrelationID != "" {
		p.CorrelationID = m.CorrelationID
	}
	if m.UserID != "" {
		p.UserID = []byte(m.UserID)
	}
	out := &amqp.Message{
		Header:      &amqp.Header{DeliveryCount: uint32(m.Deliveries)},
		Annotations: amqp.Map{{Key: amqp.Symbol(feedbackEnqueued), Value: amqp.TimestampOf(m.Enqueued)}},
		Properties:  p, Data: [][]byte{m.Body},
	}
	if m.Ack != "" {
		out.ApplicationProperties = append(out.ApplicationProperties, amqp.Entry{Key: ackProperty, Value: m.Ack})
	}
	for _, prop := range m.Properties {
		e := amqp.Entry{Key: prop.Name}
		if prop.Value != nil {
			e.Value = *prop.Value
		}
		out.ApplicationProperties = append(out.ApplicationProperties, e)
	}
	return out
}
