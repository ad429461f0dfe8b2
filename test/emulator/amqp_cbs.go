package emulator

import (
	"cmp"
	"slices"

	"websocketbridge/test/emulator/amqp"
)

// Types of tokens that IoT Hub's SDKs name in put-token. That of Event Hubs, jwt with
// a bare token, is not among them.
const (
	tokenSAS    = "servicebus.windows.net:sastoken" // also with "Bearer …": node
	tokenBearer = "Bearer"
)

// cbsInlet takes requests to $cbs.
type cbsInlet struct{ ac *amqpConn }

// Deliver implements amqp.Inlet. The request is accepted whatever the answer is, and
// answered also if it has no message-id: amenzhinsky's library sends none.
func (in cbsInlet) Deliver(d *amqp.Delivery) {
	d.Settle(amqp.Accepted{})
	ac := in.ac
	if ac.h.strikes(func(f *Faults) *Trigger { return f.AMQP.CBSMute }, "") {
		return
	}
	status, text := ac.putTokenRequest(d.Message)
	ac.h.count(func(s *Stats) {
		if status == 200 {
			s.TokensPut++
		} else {
			s.TokensRefused++
		}
	})
	answer := &amqp.Message{
		Properties: &amqp.Properties{},
		ApplicationProperties: amqp.Map{
			{Key: "status-code", Value: status}, // an int: node compares with ===, amenzhinsky asserts int32
			{Key: "status-description", Value: text},
		},
		Value: "", // no SDK reads it, but a message has a body
	}
	if p := d.Message.Properties; p != nil {
		answer.Properties.CorrelationID = p.MessageID
		answer.Properties.To = p.ReplyTo
	}
	ac.cbs.send(d.Receiver().Channel(), answer)
}

// Detached implements amqp.Inlet.
func (cbsInlet) Detached(error) {}

func (ac *amqpConn) putTokenRequest(m *amqp.Message) (status int32, description string) {
	text := func(key string) string {
		v, _ := m.ApplicationProperties.Get(key)
		s, _ := v.(string)
		return s
	}
	if status, description = ac.cbsFault(); status != 0 {
		return status, description
	}
	if text("operation") != "put-token" {
		return 400, "The operation is not put-token."
	}
	token, ok := m.Value.(string)
	if !ok {
		return 400, "The body is not an AMQP value with a string."
	}
	if kind := text("type"); kind != tokenSAS && kind != tokenBearer {
		return 400, "The type is neither " + tokenSAS + " nor " + tokenBearer + "."
	}
	if !ac.h.audienceIs(text("name")) {
		return 401, errUnauthorized("Unauthorized: the name of put-token is not this hub's.").describe()
	}
	if err := ac.putToken(token); err != nil {
		return int32(err.Status), err.describe()
	}
	return 200, "OK"
}

func (ac *amqpConn) cbsFault() (status int32, description string) {
	h := ac.h
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.faults.AMQP.CBS
	if f == nil || !h.strikeLocked(&f.Trigger, "") {
		return 0, ""
	}
	return int32(cmp.Or(f.Status, 401)), cmp.Or(f.Description, "Unauthorized")
}

// cbsAnswers are the links from $cbs, and the answers that wait for one, or for its
// credit.
type cbsAnswers struct {
	links   []*amqp.Sender // oldest first
	waiting []cbsAnswer
}

type cbsAnswer struct {
	channel uint16
	m       *amqp.Message
}

// maxCBSAnswers that nobody fetches.
const maxCBSAnswers = 100

func (c *cbsAnswers) attach(s *amqp.Sender) amqp.Outlet {
	c.links = append(c.links, s)
	return &cbsOutlet{c, s}
}

func (c *cbsAnswers) send(channel uint16, m *amqp.Message) {
	if c.waiting = append(c.waiting, cbsAnswer{channel, m}); len(c.waiting) > maxCBSAnswers {
		c.waiting = c.waiting[1:]
	}
	c.flush()
}

// flush sends what it can: on the newest link of the request's session if there is
// one, else on the newest of all.
func (c *cbsAnswers) flush() {
	c.waiting = slices.DeleteFunc(c.waiting, func(a cbsAnswer) bool {
		var to *amqp.Sender
		for _, s := range c.links {
			if to == nil || s.Channel() == a.channel || to.Channel() != a.channel {
				to = s
			}
		}
		return to != nil && to.Push(a.m, nil) == nil
	})
}

type cbsOutlet struct {
	c *cbsAnswers
	s *amqp.Sender
}

func (o *cbsOutlet) Credit() { o.c.flush() }
func (o *cbsOutlet) Detached(error) {
	o.c.links = slices.DeleteFunc(o.c.links, func(s *amqp.Sender) bool { return s == o.s })
}
