package emulator

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/Azure/go-amqp"
)

func (l *amqpLab) device(id identity) *amqpPeer {
	l.Helper()
	p := l.dial(nil)
	p.put(l.deviceToken(id))
	return p
}

func TestAMQPDeviceMessages(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		p := l.device(pump)
		sendC2D := func(id string) {
			t.Helper()
			if err := l.h.enqueueC2D(l.ctx, pump, &c2dMessage{ID: id, Ack: "full", CorrelationID: "c", ContentType: "x/y", Body: []byte("body"), Properties: []property{propertyOf("a", "b")}}); err != nil {
				t.Fatal(err)
			}
		}
		sendC2D("m1") // waits for the device
		r := p.receiver("/devices/pump-7/messages/devicebound", nil)
		receive := func() *client.Message {
			t.Helper()
			m, err := r.Receive(l.within(5 * time.Second))
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		m := receive()
		if m.Properties.MessageID != "m1" || m.Properties.CorrelationID != "c" || *m.Properties.To != toPump || *m.Properties.ContentType != "x/y" ||
			m.ApplicationProperties["iothub-ack"] != "full" || m.ApplicationProperties["a"] != "b" || string(m.GetData()) != "body" {
			t.Errorf("got %+v", m)
		}
		r.ReleaseMessage(l.ctx, m)
		if m = receive(); m.Properties.MessageID != "m1" || m.Header.DeliveryCount != 1 {
			t.Errorf("abandoned: got %+v", m)
		}
		r.AcceptMessage(l.ctx, m)
		sendC2D("m2")
		r.RejectMessage(l.ctx, receive(), nil)
		sendC2D("m3")
		receive() // and no word of it
		if err := l.h.WaitListening(l.ctx, "pump-7", "", ListenMessages); err != nil {
			t.Error(err)
		}
		p.c.Close()
		if err := l.h.WaitDisconnected(l.ctx, "pump-7", ""); err != nil {
			t.Error(err)
		}
		if s := l.h.Stats(); s.MessagesCompleted != 1 || s.MessagesRequeued != 1 || s.FeedbackRecords != 2 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAMQPDeviceMethods(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		for _, tt := range []struct {
			id   identity
			path string
		}{{pump, "/devices/pump-7"}, {identity{"pump-7", "m1"}, "/devices/pump-7/modules/m1"}} {
			p := l.device(tt.id)
			in, out := p.receiver(tt.path+"/methods/devicebound", nil), p.sender(tt.path+"/methods/devicebound")
			if err := l.h.WaitListening(l.ctx, tt.id.Device, tt.id.Module, ListenMethods); err != nil {
				t.Fatal(err)
			}
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				m, err := in.Receive(l.ctx)
				if err != nil {
					t.Error(err)
					return
				}
				in.AcceptMessage(l.ctx, m)
				if m.ApplicationProperties["IoThub-methodname"] != "Bridge" || string(m.GetData()) != `{"a":1}` {
					t.Errorf("got %+v", m)
				}
				a := client.NewMessage([]byte(`{"b":2}`))
				a.Properties = &client.MessageProperties{CorrelationID: m.Properties.CorrelationID}
				if uuid, ok := m.Properties.CorrelationID.(client.UUID); !ok || uuid[6]>>4 != 4 {
					t.Errorf("got correlation-id %v", m.Properties.CorrelationID)
				} else if tt.id.Module != "" {
					a.Properties.CorrelationID = uuid.String() // is as good
				}
				a.ApplicationProperties = map[string]any{"IoThub-status": int32(207)}
				if err := out.Send(l.ctx, a); err != nil {
					t.Error(err)
				}
			}()
			a, err := l.h.invokeMethod(l.ctx, tt.id, methodRequest{Name: "Bridge", Payload: []byte(`{"a":1}`), Respond: 5 * time.Second})
			if err != nil || a.Status != 207 || string(a.Payload) != `{"b":2}` {
				t.Errorf("got %+v, %v", a, err)
			}
			<-answered
			bad := client.NewMessage([]byte("no JSON"))
			bad.ApplicationProperties = map[string]any{"IoThub-status": int32(200)}
			if got := amqpCondition(out.Send(l.ctx, bad)); got != "com.microsoft:argument-error" {
				t.Errorf("got %s", got)
			}
		}
	})
}

