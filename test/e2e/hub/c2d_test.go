package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/sas"
	"websocketbridge/signaler/signalertest"
	"websocketbridge/test/emulator"
)

// TestC2DConformance runs the suite over each transport, with each credential and
// against each kind of gateway.
func TestC2DConformance(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name                     string
		webSocket, entra, noFlow bool
	}{
		{"TLS, key", false, false, false},
		{"TLS, Entra ID, Gateway v2", false, true, true},
		{"WebSocket, key, Gateway v2", true, false, true},
		{"WebSocket, Entra ID", true, true, false},
	} {
		t.Run(way.name, func(t *testing.T) {
			signalertest.Run(t, func(t *testing.T) signalertest.Harness {
				flow := emulator.AMQPFaults{FlowWithoutNextIncomingID: way.noFlow}
				l := newC2DLab(t, emulator.Config{Faults: emulator.Faults{AMQP: flow}}, func(l *c2dLab, c *c2d.Config) {
					if way.webSocket {
						c.WebSocket, c.Addr = true, l.hub.HTTPSAddr()
					}
					if way.entra {
						c.Credential = c2dSource(bearer)
					}
				})
				if err := l.hub.DeleteDevice("pump-7"); err != nil {
					t.Fatal(err)
				}
				return l.harness(flow)
			})
		})
	}
}

func (l *c2dLab) harness(flow emulator.AMQPFaults) signalertest.Harness {
	known := make(map[string]bool)
	fail := func(f emulator.C2DFault) { l.faults(emulator.Faults{AMQP: flow, C2D: &f}) }
	return signalertest.Harness{
		Signaler: l.s, Queues: true, UnderWay: 20,
		Register: func(_ *testing.T, id string) { l.put(id); known[id] = true },
		Connect: func(_ *testing.T, id string, h signaler.Handler) {
			if !known[id] {
				l.put(id)
			}
			l.device(id, func(ctx context.Context, m c2dMessage) { h(ctx, signaler.Delivery{Payload: m.payload}) })
		},
		Fail: func(t *testing.T, err error) {
			condition, ok := map[error]string{
				signaler.ErrThrottled:    "com.microsoft:device-container-throttled",
				signaler.ErrUnauthorized: "amqp:unauthorized-access",
				signaler.ErrNotSupported: "amqp:not-implemented",
				signaler.ErrUnavailable:  "amqp:internal-error",
			}[err]
			if !ok {
				t.Fatalf("no fault for %v", err)
			}
			fail(emulator.C2DFault{Outcome: "rejected", Condition: condition})
		},
		Stall: func(*testing.T) { fail(emulator.C2DFault{Outcome: "none"}) },
	}
}

// TestC2DMessage: what is on the wire.
func TestC2DMessage(t *testing.T) {
	t.Parallel()
	for _, feedback := range []bool{false, true} {
		l := newC2DLab(t, emulator.Config{}, func(_ *c2dLab, c *c2d.Config) {
			if feedback {
				c.Feedback = func(c2d.Feedback) {}
			}
		})
		got := make(chan c2dMessage, 1)
		l.device("pump-7", func(_ context.Context, m c2dMessage) { got <- m })
		s := c2dSignal("pump-7", "b-7f3a")
		if err := l.s.Signal(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		m := <-got
		want, err := s.Encode()
		if err != nil || string(m.payload) != string(want) {
			t.Errorf("got payload %q, %v", m.payload, err)
		}
		bag, err := url.ParseQuery(m.topic[strings.LastIndex(m.topic, "/")+1:])
		if err != nil {
			t.Fatal(err)
		}
		if bag.Get("$.mid") != "b-7f3a" || bag.Get("bridge-signal") != "v1" || bag.Get("$.to") != "/devices/pump-7/messages/devicebound" {
			t.Errorf("got %q", bag)
		}
		if exp, err := time.Parse(time.RFC3339Nano, bag.Get("$.exp")); err != nil || exp.Sub(s.ExpiresAt).Abs() > time.Millisecond {
			t.Errorf("got expiry %q for %v", bag.Get("$.exp"), s.ExpiresAt)
		}
		if ack := bag.Get("iothub-ack"); (ack == "full") != feedback || ack != "" && !feedback {
			t.Errorf("got ack %q with feedback %t", ack, feedback)
		}
		// A signal without an expiry or a bridge.
		if err := l.s.Signal(t.Context(), &signaler.Signal{AcceptURL: "wss://relay.example/x", DeviceID: "pump-7"}); err != nil {
			t.Fatal(err)
		}
		bag, _ = url.ParseQuery((<-got).topic)
		if exp, err := time.Parse(time.RFC3339Nano, bag.Get("$.exp")); err != nil || time.Until(exp) < 50*time.Second || time.Until(exp) > 61*time.Second || bag.Has("$.mid") {
			t.Errorf("got %q", bag)
		}
	}
}

// TestC2DOddIDs: whatever an identity may be called.
func TestC2DOddIDs(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{}, nil)
	for _, id := range []string{"50%#?", "a+b", "-.+%_#*?!(),=@$'", "a:b", strings.Repeat("x", 128)} {
		l.put(id)
		l.must(id, "b")
	}
	l.fails("pump-8", signaler.ErrDeviceNotFound)
	l.fails("", signaler.ErrDeviceNotFound)
	l.fails("pump-7/../pump-7", signaler.ErrDeviceNotFound)
	l.fails("PUMP-7", signaler.ErrDeviceNotFound)
}

