package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/lent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/test/emulator"
)

// A hub some way off: its acknowledgements take a while, as the library's trap
// with ordered callbacks needs it (IoT Hub, seen from a device: 20 to 200 ms).
var farAway = emulator.Config{Faults: emulator.Faults{MQTT: emulator.MQTTFaults{PubAckDelay: emulator.Duration(20 * time.Millisecond)}}}

// The program's traffic and ours, all four kinds at once, everything arrives where
// it belongs. Without the Guard the first two methods that meet stop the client.
func TestLentUnderLoad(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, farAway, nil)
	mine := r.own()
	_, ours, _ := r.source(lent.Both)
	r.joined()
	r.listening()
	const n = 60
	var work sync.WaitGroup
	together := func(what string, f func(i int) error) {
		next := make(chan int, n)
		for i := range n {
			next <- i
		}
		close(next)
		for range 4 {
			work.Go(func() {
				for i := range next {
					if err := f(i); err != nil {
						t.Errorf("%s %d: %v", what, i, err)
					}
				}
			})
		}
	}
	together("our method", func(i int) error { return r.signal(r.byMethod, i) })
	together("the program's method", func(i int) error {
		status, answer, err := r.call("Reboot", map[string]any{"in": i})
		if err == nil && (status != 202 || answer["in"] != float64(i)) {
			err = fmt.Errorf("%d, %v", status, answer)
		}
		return err
	})
	work.Go(func() { // one after the other: a device's queue holds 50
		for i := range n {
			if err := r.signal(r.byMessage, 1000+i); err != nil {
				t.Errorf("our message %d: %v", i, err)
			}
			if err := r.message(fmt.Sprint(i)); err != nil {
				t.Errorf("the program's message %d: %v", i, err)
			}
			r.until("both have theirs", func() bool {
				messages, _ := ours.counts()
				return messages > i && mine() > i
			})
		}
	})
	work.Wait()
	if messages, methods := ours.counts(); messages != n || methods != n || mine() != n {
		t.Errorf("the agent has %d messages and %d methods, the program %d messages; want %d each", messages, methods, mine(), n)
	}
}

// The connection is cut and comes back, with everybody's subscriptions.
func TestLentReconnects(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, emulator.Config{}, nil)
	mine := r.own()
	_, ours, stop := r.source(lent.Both)
	r.joined()
	r.listening()
	for round := 1; round <= 3; round++ {
		connects := r.hub.Stats().Connects[lentDevice]
		r.hub.Disconnect(lentDevice, "")
		r.until("it has dialled again", func() bool { return r.hub.Stats().Connects[lentDevice] > connects })
		r.listening()
		if err := r.signal(r.byMethod, round); err != nil {
			t.Errorf("round %d: our method: %v", round, err)
		}
		if err := r.signal(r.byMessage, 100+round); err != nil {
			t.Errorf("round %d: our message: %v", round, err)
		}
		if status, _, err := r.call("Reboot", map[string]any{}); status != 202 || err != nil {
			t.Errorf("round %d: the program's method: %d, %v", round, status, err)
		}
		if err := r.message(fmt.Sprint("m", round)); err != nil {
			t.Errorf("round %d: the program's message: %v", round, err)
		}
		r.until("all is there", func() bool {
			messages, methods := ours.counts()
			return messages == round && methods == round && mine() == round
		})
	}
	stop()
	// What is left answers at once, also on the next connection.
	connects := r.hub.Stats().Connects[lentDevice]
	r.hub.Disconnect(lentDevice, "")
	r.until("it has dialled again", func() bool { return r.hub.Stats().Connects[lentDevice] > connects })
	r.listening()
	var no *signaler.RefusedError
	if err := r.signal(r.byMethod, 9); !errors.As(err, &no) || no.Code != "stopping" {
		t.Errorf("after the agent's end: %v", err)
	}
	if status, _, err := r.call("Reboot", map[string]any{}); status != 202 || err != nil {
		t.Errorf("the program's method after the agent's end: %d, %v", status, err)
	}
}

