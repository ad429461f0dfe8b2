package emulator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bagOf is what stands after devicebound/ in a topic.
func bagOf(t *testing.T, topic string) map[string]string {
	t.Helper()
	bag, ok := strings.CutPrefix(topic, "devices/pump-7/messages/devicebound/")
	if !ok {
		t.Fatalf("a message to %q", topic)
	}
	properties, err := decodeBag(bag)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, p := range properties {
		if out[p.Name] = "null"; p.Value != nil {
			out[p.Name] = *p.Value
		}
	}
	return out
}

func TestMQTTMessages(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		l.queue(&c2dMessage{ID: "m1", Ack: "full", Body: []byte("one"), Properties: []property{propertyOf("u", "wss://a/b?c=d&e=f"), {Name: "null"}}})
		p := l.connect(pump)
		p.quiet(time.Minute) // CleanSession 1: nothing until SUBSCRIBE
		p.subscribed(2, boundFilter)
		q := p.publication()
		want := map[string]string{"$.mid": "m1", "$.to": "/devices/pump-7/messages/devicebound", "$.exp": "2000-01-01T01:00:00.0000000Z", "iothub-ack": "full", "u": "wss://a/b?c=d&e=f", "null": "null"}
		if got := bagOf(t, q.TopicName); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if q.Qos != 1 || q.Dup || q.Retain || string(q.Payload) != "one" || !strings.HasPrefix(q.TopicName, "devices/pump-7/messages/devicebound/%24.mid=m1&") {
			t.Errorf("got %v", q)
		}
		l.queue(&c2dMessage{ID: "m2"})
		second := p.publication()
		p.ack(second.MessageID)
		p.ack(q.MessageID)
		p.ack(q.MessageID) // once more does no harm
		p.ping()
		if s := l.h.Stats(); s.MessagesCompleted != 2 || s.FeedbackRecords != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Without a PUBACK the lock ends after 60 s, and the message comes again: to the
// same connection with its packet ID and DUP, to another one with DUP.
func TestMQTTMessageNotAcknowledged(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		l.queue(&c2dMessage{ID: "m1"})
		p := l.connect(pump).subscribed(1, boundFilter)
		q := p.publication()
		time.Sleep(55 * time.Second)
		p.quiet(4 * time.Second)
		time.Sleep(time.Second)
		again := p.publication()
		if !again.Dup || again.MessageID != q.MessageID || again.TopicName != q.TopicName {
			t.Errorf("got %v after %v", again, q)
		}
		p.c.Close()
		<-p.done
		p = l.connect(pump).subscribed(1, boundFilter)
		third := p.publication()
		if !third.Dup || third.TopicName != q.TopicName {
			t.Errorf("got %v", third)
		}
		time.Sleep(time.Minute)
		p.publication()
		p.ack(third.MessageID) // its second lock
		p.ping()
		p.quiet(2 * time.Minute)
		if s := l.h.Stats(); s.MessagesCompleted != 1 || s.MessagesRequeued != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

// 16 are on their way; each PUBACK lets one more out, in order.
func TestMQTTWindow(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		for n := range 20 {
			l.queue(&c2dMessage{ID: fmt.Sprint(n)})
		}
		p := l.connect(pump).subscribed(1, boundFilter)
		var ids []uint16
		next := func(n int) {
			t.Helper()
			q := p.publication()
			if got := bagOf(t, q.TopicName)["$.mid"]; got != fmt.Sprint(n) {
				t.Fatalf("message %s, want %d", got, n)
			}
			ids = append(ids, q.MessageID)
		}
		for n := range 16 {
			next(n)
		}
		p.quiet(time.Second)
		for n := range 4 {
			p.ack(ids[n])
			next(16 + n)
		}
		for _, id := range ids[4:] {
			p.ack(id)
		}
		p.ping()
		if s := l.h.Stats(); s.MessagesCompleted != 20 {
			t.Errorf("%d completed", s.MessagesCompleted)
		}
	})
}