// TestC2DRefusedMessages: a message that the hub refuses leaves the connection as it
// is for the next.
func TestC2DRefusedMessages(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{MessageQueue: 2}, nil)
	l.put("pump-9")
	for range 5 {
		l.fails("pump-8", signaler.ErrDeviceNotFound)
	}
	l.must("pump-7", "b1")
	l.must("pump-7", "b2")
	l.fails("pump-7", signaler.ErrThrottled) // nobody fetches them
	l.must("pump-9", "b1")
	if n := l.hub.Stats().TokensPut; n != 1 {
		t.Errorf("it took %d connections", n)
	}
}

// TestC2DOutcomes: only accepted is good; what passes by itself is tried again.
func TestC2DOutcomes(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{}, nil)
	for _, outcome := range []string{"released", "modified", "rejected"} {
		l.faults(emulator.Faults{C2D: &emulator.C2DFault{Outcome: outcome, Trigger: emulator.Trigger{Times: 2}}})
		l.must("pump-7", outcome)
		l.faults(emulator.Faults{C2D: &emulator.C2DFault{Outcome: outcome}})
		l.fails("pump-7", signaler.ErrUnavailable)
	}
	for condition, want := range map[string]error{
		"amqp:not-found":                           signaler.ErrDeviceNotFound,
		"amqp:resource-limit-exceeded":             signaler.ErrThrottled,
		"com.microsoft:device-container-throttled": signaler.ErrThrottled,
		"com.microsoft:quota-exceeded":             signaler.ErrThrottled,
		"amqp:link:message-size-exceeded":          signaler.ErrTooBig,
		"amqp:unauthorized-access":                 signaler.ErrUnauthorized,
		"com.microsoft:argument-error":             signaler.ErrUnavailable,
		"com.microsoft:iot-hub-suspended":          signaler.ErrUnavailable,
		"some:thing-new":                           signaler.ErrUnavailable,
	} {
		l.faults(emulator.Faults{C2D: &emulator.C2DFault{Outcome: "rejected", Condition: condition}})
		l.fails("pump-7", want)
	}
	l.faults(emulator.Faults{})
	l.must("pump-7", "b")
}

// TestC2DTier: a hub of the basic tier takes no messages.
func TestC2DTier(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{Tier: emulator.Basic}, nil)
	l.fails("pump-7", signaler.ErrNotSupported)
}

// TestC2DNoRight: a policy that may not send.
func TestC2DNoRight(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) { c.Credential = l.keys("registryRead") })
	start := time.Now()
	l.fails("pump-7", signaler.ErrUnauthorized)
	l.fails("pump-7", signaler.ErrUnauthorized)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("said after %v", d)
	}
}

