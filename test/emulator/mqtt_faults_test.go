package emulator

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func mqttFaultTest(t *testing.T, name string, f MQTTFaults, test func(*testing.T, *mqttLab)) {
	t.Run(name, func(t *testing.T) {
		mqttTest(t, Config{Faults: Faults{MQTT: f}}, func(l *mqttLab) { test(l.T, l) })
	})
}

func TestMQTTFaultsOfConnect(t *testing.T) {
	once := Trigger{Times: 1}
	mqttFaultTest(t, "code", MQTTFaults{ConnAck: &ConnAckFault{Trigger: Trigger{Times: 2}}}, func(t *testing.T, l *mqttLab) {
		for _, want := range []byte{3, 3, 0} {
			p := l.dial(nil)
			p.send(l.hello(pump))
			if ack := p.read().(*packets.ConnackPacket); ack.ReturnCode != want {
				t.Errorf("got code %d, want %d", ack.ReturnCode, want)
			}
		}
	})
	mqttFaultTest(t, "mute", MQTTFaults{ConnAckMute: &once}, func(t *testing.T, l *mqttLab) {
		p := l.dial(nil)
		p.send(l.hello(pump))
		p.quiet(time.Hour)
		p.c.Close()
		<-p.done
		l.connect(pump)
	})
	mqttFaultTest(t, "half-open", MQTTFaults{HalfOpen: &once}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump)
		p.subscribe(1, boundFilter)
		p.quiet(time.Minute)
		l.queue(&c2dMessage{ID: "m1"})
		if s := l.h.Stats(); s.Connections != 1 {
			t.Error("the hub knows already")
		}
		time.Sleep(1767 * time.Second)
		if s := l.h.Stats(); s.Connections != 0 {
			t.Error("the hub does not know yet")
		}
		p.subscribe(1, boundFilter) // the client's socket still takes it
		p.quiet(time.Hour)
		l.connect(pump).subscribed(1, boundFilter)
	})
	mqttFaultTest(t, "other device", MQTTFaults{HalfOpen: &Trigger{Device: "pump-8"}}, func(t *testing.T, l *mqttLab) {
		l.connect(pump).ping()
	})
}

func TestMQTTFaultsOfAnswers(t *testing.T) {
	const topic = "devices/pump-7/messages/events/"
	mqttFaultTest(t, "PUBACK late", MQTTFaults{PubAckDelay: Duration(time.Second)}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump)
		began := time.Now()
		for id := range uint16(3) {
			packet := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			packet.Qos, packet.TopicName, packet.MessageID = 1, topic, id+1
			p.send(packet)
		}
		p.ping() // is not held up
		for id := range uint16(3) {
			if ack := p.read().(*packets.PubackPacket); ack.MessageID != id+1 {
				t.Errorf("PUBACK %d, want %d", ack.MessageID, id+1)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		p.publish(1, topic, "") // which nobody waits for
	})
	mqttFaultTest(t, "PUBACK lost", MQTTFaults{PubAckMute: &Trigger{Nth: 2}}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump)
		p.publish(1, topic, "")
		p.puback()
		p.publish(1, topic, "")
		p.quiet(time.Minute)
		p.ping()
		if n := len(l.h.Events()); n != 2 {
			t.Errorf("%d events", n)
		}
	})
	mqttFaultTest(t, "PINGRESP lost", MQTTFaults{PingMute: &Trigger{}}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump)
		p.send(packets.NewControlPacket(packets.Pingreq))
		p.quiet(time.Minute)
		p.subscribed(1, boundFilter)
	})
	for how, want := range map[string]string{"": "refuse", "refuse": "refuse", "ignore": "ignore", "lie": "lie"} {
		mqttFaultTest(t, "deaf "+how, MQTTFaults{Deaf: &DeafFault{How: how, Filter: "methods"}}, func(t *testing.T, l *mqttLab) {
			p := l.connect(pump).subscribed(1, boundFilter)
			p.subscribe(1, methodsFilter)
			if want == "ignore" {
				p.quiet(time.Minute)
			} else if ack := p.read().(*packets.SubackPacket); ack.ReturnCodes[0] != map[string]byte{"refuse": 0x80, "lie": 1}[want] {
				t.Errorf("SUBACK %x", ack.ReturnCodes)
			}
			if _, err := l.h.invokeMethod(l.ctx, pump, methodRequest{Name: "Bridge", Respond: time.Minute}); err == nil || err.Code != 404103 {
				t.Errorf("a call got %v, want 404103", err)
			}
			l.queue(&c2dMessage{})
			p.publication()
		})
	}
}

