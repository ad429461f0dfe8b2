package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/deviceagent/hub"
	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
)

// back is how soon bridges can be made again once a fault is over. A wait that it
// hits is a failure, not a figure.
const back = 15 * time.Second

// impatient shortens what a person would have to wait for, and nothing else.
func impatient(o *townOptions) {
	o.source = func(c *hub.Config) { c.KeepAlive = time.Second }
	o.c2d = func(c *c2d.Config) { c.IdleTimeout, c.SilenceTimeout = 2*time.Second, time.Second }
}

// Whatever the hub does, an open bridge does not notice, and signalling is back
// soon after.
func TestFaults(t *testing.T) {
	t.Parallel()
	always := &emulator.Trigger{}
	for _, tt := range []struct {
		name   string
		faults emulator.Faults
		cut    bool   // the connections there are, once the faults are set
		want   string // the code a bridge is refused with meanwhile; "": it is made
	}{
		{name: "every connection is cut", cut: true},
		{name: "cut in the middle of a PUBLISH", faults: emulator.Faults{MQTT: emulator.MQTTFaults{Cut: &emulator.Trigger{Times: 1}}}},
		{name: "cut in the middle of a disposition", faults: emulator.Faults{AMQP: emulator.AMQPFaults{Cut: &emulator.Trigger{Times: 1}}}},
		{name: "half-open TCP of the agent", cut: true, faults: emulator.Faults{MQTT: emulator.MQTTFaults{HalfOpen: &emulator.Trigger{Times: 1}}}},
		{name: "half-open TCP of the relay", cut: true, faults: emulator.Faults{AMQP: emulator.AMQPFaults{HalfOpen: &emulator.Trigger{Times: 1}}}},
		{name: "throttled", want: "hub_throttled", faults: emulator.Faults{
			Method: &emulator.AnswerFault{Error: "throttled"},
			C2D:    &emulator.C2DFault{Outcome: "rejected", Condition: "com.microsoft:device-container-throttled"},
		}},
		{name: "throttled once", faults: emulator.Faults{
			Method: &emulator.AnswerFault{Trigger: emulator.Trigger{Nth: 1000}, Error: "throttled"},
			C2D:    &emulator.C2DFault{Trigger: emulator.Trigger{Nth: 1000}, Outcome: "rejected", Condition: "com.microsoft:device-container-throttled"},
		}},
		{name: "detach-forced", faults: emulator.Faults{AMQP: emulator.AMQPFaults{Link: &emulator.LinkFault{Trigger: emulator.Trigger{Times: 2}}}}, cut: true},
		{name: "FLOW without next-incoming-id", cut: true, faults: emulator.Faults{AMQP: emulator.AMQPFaults{FlowWithoutNextIncomingID: true}}},
		{name: "released", want: "hub_failed", faults: emulator.Faults{
			Method: &emulator.AnswerFault{Error: "unavailable"}, C2D: &emulator.C2DFault{Outcome: "released"}}},
		{name: "slow PUBACK", faults: emulator.Faults{MQTT: emulator.MQTTFaults{PubAckDelay: emulator.Duration(2 * time.Second), MethodQoS: 1}}},
		{name: "no PUBACK", faults: emulator.Faults{MQTT: emulator.MQTTFaults{PubAckMute: always, MethodQoS: 1}}},
		{name: "a deaf subscription", cut: true, faults: emulator.Faults{MQTT: emulator.MQTTFaults{Deaf: &emulator.DeafFault{Trigger: emulator.Trigger{Times: 2}}}}},
		{name: "CONNECT is refused for a while", cut: true, faults: emulator.Faults{MQTT: emulator.MQTTFaults{ConnAck: &emulator.ConnAckFault{Trigger: emulator.Trigger{Times: 3}}}}},
		{name: "messages twice", faults: emulator.Faults{C2DDuplicate: always, MQTT: emulator.MQTTFaults{Duplicate: always}}},
		{name: "CBS refuses once", cut: true, faults: emulator.Faults{AMQP: emulator.AMQPFaults{CBS: &emulator.CBSFault{Trigger: emulator.Trigger{Times: 1}, Status: 500}}}},
	} {
		for _, way := range ways {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				o := townOptions{way: way}
				impatient(&o)
				tn := newTown(t, o)
				open := tn.open("pump-7")
				if err := tn.hub.SetFaults(tt.faults); err != nil {
					t.Fatal(err)
				}
				if tt.cut {
					tn.hub.DropAll()
				}
				if tt.want == "" {
					if took := tn.untilBridge("pump-7"); took > back {
						t.Errorf("signalling took %v to come back", took)
					}
				} else if err := tn.bridge(tn.ctx(), "pump-7"); !isCode(err, tt.want) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				open.check(t)
				if err := tn.hub.SetFaults(emulator.Faults{}); err != nil {
					t.Fatal(err)
				}
				if took := tn.untilBridge("pump-7"); took > back {
					t.Errorf("signalling took %v to come back", took)
				}
				open.check(t)
				tn.checkLog(t)
			})
		}
	}
}