// TestC2DWrongKeyCorrected: the relay need not be restarted.
func TestC2DWrongKeyCorrected(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := false
	l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) {
		right := l.keys("service")
		c.Credential = c2dSource(func() (credential.Token, error) {
			mu.Lock()
			defer mu.Unlock()
			if good {
				return right.Token(context.Background())
			}
			text, err := sas.Sign(l.hub.HostName(), "service", "d3Jvbmcga2V5", time.Now().Add(time.Hour))
			return credential.Token{Text: text, Expires: time.Now().Add(time.Hour)}, err
		})
	})
	l.fails("pump-7", signaler.ErrUnauthorized)
	mu.Lock()
	good = true
	mu.Unlock()
	l.wait("the right key is used", func() bool { return l.signal("pump-7", "b") == nil })
	if strings.Contains(l.log.String(), "SharedAccessSignature") || strings.Contains(l.log.String(), "t0k3n") {
		t.Errorf("the log holds a secret:\n%s", l.log)
	}
}

// TestC2DTokensExpire: tokens that live for seconds, and a hub that cuts at once. The
// connection stays, since each is renewed in time.
func TestC2DTokensExpire(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{TokenGrace: -1}, func(l *c2dLab, c *c2d.Config) {
		cs, err := sas.ParseConnectionString(l.hub.ServiceConnectionString("service"))
		if err != nil {
			t.Fatal(err)
		}
		c.Credential = c2dSource(func() (credential.Token, error) {
			expires := time.Now().Add(6 * time.Second).Truncate(time.Second)
			text, err := sas.Sign(cs.Resource(), cs.PolicyName, cs.Key, expires)
			return credential.Token{Text: text, Expires: expires}, err
		})
	})
	l.device("pump-7", func(context.Context, c2dMessage) {})
	for i := 0; l.hub.Stats().TokensPut < 4; i++ {
		l.must("pump-7", fmt.Sprint("b", i))
	}
	if n := strings.Count(l.log.String(), "\n"); n != 1 {
		t.Errorf("the connection did not last:\n%s", l.log)
	}

	// Without renewal the hub cuts, and the next connection signs in anew.
	l.faults(emulator.Faults{AMQP: emulator.AMQPFaults{CBS: &emulator.CBSFault{}}})
	l.wait("the hub is lost", func() bool { up, _, _ := l.s.State(); return !up })
	l.faults(emulator.Faults{})
	l.wait("the hub is back", func() bool { return l.signal("pump-7", "b") == nil })
}

// TestC2DLosses: no loss of a link or a connection loses a signal.
func TestC2DLosses(t *testing.T) {
	t.Parallel()
	for _, action := range []emulator.Action{
		{Do: "detach"}, {Do: "close"}, {Do: "dropAll"},
		{Do: "detach", Condition: "com.microsoft:iot-hub-not-found-error"},
	} {
		t.Run(action.Do+action.Condition, func(t *testing.T) {
			l := newC2DLab(t, emulator.Config{MessageQueue: 10_000}, nil)
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					for j := range 20 {
						l.must("pump-7", fmt.Sprintf("b%d-%d", i, j))
					}
				})
			}
			for range 3 {
				l.waitUp()
				l.do(action)
				l.wait("the loss is noticed", func() bool { up, _, _ := l.s.State(); return !up || l.hub.Stats().MessagesAccepted >= 200 })
			}
			wg.Wait()
			if n := l.hub.Stats().MessagesAccepted; n < 200 {
				t.Errorf("the hub took %d messages", n)
			}
		})
	}
}

// TestC2DCutInTheAnswer: the socket breaks in the middle of the hub's answer, so the
// fate of the message is unknown.
func TestC2DCutInTheAnswer(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{MessageQueue: 1000, Faults: emulator.Faults{AMQP: emulator.AMQPFaults{Cut: &emulator.Trigger{Every: 4}}}}, nil)
	for i := range 8 {
		l.must("pump-7", fmt.Sprint("b", i))
	}
	if n := l.hub.Stats().MessagesAccepted; n != 10 {
		t.Errorf("the hub took %d messages; 8 and the 2 that were sent again were expected", n)
	}
}

