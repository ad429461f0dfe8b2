package emulator

import (
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestMQTTMethods(t *testing.T) {
	type result struct {
		answer *methodAnswer
		err    *hubError
	}
	call := func(l *mqttLab, payload string) <-chan result {
		out := make(chan result, 1)
		go func() {
			a, err := l.h.invokeMethod(l.ctx, pump, methodRequest{Name: "Bridge", Payload: []byte(payload), Respond: 10 * time.Second})
			out <- result{a, err}
		}()
		return out
	}
	rid := func(p *packets.PublishPacket) string {
		id, ok := strings.CutPrefix(p.TopicName, "$iothub/methods/POST/Bridge/?$rid=")
		if !ok {
			t.Fatalf("request to %q", p.TopicName)
		}
		return id
	}
	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(pump)
		if r := <-call(l, ""); r.err == nil || r.err.Code != 404103 {
			t.Errorf("not subscribed: %v, want 404103", r.err)
		}
		p.subscribed(1, methodsFilter)
		first, second := call(l, `{"n":1}`), call(l, "")
		requests := map[string]*packets.PublishPacket{}
		for range 2 {
			q := p.publication()
			requests[string(q.Payload)] = q
			if q.Qos != 0 {
				t.Errorf("a request at QoS %d", q.Qos)
			}
		}
		one, none := requests[`{"n":1}`], requests["null"]
		if one == nil || none == nil || rid(one) == rid(none) {
			t.Fatalf("requests %v", requests)
		}
		p.publish(1, "$iothub/methods/res/404/?$rid="+rid(none), "") // in the other order
		p.puback()
		p.publish(0, "$iothub/methods/res/200/?$rid="+rid(one), `{"ok":true}`)
		if r := <-first; r.err != nil || r.answer.Status != 200 || string(r.answer.Payload) != `{"ok":true}` {
			t.Errorf("got %+v", r)
		}
		if r := <-second; r.err != nil || r.answer.Status != 404 || len(r.answer.Payload) != 0 {
			t.Errorf("got %+v", r)
		}

		late := call(l, "")
		q := p.publication()
		if r := <-late; r.err == nil || r.err.Code != 504101 {
			t.Errorf("no answer: %v, want 504101", r.err)
		}
		p.publish(1, "$iothub/methods/res/200/?$rid="+rid(q), "")
		p.puback() // too late is nobody's fault
		if n := l.h.Stats().AnswersLate; n != 1 {
			t.Errorf("%d late answers", n)
		}

		gone := call(l, "")
		p.publication()
		p.c.Close()
		if r := <-gone; r.err == nil || r.err.Code != 404104 {
			t.Errorf("disconnected: %v, want 404104", r.err)
		}
	})

	// At QoS 1 a client that sends no PUBACK gets 16 calls and then no more, as
	// azure-iot-sdk-csharp #2557 tells.
	mqttTest(t, Config{Faults: Faults{MQTT: MQTTFaults{MethodQoS: 1}}}, func(l *mqttLab) {
		p := l.connect(pump).subscribed(1, methodsFilter)
		var ids []uint16
		for range 16 {
			done := call(l, "")
			q := p.publication()
			ids = append(ids, q.MessageID)
			p.publish(0, "$iothub/methods/res/200/?$rid="+rid(q), "")
			if r := <-done; r.err != nil || q.Qos != 1 {
				t.Fatalf("%v at QoS %d", r.err, q.Qos)
			}
		}
		if r := <-call(l, ""); r.err == nil || r.err.Code != 404103 {
			t.Errorf("the 17th: %v, want 404103", r.err)
		}
		p.ack(ids[0])
		p.ping()
		done := call(l, "")
		p.publish(0, "$iothub/methods/res/200/?$rid="+rid(p.publication()), "")
		if r := <-done; r.err != nil {
			t.Errorf("after a PUBACK: %v", r.err)
		}
	})
}

func TestMQTTTwin(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(pump)
		p.publish(0, "$iothub/twin/GET/?$rid=1", "") // nobody hears the answer
		p.ping()
		p.subscribed(1, twinFilter, desiredFilter)
		answer := func(topic, body string) {
			t.Helper()
			if q := p.publication(); q.TopicName != topic || string(q.Payload) != body {
				t.Errorf("got %s %s\nwant %s %s", q.TopicName, q.Payload, topic, body)
			}
		}
		p.publish(0, "$iothub/twin/GET/?$rid=2B87-x", " ")
		answer("$iothub/twin/res/200/?$rid=2B87-x", `{"desired":{"$version":1},"reported":{"$version":1}}`)
		p.publish(0, "$iothub/twin/PATCH/properties/reported/?$rid=3", `{"a":1}`)
		answer("$iothub/twin/res/204/?$rid=3&$version=2", "")
		p.publish(0, "$iothub/twin/GET/?$rid=4", "")
		answer("$iothub/twin/res/200/?$rid=4", `{"desired":{"$version":1},"reported":{"$version":2,"a":1}}`)

		p.publish(0, "$iothub/twin/PATCH/properties/reported/?$rid=5", `[]`)
		if q := p.publication(); q.TopicName != "$iothub/twin/res/400/?$rid=5" || !strings.Contains(string(q.Payload), "400004") {
			t.Errorf("got %s %s", q.TopicName, q.Payload)
		}
		l.h.mu.Lock()
		r, _ := l.h.find(pump)
		var change twinPatch
		change.Properties.Desired = map[string]any{"speed": 2}
		err := l.h.updateTwin(r, change, false)
		l.h.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		answer("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"speed":2}`)
	})
}