func TestMQTTMessageAtQoS0(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(pump).subscribed(0, boundFilter)
		l.queue(&c2dMessage{ID: "m1"})
		if q := p.publication(); q.Qos != 0 {
			t.Errorf("got %v", q)
		}
		synctest.Wait()
		if s := l.h.Stats(); s.MessagesCompleted != 1 {
			t.Errorf("%d completed", s.MessagesCompleted)
		}
	})
}

// A message whose topic MQTT cannot hold is rejected; the next one comes.
func TestMQTTMessageWithoutTopic(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(pump).subscribed(1, boundFilter)
		l.queue(&c2dMessage{ID: "m1", Ack: "full", Properties: []property{propertyOf("k", strings.Repeat("/", 30_000))}})
		l.queue(&c2dMessage{ID: "m2"})
		if got := bagOf(t, p.publication().TopicName)["$.mid"]; got != "m2" {
			t.Errorf("got message %s", got)
		}
		synctest.Wait()
		if s := l.h.Stats(); s.FeedbackRecords != 1 || s.MessagesCompleted != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMQTTMessagesOfModules(t *testing.T) {
	mqttTest(t, Config{ModuleMessages: true}, func(l *mqttLab) {
		module := identity{"pump-7", "m1"}
		p := l.connect(module).subscribed(1, "devices/pump-7/modules/m1/#")
		if err := l.h.enqueueC2D(l.ctx, module, &c2dMessage{ID: "m1"}); err != nil {
			t.Fatal(err)
		}
		q := p.publication()
		if !strings.HasPrefix(q.TopicName, "devices/pump-7/modules/m1/messages/devicebound/%24.mid=m1&") {
			t.Errorf("got %v", q)
		}
	})
}

func TestMQTTSession(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		hello := l.hello(pump)
		hello.CleanSession = false
		// present connects, and says whether the hub remembers a session.
		present := func(clean bool) (*mqttPeer, bool) {
			t.Helper()
			hello.CleanSession, hello.Password = clean, []byte(tokenOf(t, l.h, pump))
			p := l.dial(nil)
			p.send(hello)
			ack := p.read()
			return p, strings.Contains(ack.String(), "sessionpresent: true")
		}
		p, was := present(false)
		if was {
			t.Error("a session before there was one")
		}
		p.subscribed(1, boundFilter, methodsFilter)
		l.queue(&c2dMessage{ID: "m1"})
		p.publication()
		p.c.Close()
		<-p.done

		p, was = present(false)
		if q := p.publication(); !was || !q.Dup { // right after CONNECT
			t.Errorf("session %t, got %v", was, q)
		} else {
			p.ack(q.MessageID)
			p.ping() // or the takeover may come before it
		}
		answered := make(chan *hubError, 1)
		go func() {
			_, err := l.h.invokeMethod(l.ctx, pump, methodRequest{Name: "Bridge", Respond: time.Minute})
			answered <- err
		}()
		_, rid, ok := strings.Cut(p.publication().TopicName, "$iothub/methods/POST/Bridge/?$rid=")
		if !ok {
			t.Fatal("the session has no methods")
		}
		p.publish(0, "$iothub/methods/res/200/?$rid="+rid, "{}")
		if err := <-answered; err != nil {
			t.Errorf("a call got %v", err)
		}

		p, was = present(true)
		l.queue(&c2dMessage{ID: "m2"})
		if was {
			t.Error("CleanSession 1 found a session")
		}
		p.quiet(time.Minute)
		p, was = present(false)
		if was {
			t.Error("CleanSession 1 left a session")
		}
		p.subscribed(1, boundFilter)
		p.publication()

		l.h.DeleteDevice("pump-7")
		p.eof()
		l.h.PutDevice(Device{ID: "pump-7"})
		if _, was = present(false); was {
			t.Error("a device made again has the session of the one before")
		}
	})
}