// TestC2DHalfOpen: a connection that carries nothing any more is noticed: in time
// for a signal that waits, and also if none does.
func TestC2DHalfOpen(t *testing.T) {
	t.Parallel()
	for _, webSocket := range []bool{false, true} {
		t.Run(map[bool]string{false: "TLS", true: "WebSocket"}[webSocket], func(t *testing.T) {
			var w *c2dWire
			l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) {
				w = newC2DWire(t, l.hub.AMQPAddr())
				if c.WebSocket = webSocket; webSocket {
					w = newC2DWire(t, l.hub.HTTPSAddr())
				}
				c.Addr, c.SilenceTimeout, c.IdleTimeout = w.addr(), 300*time.Millisecond, 2*time.Second
			})
			l.must("pump-7", "b1")
			w.freeze()
			start := time.Now()
			l.must("pump-7", "b2")
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("a signal took %v", d)
			}
			w.freeze()
			l.wait("the loss is noticed", func() bool { return strings.Contains(l.log.String(), "the hub is lost") })
			l.must("pump-7", "b3")
			if n := w.count(); n != 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestC2DMuteHub: a hub that lets us in and then says nothing, at each step.
func TestC2DMuteHub(t *testing.T) {
	t.Parallel()
	once := &emulator.Trigger{Times: 1}
	for name, f := range map[string]emulator.AMQPFaults{
		"after OPEN":   {HalfOpen: once},
		"to put-token": {CBSMute: once},
	} {
		t.Run(name, func(t *testing.T) {
			l := newC2DLab(t, emulator.Config{Faults: emulator.Faults{AMQP: f}}, func(_ *c2dLab, c *c2d.Config) { c.DialTimeout = 500 * time.Millisecond })
			l.must("pump-7", "b")
		})
	}
	t.Run("to the dial", func(t *testing.T) {
		var w *c2dWire
		l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) {
			w = newC2DWire(t, l.hub.AMQPAddr())
			w.mu.Lock()
			frozen := w.frozen
			close(frozen) // for good: those that come now
			w.mu.Unlock()
			c.Addr, c.DialTimeout = w.addr(), 300*time.Millisecond
		})
		l.wait("a second dial", func() bool { return w.count() > 1 })
		w.mu.Lock()
		w.frozen = make(chan struct{})
		w.mu.Unlock()
		l.must("pump-7", "b")
	})
}

// TestC2DNoCredit: Signal keeps to its ctx, however many wait.
func TestC2DNoCredit(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{Faults: emulator.Faults{AMQP: emulator.AMQPFaults{Credit: &emulator.Trigger{}}}}, nil)
	l.waitUp()
	left := errors.New("requester left")
	var wg sync.WaitGroup
	start := time.Now()
	for range 300 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, left)
			defer cancel()
			if err := l.s.Signal(ctx, c2dSignal("pump-7", "b")); !errors.Is(err, left) || !errors.Is(err, signaler.ErrTimedOut) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	l.faults(emulator.Faults{})
	l.do(emulator.Action{Do: "detach"})
	l.must("pump-7", "b")
}

// TestC2DHubDownAtStart: the relay may start before the hub.
func TestC2DHubDownAtStart(t *testing.T) {
	t.Parallel()
	var w *c2dWire
	l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) {
		w = newC2DWire(t, l.hub.AMQPAddr())
		w.refuse(true)
		c.Addr, c.ConnectWait = w.addr(), time.Second
	})
	l.fails("pump-7", signaler.ErrUnavailable)
	w.refuse(false)
	l.wait("the hub is there", func() bool { return l.signal("pump-7", "b") == nil })
}

// TestC2DLinkRefused: the link's own errors are told.
func TestC2DLinkRefused(t *testing.T) {
	t.Parallel()
	for condition, want := range map[string]error{"amqp:unauthorized-access": signaler.ErrUnauthorized, "amqp:not-found": signaler.ErrUnavailable} {
		f := emulator.Faults{AMQP: emulator.AMQPFaults{Link: &emulator.LinkFault{Address: "devicebound", Condition: condition}}}
		l := newC2DLab(t, emulator.Config{Faults: f}, func(_ *c2dLab, c *c2d.Config) { c.ConnectWait = time.Second })
		l.wait("a refusal", func() bool { _, _, err := l.s.State(); return err != nil })
		l.fails("pump-7", want)
	}
}