func TestMQTTFaultsOfMessages(t *testing.T) {
	mqttFaultTest(t, "cut", MQTTFaults{Cut: &Trigger{Times: 1}}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump).subscribed(1, boundFilter)
		l.queue(&c2dMessage{ID: "m1", Body: []byte("body")})
		p.c.SetReadDeadline(time.Now().Add(time.Second))
		b, err := io.ReadAll(p.c)
		if len(b) < 10 || b[0] != 0x32 || strings.Contains(string(b), "body") || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q and %v, want half a PUBLISH", b, err)
		}
		<-p.done
		p = l.connect(pump).subscribed(1, boundFilter)
		if q := p.publication(); !q.Dup || string(q.Payload) != "body" {
			t.Errorf("got %v", q)
		}
	})
	mqttFaultTest(t, "properties first", MQTTFaults{PropertiesFirst: true}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump).subscribed(1, boundFilter)
		l.queue(&c2dMessage{ID: "m1", Ack: "full", Properties: []property{propertyOf("k", "v")}})
		const want = "devices/pump-7/messages/devicebound/iothub-ack=full&k=v&%24.mid=m1&%24.to=%2Fdevices%2Fpump-7%2Fmessages%2Fdevicebound&%24.cid&%24.uid&%24.exp=2000-01-01T01%3A00%3A00.0000000Z"
		if q := p.publication(); q.TopicName != want {
			t.Errorf("got  %s\nwant %s", q.TopicName, want)
		}
	})
	mqttFaultTest(t, "duplicate", MQTTFaults{Duplicate: &Trigger{Nth: 1}}, func(t *testing.T, l *mqttLab) {
		p := l.connect(pump).subscribed(1, boundFilter)
		l.queue(&c2dMessage{ID: "m1"})
		l.queue(&c2dMessage{ID: "m2"})
		first, again, second := p.publication(), p.publication(), p.publication()
		if first.Dup || !again.Dup || again.MessageID != first.MessageID || second.Dup || second.MessageID == first.MessageID {
			t.Errorf("got %v, %v and %v", first, again, second)
		}
		for _, q := range []*packets.PublishPacket{first, again, second} {
			p.ack(q.MessageID)
		}
		p.ping()
		if s := l.h.Stats(); s.MessagesCompleted != 2 {
			t.Errorf("%d completed", s.MessagesCompleted)
		}
	})
	// The copy of the hub's own fault is another message to MQTT, and its PUBACK
	// completes nothing.
	mqttTest(t, Config{Faults: Faults{C2DDuplicate: &Trigger{}}}, func(l *mqttLab) {
		p := l.connect(pump).subscribed(1, boundFilter)
		l.queue(&c2dMessage{ID: "m1"})
		first, again := p.publication(), p.publication()
		if again.Dup || again.MessageID == first.MessageID || again.TopicName != first.TopicName {
			t.Errorf("got %v and %v", first, again)
		}
		p.ack(again.MessageID)
		p.ping()
		if n := l.h.Stats().MessagesCompleted; n != 0 {
			t.Errorf("%d completed", n)
		}
		p.ack(first.MessageID)
		p.ping()
		if n := l.h.Stats().MessagesCompleted; n != 1 {
			t.Errorf("%d completed", n)
		}
	})
}