// isCode says whether err is the relay's refusal with that code.
func isCode(err error, code string) bool {
	e := (*client.Error)(nil)
	return errors.As(err, &e) && string(e.Code) == code
}

// checkLog: no secret, and no storm.
func (tn *town) checkLog(t *testing.T) {
	t.Helper()
	log := tn.log.String()
	for _, secret := range []string{wire.ParamBridgeToken, "SharedAccessSignature", "sig=", "acceptUrl"} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("%q is in the log: %s", secret, log[max(0, i-200):min(len(log), i+50)])
		}
	}
	if n := strings.Count(log, "\n"); n > 400 {
		t.Errorf("the log has %d lines", n)
	}
}

// A hub that is away when everybody starts, and comes later.
func TestHubDownAtStart(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			o := townOptions{way: way, hub: emulator.Config{Faults: emulator.Faults{
				Method: &emulator.AnswerFault{Error: "unavailable"},
				MQTT:   emulator.MQTTFaults{ConnAckMute: &emulator.Trigger{}},
				AMQP:   emulator.AMQPFaults{HalfOpen: &emulator.Trigger{}},
			}}, unready: true}
			impatient(&o)
			source := o.source
			o.source = func(c *hub.Config) { source(c); c.ConnectTimeout = time.Second }
			relayTo := o.c2d
			o.c2d = func(c *c2d.Config) { relayTo(c); c.DialTimeout, c.ConnectWait = time.Second, 2*time.Second }
			tn := newTown(t, o)
			if err := tn.bridge(tn.ctx(), "pump-7"); !isCode(err, "hub_failed") {
				t.Errorf("got %v, want hub_failed", err)
			}
			if err := tn.hub.SetFaults(emulator.Faults{}); err != nil {
				t.Fatal(err)
			}
			if took := tn.untilBridge("pump-7"); took > back {
				t.Errorf("signalling took %v", took)
			}
			tn.checkLog(t)
		})
	}
}

// Somebody else connects with the agent's identity, once: the agent comes back, and
// bridges do not notice. (That it stops if this goes on is the agent's own test.)
func TestTakeoverOnce(t *testing.T) {
	t.Parallel()
	tn := newTown(t, townOptions{way: "auto"})
	open := tn.open("pump-7")
	text, err := tn.hub.DeviceConnectionString("pump-7")
	if err != nil {
		t.Fatal(err)
	}
	cs, err := sas.ParseConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	password, err := sas.Sign(cs.Resource(), "", cs.Key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tls://" + tn.hub.MQTTAddr()).SetTLSConfig(tn.trust()).
		SetClientID("pump-7").SetUsername(cs.HostName + "/pump-7/?api-version=2021-04-12").SetPassword(password).SetAutoReconnect(false))
	if token := c.Connect(); !token.WaitTimeout(townPatience) || token.Error() != nil {
		t.Fatalf("the other client: %v", token.Error())
	}
	open.check(t)
	tn.untilBridge("pump-7")
	open.check(t)
	c.Disconnect(0)
	if n := tn.hub.Stats().Takeovers; n != 2 {
		t.Errorf("%d takeovers, want ours and theirs", n)
	}
}

// Many bridges at once, to one device and to as many devices.
func TestConcurrent(t *testing.T) {
	const n = atOnce
	for _, way := range ways {
		for _, devices := range []int{1, n} {
			t.Run(fmt.Sprintf("%s to %d", way, devices), func(t *testing.T) {
				o := townOptions{way: way, maxBridges: n}
				for i := range devices {
					o.devices = append(o.devices, fmt.Sprintf("pump-%d", i))
				}
				o.relay = func(c *relay.Config) { c.DialBack = townPatience }
				tn := newTown(t, o)
				errs := make(chan error, n)
				for i := range n {
					go func() {
						ctx, cancel := context.WithTimeout(context.Background(), 2*townPatience)
						defer cancel()
						errs <- tn.bridge(ctx, o.devices[i%devices])
					}()
				}
				for range n {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
				tn.checkSignals(t, n)
			})
		}
	}
}

// checkSignals: the hub took as many as there were bridges. It may take a moment
// longer than a bridge to say so.
func (tn *town) checkSignals(t *testing.T, want int) {
	t.Helper()
	took := func() int {
		s := tn.hub.Stats()
		return s.MessagesAccepted + s.Methods["answered"]
	}
	for deadline := time.After(townPatience); took() != want; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the hub took %d signals for %d bridges", took(), want)
		}
	}
}