// TestC2DUntrusted: a hub whose certificate is not signed by who we trust.
func TestC2DUntrusted(t *testing.T) {
	t.Parallel()
	l := newC2DLab(t, emulator.Config{}, func(_ *c2dLab, c *c2d.Config) { c.TLS, c.ConnectWait = nil, time.Second })
	l.wait("a failure", func() bool { _, _, err := l.s.State(); return err != nil })
	err := l.signal("pump-7", "b")
	if !errors.Is(err, signaler.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

// TestC2DProxy: a WebSocket goes through a proxy that wants to know who we are.
func TestC2DProxy(t *testing.T) {
	t.Parallel()
	addr, used := c2dProxy(t, "relay", "s3cret")
	through := func(user *url.Userinfo, wait time.Duration) func(*c2dLab, *c2d.Config) {
		return func(l *c2dLab, c *c2d.Config) {
			c.WebSocket, c.Addr, c.ConnectWait = true, l.hub.HTTPSAddr(), wait
			c.Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: addr, User: user}, nil }
		}
	}
	newC2DLab(t, emulator.Config{}, through(url.UserPassword("relay", "s3cret"), c2dPatience)).must("pump-7", "b")
	if used() != 1 {
		t.Errorf("the proxy was used %d times", used())
	}
	l := newC2DLab(t, emulator.Config{}, through(url.UserPassword("relay", "wr0ng"), time.Second))
	l.wait("a failure", func() bool { _, _, err := l.s.State(); return err != nil })
	err := l.signal("pump-7", "b")
	if !errors.Is(err, signaler.ErrUnavailable) || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("got %v", err)
	}
}

// TestC2DFeedback: what became of the messages, also after the link was lost.
func TestC2DFeedback(t *testing.T) {
	t.Parallel()
	got := make(chan c2d.Feedback, 100)
	l := newC2DLab(t, emulator.Config{FeedbackEvery: 20 * time.Millisecond}, func(_ *c2dLab, c *c2d.Config) {
		c.Feedback = func(f c2d.Feedback) { got <- f }
	})
	l.device("pump-7", func(context.Context, c2dMessage) {})
	for i := range 3 {
		id := fmt.Sprint("b", i)
		l.must("pump-7", id)
		for late := time.After(c2dPatience); ; {
			var f c2d.Feedback
			select {
			case f = <-got:
			case <-late:
				t.Fatalf("no feedback for %s", id)
			}
			if f.DeviceID != "pump-7" || f.Status != "Success" || time.Since(f.Enqueued).Abs() > time.Minute {
				t.Errorf("got %+v", f)
			}
			if f.MessageID == id { // what was not accepted before a loss comes again
				break
			}
		}
		l.do(emulator.Action{Do: "detach"})
	}
}

// TestC2DFeedbackLinkAgain: a link that is refused, or breaks alone, is attached
// again on the connection that there is.
func TestC2DFeedbackLinkAgain(t *testing.T) {
	t.Parallel()
	got := make(chan c2d.Feedback, 100)
	f := emulator.Faults{AMQP: emulator.AMQPFaults{Link: &emulator.LinkFault{Address: "feedback", Trigger: emulator.Trigger{Times: 2}}}}
	l := newC2DLab(t, emulator.Config{FeedbackEvery: 20 * time.Millisecond, Faults: f}, func(_ *c2dLab, c *c2d.Config) {
		c.Feedback = func(f c2d.Feedback) { got <- f }
	})
	l.device("pump-7", func(context.Context, c2dMessage) {})
	l.must("pump-7", "b")
	select {
	case <-got:
	case <-time.After(c2dPatience):
		t.Error("no feedback")
	}
	if n := l.hub.Stats().TokensPut; n != 1 {
		t.Errorf("it took %d connections", n)
	}
}

// TestC2DFeedbackNotAllowed: messages go all the same.
func TestC2DFeedbackNotAllowed(t *testing.T) {
	t.Parallel()
	f := emulator.Faults{AMQP: emulator.AMQPFaults{Link: &emulator.LinkFault{Address: "feedback", Condition: "amqp:unauthorized-access"}}}
	l := newC2DLab(t, emulator.Config{Faults: f}, func(_ *c2dLab, c *c2d.Config) { c.Feedback = func(c2d.Feedback) {} })
	l.wait("the refusal is logged", func() bool { return strings.Contains(l.log.String(), "feedback cannot be read") })
	l.must("pump-7", "b")
	if n := l.hub.Stats().TokensPut; n != 1 {
		t.Errorf("it took %d connections", n)
	}
}
