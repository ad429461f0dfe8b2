package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"websocketbridge/test/emulator/mqtt"
)

// What the hub does with MQTT; package mqtt has the protocol. Sources are in
// brackets: D is Microsoft's page "Communicate with an IoT hub using the MQTT
// protocol", S was seen in SDKs, ? is ours.
//
//	CONNECT      client id device or device/module; user name {hub}/{client id}/ and
//	             ?api-version=… or without ? [S], any version and parameters, a port
//	             after the hub's name [S]; password a token, or none with a
//	             certificate [D]. Refused with 5; an expired certificate and
//	             throttling close the socket [S].
//	takeover     a second connection of an identity closes the first [D].
//	SUBSCRIBE    devices/{d}/messages/devicebound/#, of modules devices/{d}/modules/{m}/#
//	             and …/inputs/#, $iothub/methods/POST/#, $iothub/twin/res/#,
//	             $iothub/twin/PATCH/properties/desired/# [D]. Others, and a sixth,
//	             close the connection [S].
//	messages     at the QoS of the SUBSCRIBE, at most 1 [D]; PUBACK completes [D].
//	             After 60 s without one the lock ends [D], and the same PUBLISH comes
//	             again with DUP [?]. CleanSession 0 keeps the subscription to
//	             messages [D] and no other [?]; CleanSession 1 gets what is queued at
//	             SUBSCRIBE [?; the page says: only what is sent after it].
//	methods      at QoS 0, null for no payload [S; the page: an empty body].
//	twin         answers and changes at QoS 0, answers only if subscribed to.
//	telemetry    devices/{d}/messages/events/{bag}; retain becomes mqtt-retain, and a
//	             will iothub-MessageType=Will [D]. QoS 2, other topics, a bad bag and
//	             more than 256 KB close the connection [D, S, ?, ?].
//
// IDs in topics and user names may be percent-encoded or not; topics to a device
// are spelled as its filter is.

// serveMQTT serves one MQTT connection, of TLS or of a WebSocket.
func (h *Hub) serveMQTT(ctx context.Context, c net.Conn, state *tls.ConnectionState) {
	l := &mqttLink{h: h, tls: state, chores: newChores(), subs: make(map[string]byte), flights: make(map[uint16]flight)}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.chores.run(done) })
	defer wg.Wait()
	defer close(done)
	err := mqtt.Serve(ctx, c, mqtt.Config{MaxPacket: maxEvent + 64<<10, ConnectTimeout: h.cfg.HandshakeTimeout}, l)
	if err != nil && !errors.Is(err, mqtt.ErrRefused) {
		h.log.Debug("MQTT connection ended", "device", l.id.Device, "module", l.id.Module, "reason", err)
	}
}

// OnConnect checks who comes, and takes the connection of that identity over.
func (l *mqttLink) OnConnect(c *mqtt.Conn, in mqtt.Connect) (mqtt.Code, bool) {
	code, present, reason := l.connect(c, in)
	if code != mqtt.Accepted {
		l.h.log.Debug("MQTT connection refused", "client", in.ClientID, "code", int(code), "reason", reason)
	}
	return code, present
}

func (l *mqttLink) connect(c *mqtt.Conn, in mqtt.Connect) (code mqtt.Code, present bool, reason string) {
	h := l.h
	id, bad := h.mqttIdentity(in.ClientID, in.Username)
	if bad != nil {
		h.count(func(s *Stats) { s.ConnectsRefused++ })
		return mqtt.NotAuthorized, false, bad.Error()
	}
	if code := h.connAckFault(id); code != mqtt.Accepted {
		return code, false, "told to by a fault"
	}
	expiry, err := h.checkDevice(id, in.Password, l.tls)
	if err != nil {
		return connectCode(err), false, err.String()
	}
	l.id, l.conn, l.clean = id, c, in.Clean
	if l.will, bad = willOf(id, in.Will); bad != nil {
		h.log.Debug("will ignored", "device", id.Device, "module", id.Module, "reason", bad)
	}
	if l.at, err = h.attach(id, l, expiry); err != nil {
		return connectCode(err), false, err.String()
	}
	if present = l.resume(); !present {
		l.save()
	}
	return mqtt.Accepted, present, ""
}

// connectCode is what a device sees of an error: mostly that it is not welcome.
func connectCode(err *hubError) mqtt.Code {
	switch {
	case err.Close || err.Status == 429: // MQTT's throttling is a closed connection: azure-iot-sdk-c #1766
		return mqtt.HangUp
	case err.Status >= 500:
		return mqtt.Unavailable
	}
	return mqtt.NotAuthorized
}

