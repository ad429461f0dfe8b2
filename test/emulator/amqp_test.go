package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/Azure/go-amqp"
)

// amqpCondition returns the AMQP condition of an error of the library.
func amqpCondition(err error) string {
	var e *client.Error
	var d *client.DetachError
	switch {
	case errors.As(err, &e):
		return string(e.Condition)
	case errors.As(err, &d) && d.RemoteErr != nil:
		return string(d.RemoteErr.Condition)
	case err == nil:
		return "accepted"
	}
	return err.Error()
}

func TestAMQPMessages(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		a, link := on(l.T, l.h, identity{Device: "pump-7"}, ListenMessages)
		s := l.service().sender("/messages/devicebound")
		expiry := time.Now().Add(time.Minute)
		uid, ct, ce, to := []byte("me"), "application/json", "utf-8", toPump
		m := client.NewMessage([]byte("body"))
		m.Properties = &client.MessageProperties{
			To: &to, MessageID: client.UUID{0xab, 15: 1}, CorrelationID: "c", UserID: uid, ContentType: &ct, ContentEncoding: &ce, AbsoluteExpiryTime: &expiry,
		}
		m.ApplicationProperties = map[string]any{"iothub-ack": "Full", "a": "b"}
		if err := s.Send(l.ctx, m); err != nil {
			t.Fatal(err)
		}
		l.h.mu.Lock()
		got := *a.locked[link.take()[0].lock]
		l.h.mu.Unlock()
		if got.ID != "ab000000-0000-0000-0000-000000000001" || got.CorrelationID != "c" || got.UserID != "me" || got.ContentType != ct || got.ContentEncoding != ce ||
			!got.Expiry.Equal(expiry.Truncate(time.Millisecond)) || got.Ack != "full" || len(got.Properties) != 1 || *got.Properties[0].Value != "b" || string(got.Body) != "body" {
			t.Errorf("got %+v", got)
		}
		// amenzhinsky's library, when there is no expiry and no id.
		never := time.Time{}
		m = amqpMessage(toPump, "")
		m.Properties.AbsoluteExpiryTime, m.Properties.CorrelationID = &never, ""
		if err := s.Send(l.ctx, m); err != nil {
			t.Fatal(err)
		}
		if got := link.take(); len(got) != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAMQPMessageAddresses(t *testing.T) {
	amqpTest(t, Config{ModuleMessages: true}, func(l *amqpLab) {
		p := l.service()
		for address, ok := range map[string]bool{
			"/messages/devicebound": true, "messages/deviceBound": true, "amqps://localhost:5671/messages/deviceBound": true, "/MESSAGES/DEVICEBOUND": true,
			"/messages/deviceboundx": false, "": false, "/": false, "amqps://localhost": false, "/devices/pump-7": false, "/devices/pump-7/twin": false,
		} {
			s, err := p.s.NewSender(l.ctx, address, nil)
			if (err == nil) != ok || !ok && amqpCondition(err) != "amqp:not-found" {
				t.Errorf("%q: %v", address, err)
			}
			if err == nil {
				s.Close(l.ctx)
			}
		}
		s := p.sender("/messages/devicebound")
		for to, want := range map[string]string{
			toPump:                                   "accepted",
			"devices/pump-7/messages/deviceBound":    "accepted",
			"/Devices/pump%2D7/Messages/DEVICEBOUND": "accepted",
			"amqps://localhost/devices/pump-7/messages/devicebound": "accepted",
			"/devices/pump-7/modules/m1/messages/devicebound":       "accepted",
			"/devices/pump-7/modules/m2/messages/devicebound":       "amqp:not-found",
			"/devices/50%25%23%3F/messages/devicebound":             "accepted",
			"/devices/50%#?/messages/devicebound":                   "accepted",
			"/devices/PUMP-7/messages/devicebound":                  "amqp:not-found",
			"/devices/nobody/messages/devicebound":                  "amqp:not-found",
			"/devices/pump-7/messages/events":                       "com.microsoft:argument-error",
			"/devices//messages/devicebound":                        "com.microsoft:argument-error",
			"pump-7":                                                "com.microsoft:argument-error",
			"":                                                      "com.microsoft:argument-error",
		} {
			if got := amqpCondition(s.Send(l.ctx, amqpMessage(to, "m"))); got != want {
				t.Errorf("to %q: %s, want %s", to, got, want)
			}
		}
	})
}

// TestAMQPRefusals is what the hub does not take, all on one link.
func TestAMQPRefusals(t *testing.T) {
	amqpTest(t, Config{MessageQueue: 2}, func(l *amqpLab) {
		s := l.service().sender("/messages/devicebound")
		past, far := time.Now().Add(-time.Second), time.Now().Add(100*time.Hour)
		tests := []struct {
			name  string
			spoil func(*client.Message)
			want  string
			code  int
		}{
			{"good", func(m *client.Message) {}, "accepted", 0},
			{"unknown device", func(m *client.Message) { to := "/devices/x/messages/devicebound"; m.Properties.To = &to }, "amqp:not-found", 404001},
			{"module", func(m *client.Message) {
				to := "/devices/pump-7/modules/m1/messages/devicebound"
				m.Properties.To = &to
			}, "amqp:not-found", 404006},
			{"no to", func(m *client.Message) { m.Properties.To = nil }, "com.microsoft:argument-error", 400004},
			{"no properties", func(m *client.Message) { m.Properties = nil }, "com.microsoft:argument-error", 400004},
			{"expired", func(m *client.Message) { m.Properties.AbsoluteExpiryTime = &past }, "com.microsoft:argument-error", 403009},
			{"expires too late", func(m *client.Message) { m.Properties.AbsoluteExpiryTime = &far }, "com.microsoft:argument-error", 403009},
			{"too large", func(m *client.Message) { m.Data = [][]byte{make([]byte, maxMessage+1)} }, "amqp:link:message-size-exceeded", 413001},
			{"property that is no string", func(m *client.Message) { m.ApplicationProperties = map[string]any{"n": 1} }, "com.microsoft:argument-error", 400004},
			{"unknown ack", func(m *client.Message) { m.ApplicationProperties = map[string]any{"iothub-ack": "maybe"} }, "com.microsoft:argument-error", 400004},
			{"body that is a value", func(m *client.Message) { m.Data, m.Value = nil, "x" }, "com.microsoft:argument-error", 400004},
			{"message-id that is binary", func(m *client.Message) { m.Properties.MessageID = []byte("x") }, "com.microsoft:argument-error", 400004},
			{"good again", func(m *client.Message) {}, "accepted", 0},
			{"queue full", func(m *client.Message) {}, "amqp:resource-limit-exceeded", 403004},
		}
		for _, tt := range tests {
			m := amqpMessage(toPump, "m")
			tt.spoil(m)
			err := s.Send(l.ctx, m)
			if got := amqpCondition(err); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
			var e *client.Error
			if errors.As(err, &e) {
				var d struct {
					ErrorCode                         int
					TrackingID, Message, TimestampUTC string
				}
				if err := json.Unmarshal([]byte(e.Description), &d); err != nil || d.ErrorCode != tt.code || d.TrackingID == "" || d.Message == "" || d.TimestampUTC == "" {
					t.Errorf("%s: description %q, %v", tt.name, e.Description, err)
				}
			}
		}
	})
}

func TestAMQPFeedback(t *testing.T) {
	for _, mode := range []client.ReceiverSettleMode{client.ReceiverSettleModeFirst, client.ReceiverSettleModeSecond} {
		t.Run(fmt.Sprint("settles ", mode), func(t *testing.T) {
			amqpTest(t, Config{}, func(l *amqpLab) {
				a, link := on(l.T, l.h, identity{Device: "pump-7"}, ListenMessages)
				p := l.service()
				r := p.receiver("amqps://localhost:5671/messages/servicebound/feedback", &client.ReceiverOptions{SettlementMode: &mode, Credit: 10})
				p.receiver("/messages/serviceBound/filenotifications", nil)
				s := p.sender("/messages/devicebound")
				m := amqpMessage(toPump, "m1")
				m.ApplicationProperties = map[string]any{"iothub-ack": "full"}
				if err := s.Send(l.ctx, m); err != nil {
					t.Fatal(err)
				}
				a.complete(link.take()[0].lock)
				for attempt := range 3 { // released, it comes again
					got, err := r.Receive(l.within(20 * time.Second))
					if err != nil {
						t.Fatal(err)
					}
					at, _ := got.Annotations["iothub-enqueuedtime"].(time.Time)
					if *got.Properties.ContentType != feedbackContentType || string(got.Properties.UserID) != "localhost" || time.Since(at) > time.Minute {
						t.Errorf("got %+v", got.Properties)
					}
					var records []map[string]string
					if err := json.Unmarshal(got.GetData(), &records); err != nil || len(records) != 1 || records[0]["originalMessageId"] != "m1" || records[0]["statusCode"] != "Success" {
						t.Errorf("got %s, %v", got.GetData(), err)
					}
					if attempt == 2 {
						err = r.AcceptMessage(l.ctx, got)
					} else {
						err = r.ReleaseMessage(l.ctx, got)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				l.h.mu.Lock()
				defer l.h.mu.Unlock()
				if n := len(l.h.feedback.batches); n != 0 {
					t.Errorf("%d batches are left", n)
				}
			})
		})
	}
}

// TestAMQPFeedbackReaders: a batch goes to one reader that has credit, and comes
// back to the others if that reader leaves.
func TestAMQPFeedbackReaders(t *testing.T) {
	amqpTest(t, Config{FeedbackEvery: time.Second}, func(l *amqpLab) {
		deaf := l.service()
		deaf.receiver("/messages/servicebound/feedback", &client.ReceiverOptions{ManualCredits: true, Credit: 1})
		leaver, stayer := l.service(), l.service()
		first := leaver.receiver("/messages/servicebound/feedback", nil)
		a, link := on(l.T, l.h, identity{Device: "pump-7"}, ListenMessages)
		m := amqpMessage(toPump, "m1")
		m.ApplicationProperties = map[string]any{"iothub-ack": "positive"}
		if err := deaf.sender("/messages/devicebound").Send(l.ctx, m); err != nil {
			t.Fatal(err)
		}
		a.complete(link.take()[0].lock)
		if _, err := first.Receive(l.within(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		second := stayer.receiver("/messages/servicebound/feedback", nil)
		if _, err := second.Receive(l.within(5 * time.Second)); err == nil {
			t.Fatal("two readers have one batch")
		}
		leaver.c.Close()
		got, err := second.Receive(l.within(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		second.AcceptMessage(l.ctx, got)
	})
}

func TestAMQPFlowWithoutNextIncomingID(t *testing.T) {
	amqpTest(t, Config{Faults: Faults{AMQP: AMQPFaults{FlowWithoutNextIncomingID: true}}}, func(l *amqpLab) {
		p := l.dial(nil)
		s, err := p.s.NewSender(l.ctx, "$cbs", nil)
		if err == nil {
			err = s.Send(l.within(5*time.Second), p.request("localhost", tokenSAS, l.policyToken("service")))
		}
		// The trap: this is what Azure's library does on some real hubs.
		if err == nil || !strings.Contains(err.Error(), "next-incoming-id") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAMQPActions(t *testing.T) {
	amqpTest(t, Config{}, func(l *amqpLab) {
		p := l.service()
		r := p.receiver("/messages/servicebound/feedback", nil)
		if err := l.h.Do(Action{Do: "detach"}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Receive(l.within(5 * time.Second))
		if got := amqpCondition(err); got != "amqp:link:detach-forced" {
			t.Errorf("got %s", got)
		}
		p = l.service()
		r = p.receiver("/messages/servicebound/feedback", nil)
		if err := l.h.Do(Action{Do: "close", Description: "maintenance"}); err != nil {
			t.Fatal(err)
		}
		if _, err = r.Receive(l.within(5 * time.Second)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAMQPFaults(t *testing.T) {
	set := func(l *amqpLab, f Faults) {
		l.Helper()
		if err := l.h.SetFaults(f); err != nil {
			l.Fatal(err)
		}
	}
	amqpTest(t, Config{}, func(l *amqpLab) {
		s := l.service().sender("/messages/devicebound")
		send := func() error { return s.Send(l.within(5*time.Second), amqpMessage(toPump, "m")) }

		set(l, Faults{C2D: &C2DFault{Outcome: "rejected", Condition: "com.microsoft:device-container-throttled", Trigger: Trigger{Times: 1}}})
		if got := amqpCondition(send()); got != "com.microsoft:device-container-throttled" {
			t.Errorf("rejected: %s", got)
		}
		if err := send(); err != nil {
			t.Errorf("after it: %v", err)
		}
		for _, outcome := range []string{"released", "modified"} {
			set(l, Faults{C2D: &C2DFault{Outcome: outcome}})
			if err := send(); err != nil {
				t.Errorf("%s: the library says %v; it used to take it for success", outcome, err)
			}
		}
		if n := l.h.Stats().MessagesAccepted; n != 1 {
			t.Errorf("%d messages were accepted", n)
		}
		set(l, Faults{C2D: &C2DFault{Outcome: "none"}})
		if err := send(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("none: %v", err)
		}
		set(l, Faults{C2D: &C2DFault{Delay: Duration(time.Second)}})
		start := time.Now()
		if err := send(); err != nil || time.Since(start) < time.Second {
			t.Errorf("delay: %v after %v", err, time.Since(start))
		}
		set(l, Faults{AMQP: AMQPFaults{Cut: &Trigger{}}})
		if err := send(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut: %v", err)
		}
	})
	amqpTest(t, Config{}, func(l *amqpLab) {
		set(l, Faults{AMQP: AMQPFaults{Link: &LinkFault{Trigger: Trigger{Times: 1}, Address: "DeviceBound", Condition: "com.microsoft:iot-hub-suspended"}}})
		p := l.service()
		p.receiver("/messages/servicebound/feedback", nil)
		if _, err := p.s.NewSender(l.ctx, "/messages/devicebound", nil); amqpCondition(err) != "com.microsoft:iot-hub-suspended" {
			t.Errorf("link: %v", err)
		}
		p.sender("/messages/devicebound")
		set(l, Faults{AMQP: AMQPFaults{Credit: &Trigger{}}})
		if err := p.sender("/messages/devicebound").Send(l.within(5*time.Second), amqpMessage(toPump, "m")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("credit: %v", err)
		}
		set(l, Faults{AMQP: AMQPFaults{HalfOpen: &Trigger{}}})
		c, err := client.NewConn(l.pipe(nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.NewSession(l.within(5*time.Second), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("half open: %v", err)
		}
		l.h.SetFaults(Faults{})
	})
	for mode, sasl := range map[string]client.SASLType{"required": nil, "refused": client.SASLTypeAnonymous()} {
		amqpTest(t, Config{Faults: Faults{AMQP: AMQPFaults{SASL: mode}}}, func(l *amqpLab) {
			if _, err := client.NewConn(l.pipe(nil), &client.ConnOptions{SASLType: sasl}); err == nil {
				t.Errorf("SASL %s: got in", mode)
			}
		})
	}
}

func FuzzAMQPAddress(f *testing.F) {
	for _, s := range []string{
		"$cbs", "/messages/devicebound", "amqps://hub:5671/messages/serviceBound/feedback", "/devices/d/messages/devicebound", "devices/a%2Fb/modules/m/methods/devicebound",
		"/devices/50%#?/messages/events", "://", "/devices//modules//messages/events",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a := parseAddress(s)
		if (a.kind >= addressEvents) != (a.id.Device != "") && a.kind != addressUnknown {
			t.Errorf("%q is %+v", s, a)
		}
		if a.kind < addressEvents {
			return
		}
		path := "/devices/" + url.PathEscape(a.id.Device)
		if a.id.Module != "" {
			path += "/modules/" + url.PathEscape(a.id.Module)
		}
		for name, kind := range deviceAddressKinds {
			if got := parseAddress(path + "/" + strings.ToUpper(name)); kind == a.kind && got != a {
				t.Errorf("%q is %+v, but %q is %+v", s, a, path, got)
			}
		}
	})
}
