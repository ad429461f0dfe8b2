package emulator

import (
	"crypto/tls"
	"fmt"
	"maps"
	"strings"
	"sync"

	"websocketbridge/test/emulator/mqtt"
)

// A mqttLink is one MQTT connection of an identity: package mqtt calls it for what
// the device sends, from one goroutine, and the hub for what it is to be sent,
// with the hub's lock held.
type mqttLink struct {
	h      *Hub
	tls    *tls.ConnectionState
	chores *chores

	// Set in OnConnect.
	id    identity
	conn  *mqtt.Conn
	at    *attachment
	clean bool   // the session ends with the connection
	will  *Event // nil: none

	// Only package mqtt's goroutine.
	greeted bool
	subs    map[string]byte // filters taken, with the QoS granted
	heard   [listens]bool   // what the hub was told

	mu        sync.Mutex // a leaf: nothing of the hub is called with it held
	messages  route      // guarded by mu, as are those below
	methodQoS byte
	flights   map[uint16]flight // QoS 1 messages without PUBACK, by packet ID
}

// A route is where cloud-to-device messages go.
type route struct {
	prefix string
	qos    byte
}

// A flight is a cloud-to-device message that the device has not acknowledged.
type flight struct {
	lock uint64
	m    *c2dMessage
	sent int // m.Sent when it was
}

// maxSubscriptions of one device, as IoT Hub has it.
const maxSubscriptions = 5

// OnSubscribe takes the hub's topics and no others: for those, and for a sixth
// subscription, IoT Hub closes the connection.
func (l *mqttLink) OnSubscribe(filter string, qos byte) (byte, error) {
	if _, _, err := parseFilter(l.id, filter); err != nil {
		return 0, err
	}
	if _, again := l.subs[filter]; !again && len(l.subs) >= maxSubscriptions {
		return 0, fmt.Errorf("subscribed %d times; IoT Hub allows %d", len(l.subs)+1, maxSubscriptions)
	}
	switch l.deaf(filter) {
	case "refuse":
		return mqtt.Refused, nil
	case "ignore":
		return mqtt.Unanswered, nil
	case "lie":
		return qos, nil
	}
	l.subs[filter] = qos
	l.save()
	return qos, nil
}

// deaf says how a fault spoils a subscription; "": not.
func (l *mqttLink) deaf(filter string) string {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	f := l.h.faults.MQTT.Deaf
	switch {
	case f == nil || !strings.Contains(filter, f.Filter) || !l.h.strikeLocked(&f.Trigger, l.id.Device):
		return ""
	case f.How == "":
		return "refuse"
	}
	return f.How
}

// OnUnsubscribe forgets a filter, known or not.
func (l *mqttLink) OnUnsubscribe(filter string) {
	delete(l.subs, filter)
	l.save()
	l.listen()
}

// resume takes the subscriptions of the identity's last connection, or, with
// CleanSession 1, forgets them. It says whether there were some to take.
func (l *mqttLink) resume() bool {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	switch {
	case l.at.dead: // the session is another connection's by now
		return false
	case l.clean:
		l.at.r.session = nil
		return false
	case l.at.r.session == nil:
		return false
	}
	l.subs = maps.Clone(l.at.r.session)
	return true
}

// save keeps the subscriptions for the next connection, if the device wants that:
// all of them, since Microsoft's SDK for Node.js renews its token by connecting
// again and subscribes to nothing then. test/clients/azure has it do so.
func (l *mqttLink) save() {
	if l.clean {
		return
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if !l.at.dead { // or the session is another connection's by now
		l.at.r.session = maps.Clone(l.subs)
	}
}

// listen tells the hub what the subscriptions come to.
func (l *mqttLink) listen() {
	var now [listens]bool
	var to route
	var methodQoS byte
	for filter, qos := range l.subs {
		switch kind, prefix, _ := parseFilter(l.id, filter); kind {
		case filterMessages:
			// Of two, one: the order of a map decides nothing.
			if !now[ListenMessages] || prefix < to.prefix {
				to = route{prefix, qos}
			}
			now[ListenMessages] = true
		case filterMethods:
			now[ListenMethods], methodQoS = true, qos
		case filterDesired:
			now[ListenDesired] = true
		}
	}
	l.mu.Lock()
	l.messages, l.methodQoS = to, methodQoS
	l.mu.Unlock()
	for what, does := range now {
		if does != l.heard[what] {
			l.at.listen(Listen(what), does)
		}
	}
	l.heard = now
}

// OnAck completes a message: with MQTT that is all a device can say.
func (l *mqttLink) OnAck(id uint16) {
	l.mu.Lock()
	f, ok := l.flights[id]
	delete(l.flights, id)
	l.mu.Unlock()
	if !ok || !l.at.complete(f.lock) {
		l.at.flow() // the window has room again
	}
}

// deliver implements deviceLink.
func (l *mqttLink) deliver(lock uint64, m *c2dMessage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.messages.prefix == "" {
		return false // an UNSUBSCRIBE of which the hub hears in a moment
	}
	for id, f := range l.flights {
		if f.m == m && f.sent < m.Sent { // the lock ended without a PUBACK
			if l.conn.Resend(id) != nil {
				return false // the PUBACK has just come, or there is no room
			}
			l.flights[id] = flight{lock, m, m.Sent}
			return true
		}
	}
	faults := &l.h.faults.MQTT
	out := mqtt.Message{
		Topic:   l.messages.prefix + encodeBag(messageProperties(l.id, m, faults.PropertiesFirst)),
		Payload: m.Body, QoS: l.messages.qos, Dup: l.messages.qos > 0 && m.Sent > 1,
	}
	if len(out.Topic) > 65535 {
		l.chores.add(0, func() { l.at.reject(lock) }) // it fits into no PUBLISH, ever
		return true
	}
	id, ok := l.publish(out)
	switch {
	case !ok:
		return false
	case out.QoS == 0: // sent is done
		l.chores.add(0, func() { l.at.complete(lock) })
		return true
	}
	l.flights[id] = flight{lock, m, m.Sent}
	if l.h.strikeLocked(faults.Duplicate, l.id.Device) {
		l.conn.Resend(id) // if there is no room the device has less to cope with
	}
	return true
}

// invoke implements deviceLink. Real requests are QoS 0. Without a payload it is
// null, since Microsoft's Node SDK parses what it gets.
func (l *mqttLink) invoke(rid, method string, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(payload) == 0 {
		payload = []byte("null")
	}
	qos := min(l.methodQoS, byte(l.h.faults.MQTT.MethodQoS))
	_, ok := l.publish(mqtt.Message{Topic: "$iothub/methods/POST/" + method + "/?$rid=" + rid, Payload: payload, QoS: qos})
	return ok
}

// desired implements deviceLink.
func (l *mqttLink) desired(version int64, patch []byte) bool {
	_, ok := l.publish(mqtt.Message{Topic: fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", version), Payload: patch})
	return ok
}

// publish sends, or, by a fault, sends half and dies. The caller holds the hub's
// lock.
func (l *mqttLink) publish(m mqtt.Message) (id uint16, ok bool) {
	if l.h.strikeLocked(l.h.faults.MQTT.Cut, l.id.Device) {
		return 0, l.conn.SendHalf(m) == nil
	}
	id, err := l.conn.Send(m)
	return id, err == nil
}

// close implements deviceLink.
func (l *mqttLink) close(cause error) { l.conn.Close(cause) }