// connAckFault is Accepted without a fault.
func (h *Hub) connAckFault(id identity) mqtt.Code {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.faults.MQTT
	if h.strikeLocked(f.ConnAckMute, id.Device) {
		return mqtt.Mute
	}
	if f.ConnAck != nil && h.strikeLocked(&f.ConnAck.Trigger, id.Device) {
		if f.ConnAck.Code == 0 {
			return mqtt.Unavailable
		}
		return mqtt.Code(f.ConnAck.Code)
	}
	return mqtt.Accepted
}

// willOf makes the telemetry of a will. It goes where telemetry goes; one with
// another topic is ignored.
func willOf(id identity, will *mqtt.Message) (*Event, error) {
	if will == nil {
		return nil, nil
	}
	t, err := parseTopic(id, will.Topic)
	if err != nil {
		return nil, err
	}
	if t.kind != topicEvents {
		return nil, fmt.Errorf("%.100q is no topic of telemetry", will.Topic)
	}
	e := eventOf(t, *will)
	e.Properties["iothub-MessageType"] = "Will"
	return &e, nil
}

// eventOf makes an event of a message. Nothing is retained: IoT Hub passes the
// flag on as a property.
func eventOf(t mqttTopic, m mqtt.Message) Event {
	e := Event{Properties: make(map[string]string), Body: m.Payload}
	for _, p := range t.properties {
		e.Properties[p.Name] = ""
		if p.Value != nil {
			e.Properties[p.Name] = *p.Value
		}
	}
	if m.Retain {
		e.Properties["mqtt-retain"] = "true"
	}
	return e
}

// OnReady starts what flows because of subscriptions, those of an older session
// too.
func (l *mqttLink) OnReady() {
	if !l.greeted {
		l.greeted = true
		if l.h.strikes(func(f *Faults) *Trigger { return f.MQTT.HalfOpen }, l.id.Device) {
			l.conn.Freeze()
		}
	}
	l.listen()
}

// OnClose sends the will and lets go of the identity.
func (l *mqttLink) OnClose(e mqtt.End) {
	if e.Will != nil && l.will != nil {
		l.at.lastWill(*l.will)
	}
	l.at.detach()
}

// OnPing notes that the device lives.
func (l *mqttLink) OnPing() bool {
	l.at.active()
	return !l.h.strikes(func(f *Faults) *Trigger { return f.MQTT.PingMute }, l.id.Device)
}

// OnPublish takes telemetry, answers of methods, and requests about the twin.
func (l *mqttLink) OnPublish(m mqtt.Message, ack func()) error {
	t, err := parseTopic(l.id, m.Topic)
	if err != nil {
		return err
	}
	switch t.kind {
	case topicEvents:
		if err := l.at.telemetry(eventOf(t, m)); err != nil {
			return errors.New(err.String())
		}
	case topicMethod:
		if !l.at.methodResult(t.rid, t.status, m.Payload) {
			return errors.New("answered a method with what is no JSON, or too much")
		}
	case topicGet:
		body, err := l.at.getTwin()
		l.answerTwin(200, t.rid, "", body, err)
	case topicPatch:
		version, err := l.at.patchReported(m.Payload)
		l.answerTwin(204, t.rid, fmt.Sprintf("&$version=%d", version), nil, err)
	}
	if m.QoS > 0 {
		l.acknowledge(ack)
	}
	return nil
}

// acknowledge sends a PUBACK, unless a fault has it delayed or lost.
func (l *mqttLink) acknowledge(ack func()) {
	h := l.h
	h.mu.Lock()
	delay := time.Duration(h.faults.MQTT.PubAckDelay)
	mute := h.strikeLocked(h.faults.MQTT.PubAckMute, l.id.Device)
	h.mu.Unlock()
	switch {
	case mute:
	case delay > 0:
		l.chores.add(delay, ack)
	default:
		ack()
	}
}

// answerTwin answers at QoS 0, if the device subscribed to answers.
func (l *mqttLink) answerTwin(status int, rid, more string, body []byte, err *hubError) {
	if err != nil {
		status, more, body = err.Status, "", []byte(err.describe())
	}
	if _, ok := l.subs[twinFilter]; !ok {
		return
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.publish(mqtt.Message{Topic: fmt.Sprintf("$iothub/twin/res/%d/?$rid=%s%s", status, rid, more), Payload: body})
}