// The agent starts while the program's connection is down: a subscription now would
// make the client deaf for good, the program's own methods included.
func TestLentStartsWhileDown(t *testing.T) {
	t.Parallel()
	var dials atomic.Int32
	r := newLentRig(t, emulator.Config{}, func(o *paho.ClientOptions) {
		o.SetConnectionAttemptHandler(func(_ *url.URL, cfg *tls.Config) *tls.Config {
			dials.Add(1)
			return cfg
		})
	})
	if err := r.hub.SetFaults(emulator.Faults{MQTT: emulator.MQTTFaults{ConnAck: &emulator.ConnAckFault{}}}); err != nil {
		t.Fatal(err)
	}
	again := func() {
		n := dials.Load()
		r.until("the client has tried in vain", func() bool { return dials.Load() > n+1 }) // one may have begun before
	}
	r.hub.Disconnect(lentDevice, "")
	again()
	_, ours, _ := r.source(lent.Both)
	again()
	if err := r.hub.SetFaults(emulator.Faults{}); err != nil {
		t.Fatal(err)
	}
	r.joined()
	r.listening()
	if err := r.signal(r.byMethod, 1); err != nil {
		t.Error(err)
	}
	if _, methods := ours.counts(); methods != 1 {
		t.Errorf("%d signals", methods)
	}
	if err := r.client.RegisterMethod(context.Background(), "Reboot", func(map[string]any) (int, map[string]any, error) { return 202, nil, nil }); err != nil {
		t.Fatal(err)
	}
	if status, _, err := r.call("Reboot", map[string]any{}); status != 202 || err != nil {
		t.Errorf("the program's method: %d, %v", status, err)
	}
}

// A hub that puts the message's own properties first: the library loses them, and
// only the body says whose message it is.
func TestLentPropertiesAreLost(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, emulator.Config{Faults: emulator.Faults{MQTT: emulator.MQTTFaults{PropertiesFirst: true}}}, nil)
	_, ours, _ := r.source(lent.MessagesOnly)
	r.joined()
	if err := r.hub.WaitListening(r.ctx(), lentDevice, "", emulator.ListenMessages); err != nil {
		t.Fatal(err)
	}
	if err := r.message("the program's"); err != nil {
		t.Fatal(err)
	}
	if err := r.signal(r.byMessage, 1); err != nil {
		t.Fatal(err)
	}
	r.until("it is there", func() bool { messages, _ := ours.counts(); return messages == 1 })
}

// A host that undoes the guard is told before its client hangs.
func TestLentRefusesOrder(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, emulator.Config{}, func(o *paho.ClientOptions) { o.SetOrderMatters(true) })
	s, err := lent.New(lent.Config{Client: r.client, Guard: r.guard})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(r.ctx(), nil); !errors.Is(err, lent.ErrUnguarded) {
		t.Errorf("got %v", err)
	}
}

// From the requester to a target on the device, over the program's connection.
func TestLentBridge(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, farAway, nil)
	mine := r.own()
	source, err := lent.New(lent.Config{Client: r.client, Guard: r.guard, Logger: r.logger()})
	if err != nil {
		t.Fatal(err)
	}
	targets, err := deviceagent.ParseTargets([]string{"echo"})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID: r.client.DeviceID(), Source: source, RelayHosts: []string{"127.0.0.1"}, Targets: targets, Logger: r.logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.run("agent", agent.Run)
	r.joined()
	r.listening()
	both, err := auto.New(auto.Config{Method: r.byMethod, Message: r.byMessage})
	if err != nil {
		t.Fatal(err)
	}
	for name, way := range map[string]signaler.Signaler{"message": r.byMessage, "method": r.byMethod, "auto": both} {
		t.Run(name, func(t *testing.T) {
			url := r.relay(way)
			ask := func(target string) error {
				sess, err := client.Dial(r.ctx(), client.Config{URL: url}, client.Request{Device: lentDevice, Targets: []string{target}})
				if err != nil {
					return err
				}
				defer sess.Close()
				st, err := sess.Open(r.ctx(), target)
				if err != nil {
					return err
				}
				defer st.Close()
				return echo(st, "over a lent connection")
			}
			if err := ask("echo"); err != nil {
				t.Error(err)
			}
			var e *client.Error
			if err := ask("ssh"); !errors.As(err, &e) || e.DeviceCode != "target_not_allowed" {
				t.Errorf("a target that is not listed: %v", err)
			}
		})
	}
	if err := r.message("hello"); err != nil {
		t.Fatal(err)
	}
	r.until("the program has its message", func() bool { return mine() == 1 })
}

// relay runs a relay that signals by way, and returns its URL.
func (r *lentRig) relay(way signaler.Signaler) string {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		r.t.Fatal(err)
	}
	url := "ws://" + ln.Addr().String()
	node, err := relay.New(relay.Config{PublicURL: url, Signaler: way, Keys: ring, Auth: auth.AllowAll{}, Drain: -1, Logger: r.logger()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.run("relay", func(ctx context.Context) error { return node.Run(ctx, relay.Listeners{Public: ln}) })
	return url
}
