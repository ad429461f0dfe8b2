package emulator

import (
	"testing"
	"time"

	client "github.com/Azure/go-amqp"

	"websocketbridge/signaler/sas"
)

func TestCBS(t *testing.T) {
	amqpTest(t, Config{BearerTokens: []string{"jwt"}}, func(l *amqpLab) {
		p := l.dial(nil)
		service, device := l.policyToken("service"), l.deviceToken(identity{Device: "pump-7"})
		other, err := sas.Sign("elsewhere", "service", l.h.policies["service"], time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		old, err := sas.Sign("localhost", "service", l.h.policies["service"], time.Now().Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name, kind, token string
			status            int32
		}{
			{"localhost", tokenSAS, service, 200},                               // amenzhinsky
			{"localhost%2Fdevices%2Fpump-7", tokenSAS, device, 200},             // node, device
			{"amqps://localhost:5671/", "Bearer", "Bearer jwt", 200},            // C#
			{"https://iothubs.azure.net/.default", tokenSAS, "Bearer jwt", 200}, // node
			{"https://iothubs.azure.net", "Bearer", "Bearer jwt", 200},          // cli
			{"localhost", "jwt", "jwt", 400},                                    // Event Hubs
			{"localhost", "Bearer", "Bearer guess", 401},
			{"localhost", "Bearer", "jwt", 401},
			{"elsewhere", tokenSAS, service, 401},
			{"", tokenSAS, service, 401},
			{"localhost", tokenSAS, other, 401},
			{"localhost", tokenSAS, old, 401},
			{"localhost", tokenSAS, "", 401},
			{"localhost", tokenSAS, service + "x", 401},
		} {
			a := p.cbs(p.request(tt.name, tt.kind, tt.token))
			if a.status != tt.status || a.correlation != "r1" || a.description == "" {
				t.Errorf("%s, %s: got %+v, want %d", tt.name, tt.kind, a, tt.status)
			}
		}
		m := p.request("localhost", tokenSAS, service)
		m.ApplicationProperties["operation"] = "get-token"
		if a := p.cbs(m); a.status != int32(400) {
			t.Errorf("another operation: got %+v", a)
		}
		m = p.request("localhost", tokenSAS, "")
		m.Value, m.Data = nil, [][]byte{[]byte(service)}
		if a := p.cbs(m); a.status != int32(400) {
			t.Errorf("data: got %+v", a)
		}
		m = p.request("localhost", tokenSAS, service)
		m.Properties.MessageID = client.UUID{1}
		if a := p.cbs(m); a.status != int32(200) || a.correlation != (client.UUID{1}) {
			t.Errorf("UUID: got %+v", a)
		}
		m.Properties = nil
		if a := p.cbs(m); a.status != int32(200) || a.correlation != nil {
			t.Errorf("no message-id: got %+v", a)
		}
		if s := l.h.Stats(); s.TokensPut != 7 || s.TokensRefused != 11 {
			t.Errorf("got %+v", s)
		}
		if err := l.h.SetFaults(Faults{AMQP: AMQPFaults{CBS: &CBSFault{Status: 500, Description: "later", Trigger: Trigger{Times: 1}}}}); err != nil {
			t.Fatal(err)
		}
		if a := p.cbs(p.request("localhost", tokenSAS, service)); a.status != int32(500) || a.description != "later" {
			t.Errorf("fault: got %+v", a)
		}
		p.put(service)
	})
}

func TestAMQPRights(t *testing.T) {
	amqpTest(t, Config{BearerTokens: []string{"jwt"}}, func(l *amqpLab) {
		attach := func(p *amqpPeer) string {
			s, err := p.s.NewSender(l.ctx, "/messages/devicebound", nil)
			if err == nil {
				s.Close(l.ctx)
			}
			return amqpCondition(err)
		}
		p := l.dial(nil)
		if got := attach(p); got != "amqp:unauthorized-access" {
			t.Errorf("without a token: %s", got)
		}
		p.put(l.policyToken("registryRead")) // a good token without the right
		if got := attach(p); got != "amqp:unauthorized-access" {
			t.Errorf("policy registryRead: %s", got)
		}
		p.put(l.deviceToken(identity{Device: "pump-7"}))
		if got := attach(p); got != "amqp:unauthorized-access" {
			t.Errorf("a device: %s", got)
		}
		p.put(l.policyToken("iothubowner"))
		if got := attach(p); got != "accepted" {
			t.Errorf("policy iothubowner: %s", got)
		}
		p = l.dial(nil)
		p.cbs(p.request("localhost", "Bearer", "Bearer jwt"))
		if got := attach(p); got != "accepted" {
			t.Errorf("bearer: %s", got)
		}
		for _, tt := range []struct {
			user, password string
			ok             bool
		}{
			{"service@sas.root.localhost", l.policyToken("service"), true},
			{"iothubowner@sas.root.localhost", l.policyToken("service"), false},
			{"service@sas.root.elsewhere", l.policyToken("service"), false},
			{"service", l.policyToken("service"), false},
			{"service@sas.root.localhost", "guess", false},
			{"pump-7@sas.localhost", l.deviceToken(identity{Device: "pump-7"}), true},
			{"pump-7@sas.localhost", "guess", false},
		} {
			c, err := client.NewConn(l.pipe(nil), &client.ConnOptions{SASLType: client.SASLTypePlain(tt.user, tt.password)})
			if (err == nil) != tt.ok {
				t.Errorf("PLAIN %s: %v", tt.user, err)
			}
			if err == nil {
				p := newAMQPPeer(l.T, c)
				if tt.user == "pump-7@sas.localhost" {
					p.sender("/devices/pump-7/messages/events")
				} else {
					p.sender("/messages/devicebound")
				}
			}
		}
		p = l.dial(&client.ConnOptions{SASLType: client.SASLTypeAnonymous()})
		if got := attach(p); got != "amqp:unauthorized-access" {
			t.Errorf("anonymous: %s", got)
		}
	})
}

func TestAMQPTokenExpiry(t *testing.T) {
	amqpTest(t, Config{TokenGrace: time.Minute}, func(l *amqpLab) {
		p := l.service()
		r := p.receiver("/messages/servicebound/feedback", nil)
		if _, err := r.Receive(l.within(59 * time.Minute)); amqpCondition(err) != "context deadline exceeded" {
			t.Fatalf("got %v", err)
		}
		p.put(l.policyToken("service")) // the link survives
		if _, err := r.Receive(l.within(60 * time.Minute)); amqpCondition(err) != "context deadline exceeded" {
			t.Fatalf("renewed: %v", err)
		}
		start := time.Now()
		_, err := r.Receive(l.within(time.Hour))
		if amqpCondition(err) != "amqp:unauthorized-access" || time.Since(start) > 2*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if _, err := p.s.NewSender(l.ctx, "/messages/devicebound", nil); err == nil {
			t.Error("a link was attached without a token")
		}
	})
}