func TestAMQPDeviceEvents(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		s := l.device(pump).sender("devices/pump-7/messages/events")
		m := client.NewMessage([]byte("21 C"))
		m.Properties = &client.MessageProperties{MessageID: "e1"}
		m.ApplicationProperties = map[string]any{"a": "b"}
		if err := s.Send(l.ctx, m); err != nil {
			t.Fatal(err)
		}
		if e := l.h.Events(); len(e) != 1 || e[0].Device != "pump-7" || e[0].Properties["$.mid"] != "e1" || e[0].Properties["a"] != "b" || string(e[0].Body) != "21 C" {
			t.Errorf("got %+v", e)
		}
	})
}

// TestAMQPDeviceTakeover: one connection per identity, whatever it speaks.
func TestAMQPDeviceTakeover(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		p := l.device(pump)
		r := p.receiver("/devices/pump-7/messages/devicebound", nil)
		on(l.T, l.h, pump)
		if _, err := r.Receive(l.within(5 * time.Second)); err == nil || err == l.ctx.Err() {
			t.Errorf("got %v", err)
		}
		p = l.device(pump)
		p.put(l.deviceToken(identity{Device: "50%#?"}))
		r = p.receiver("/devices/pump-7/messages/devicebound", nil)
		other := p.receiver("/devices/50%25%23%3F/messages/devicebound", nil)
		on(l.T, l.h, pump)
		if _, err := r.Receive(l.within(5 * time.Second)); amqpCondition(err) != "amqp:not-allowed" {
			t.Errorf("got %v", err)
		}
		if _, err := other.Receive(l.within(5 * time.Second)); amqpCondition(err) != "context deadline exceeded" {
			t.Errorf("the other device of the connection: %v", err)
		}
	})
}

func TestAMQPDeviceRights(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		p := l.device(pump)
		for address, want := range map[string]string{
			"/devices/pump-7/messages/events":            "accepted",
			"/devices/pump-7/modules/m1/messages/events": "accepted",
			"/devices/50%25%23%3F/messages/events":       "amqp:unauthorized-access",
			"/messages/devicebound":                      "amqp:unauthorized-access",
		} {
			s, err := p.s.NewSender(l.ctx, address, nil)
			if got := amqpCondition(err); got != want {
				t.Errorf("%s: %s, want %s", address, got, want)
			}
			if err == nil {
				s.Close(l.ctx)
			}
		}
		synctest.Wait()
		if l.h.Stats().Connections != 0 {
			t.Error("a device without links is connected")
		}
		// X.509: the certificate of the TLS handshake is the credential.
		if _, err := l.h.PutDevice(Device{ID: "x", Thumbprints: []string{"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}}); err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{Raw: []byte("foo"), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		c, err := client.NewConn(l.pipe(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}), &client.ConnOptions{SASLType: client.SASLTypeExternal("")})
		if err != nil {
			t.Fatal(err)
		}
		p = newAMQPPeer(l.T, c)
		p.sender("/devices/x/messages/events")
		if _, err := p.s.NewSender(l.ctx, "/devices/pump-7/messages/events", nil); amqpCondition(err) != "amqp:unauthorized-access" {
			t.Errorf("got %v", err)
		}
	})
}

func TestAMQPDeviceTokenExpiry(t *testing.T) {
	amqpTest(t, Config{TokenGrace: -1}, func(l *amqpLab) {
		p := l.device(pump)
		r := p.receiver("/devices/pump-7/messages/devicebound", nil)
		if _, err := r.Receive(l.within(40 * time.Minute)); amqpCondition(err) != "context deadline exceeded" {
			t.Fatalf("got %v", err)
		}
		p.put(l.deviceToken(pump))
		if _, err := r.Receive(l.within(40 * time.Minute)); amqpCondition(err) != "context deadline exceeded" {
			t.Fatalf("renewed: %v", err)
		}
		if _, err := r.Receive(l.within(time.Hour)); amqpCondition(err) != "amqp:unauthorized-access" {
			t.Errorf("got %v", err)
		}
	})
}
