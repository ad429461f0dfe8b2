package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/test/emulator"
)

// agentKey makes a device one that survives a restart of its hub.
const agentKey = "cHVtcC03LWtleQ=="

// Tokens that live for seconds, and a hub that cuts a connection the moment its
// token expires: no signal is lost, and the hub has little to cut.
func TestAgentRenews(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{2 * time.Second, 3 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			l := newAgentLab(t, emulator.Config{TokenGrace: -1})
			cfg := l.config("")
			cfg.TokenLife = life
			r := l.agent(cfg)
			l.listens("")
			calls, messages := l.calls(""), l.messages()
			stop := make(chan struct{})
			time.AfterFunc(5*life, func() { close(stop) })
			var work sync.WaitGroup
			var sent [2]int
			var longest [2]time.Duration    // until it was taken
			room := make(chan struct{}, 40) // the hub queues 50 messages for a device
			for i, by := range []signaler.Signaler{messages, calls} {
				work.Go(func() {
					for {
						select {
						case <-stop:
							return
						case room <- struct{}{}:
						}
						bridge, began := fmt.Sprint(i, "-", sent[i]), time.Now()
						l.signal(by, bridge)
						longest[i] = max(longest[i], time.Since(began))
						sent[i]++
						work.Go(func() {
							r.hears(bridge)
							<-room
						})
					}
				})
			}
			work.Wait()
			s := r.src.Stats()
			t.Logf("%d messages and %d methods while the token was renewed %d times; the longest took %v and %v", sent[0], sent[1], s.Renewals,
				longest[0].Round(time.Millisecond), longest[1].Round(time.Millisecond))
			// A machine that stands still for a moment may miss a token's end, or have its
			// next connection before the hub has seen the end of the last one.
			if s.Renewals < 3 || s.Losses > s.Renewals/2 || s.Refusals > 0 || s.Dropped > 0 || s.ForeignMessages > 0 || sent[0] < 10 || sent[1] < 10 {
				t.Errorf("sent %v, counted %+v", sent, s)
			}
			got := l.hub.Stats()
			if t.Failed() {
				r.mu.Lock()
				defer r.mu.Unlock()
				more := 0
				for _, n := range r.heard {
					if n > 1 {
						more++
					}
				}
				t.Logf("sent %v; the hub counted %+v, the agent %+v; %d signals heard, %d of them more than once, by %v", sent, got, s, len(r.heard), more, r.by)
			}
		})
	}
}

// What the hub and the network may do to a connection: signals come through, soon
// and once, and no fault of one kind is taken for a rival however often it comes.
func TestAgentFaults(t *testing.T) {
	t.Parallel()
	always := &emulator.Trigger{}
	for _, tt := range []struct {
		name   string
		faults emulator.MQTTFaults
		hub    emulator.Config
		keep   time.Duration // keep-alive
		losses int           // at least
		first  bool          // the losses come before the signals
	}{
		{name: "none"},
		// Not every other one: of two messages of which the first is acknowledged too late, the
		// second would be cut on each connection for ever.
		{name: "every third PUBLISH is cut in the middle", faults: emulator.MQTTFaults{Cut: &emulator.Trigger{Every: 3}}, hub: emulator.Config{MessageLock: time.Second}, losses: 3},
		{name: "half-open", faults: emulator.MQTTFaults{HalfOpen: &emulator.Trigger{Times: 2}}, keep: 2 * time.Second},
		{name: "slow PUBACK", faults: emulator.MQTTFaults{PubAckDelay: emulator.Duration(3 * time.Second), MethodQoS: 1}},
		{name: "no PUBACK", faults: emulator.MQTTFaults{PubAckMute: always, MethodQoS: 1}},
		{name: "no PINGRESP", faults: emulator.MQTTFaults{PingMute: &emulator.Trigger{Times: 1}}, keep: 2 * time.Second, losses: 1, first: true},
		{name: "SUBSCRIBE refused", faults: emulator.MQTTFaults{Deaf: &emulator.DeafFault{Trigger: emulator.Trigger{Times: 5}}}},
		{name: "SUBSCRIBE of messages refused", faults: emulator.MQTTFaults{Deaf: &emulator.DeafFault{Trigger: emulator.Trigger{Times: 5}, Filter: "devicebound"}}},
		{name: "SUBSCRIBE not answered", faults: emulator.MQTTFaults{Deaf: &emulator.DeafFault{Trigger: emulator.Trigger{Times: 3}, How: "ignore"}}},
		{name: "CONNECT not answered", faults: emulator.MQTTFaults{ConnAckMute: &emulator.Trigger{Times: 3}}},
		{name: "unavailable", faults: emulator.MQTTFaults{ConnAck: &emulator.ConnAckFault{Trigger: emulator.Trigger{Times: 5}}}},
		{name: "not authorized", faults: emulator.MQTTFaults{ConnAck: &emulator.ConnAckFault{Trigger: emulator.Trigger{Times: 5}, Code: 5}}},
		{name: "duplicates", faults: emulator.MQTTFaults{Duplicate: always}},
		{name: "properties in another order", faults: emulator.MQTTFaults{PropertiesFirst: true}},
	} {
		for _, webSocket := range []bool{false, true} {
			t.Run(agentName(tt.name, "websocket=", webSocket), func(t *testing.T) {
				t.Parallel()
				l := newAgentLab(t, tt.hub)
				l.faults(emulator.Faults{MQTT: tt.faults})
				cfg := l.config("")
				cfg.WebSocket = webSocket
				if webSocket {
					cfg.Addr = l.hub.HTTPSAddr()
				}
				cfg.KeepAlive, cfg.SubscribeTimeout, cfg.ConnectTimeout = tt.keep, time.Second, time.Second
				r := l.agent(cfg)
				messages, calls := l.messages(), l.calls("")
				const n = 6
				if tt.first {
					l.wait("it is lost", func() bool { return int(r.src.Stats().Losses) >= tt.losses })
				}
				for i := range n {
					l.signal(messages, fmt.Sprint("m", i))
					r.hears(fmt.Sprint("m", i))
				}
				for i := range n {
					bridge := fmt.Sprint("c", i)
					l.wait("it answers "+bridge, func() bool { return calls.Signal(l.ctx(), agentSignal(bridge)) == nil })
					r.hears(bridge)
				}
				if got := r.src.Stats(); int(got.Losses) < tt.losses || tt.losses == 0 && tt.keep == 0 && got.Losses > 0 {
					t.Errorf("counted %+v, want %d losses", got, tt.losses)
				}
				select {
				case <-r.ended:
					t.Errorf("it ended: %v", r.err)
				default:
				}
			})
		}
	}
}

// A hub that grants a subscription and does not heed it: the next renewal mends
// that, and until then messages wait.
func TestAgentLiedTo(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{})
	l.faults(emulator.Faults{MQTT: emulator.MQTTFaults{Deaf: &emulator.DeafFault{Trigger: emulator.Trigger{Times: 2}, How: "lie"}}})
	cfg := l.config("")
	cfg.TokenLife = 2 * time.Second
	r := l.agent(cfg)
	l.wait("it listens in vain", func() bool { return r.src.Stats().Listening })
	l.signal(l.messages(), "patience")
	r.hears("patience")
	if got := r.src.Stats(); got.Renewals == 0 || got.Losses > 0 {
		t.Errorf("counted %+v", got)
	}
}

// A network that swallows everything from one moment on, both ways.
func TestAgentHalfOpen(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{})
	cfg := l.config("")
	cfg.KeepAlive = 2 * time.Second
	var conns []*agentConn
	var mu sync.Mutex
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, &agentConn{Conn: c, closed: make(chan struct{})})
		return conns[len(conns)-1], nil
	}
	r := l.agent(cfg)
	l.listens("")
	for i := range 2 {
		l.wait("it listens", func() bool { return r.src.Stats().Listening })
		losses := r.src.Stats().Losses
		mu.Lock()
		conns[len(conns)-1].frozen.Store(true)
		mu.Unlock()
		l.wait("it notices", func() bool { return r.src.Stats().Losses > losses })
		l.wait("it listens again", func() bool { return r.src.Stats().Listening })
		l.signal(l.messages(), fmt.Sprint("m", i))
		r.hears(fmt.Sprint("m", i))
	}
	l.says("the hub answers no ping: the connection is dead")
}

// Trap 1: many methods at once while the hub is slow with its acknowledgements.
func TestAgentManyAtOnce(t *testing.T) {
	const n = 200
	l := newAgentLab(t, emulator.Config{Faults: emulator.Faults{MQTT: emulator.MQTTFaults{PubAckDelay: emulator.Duration(2 * time.Second), MethodQoS: 1}}})
	r := l.agent(l.config(""))
	l.listens("")
	calls, messages := l.calls(""), l.messages()
	began := time.Now()
	var work sync.WaitGroup
	room := make(chan struct{}, 40) // the hub queues 50 messages for a device
	for i := range n {
		work.Go(func() { l.signal(calls, fmt.Sprint("call-", i)) })
		room <- struct{}{}
		work.Go(func() {
			l.signal(messages, fmt.Sprint("message-", i))
			r.hears(fmt.Sprint("message-", i))
			<-room
		})
	}
	work.Wait()
	t.Logf("%d signals in %v", 2*n, time.Since(began).Round(time.Millisecond))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[true] != n || r.by[false] != n || len(r.heard) != 2*n {
		t.Errorf("heard %d methods and %d messages", r.by[true], r.by[false])
	}
	if got := r.src.Stats(); got.Losses > 0 || got.Dropped > 0 {
		t.Errorf("counted %+v", got)
	}
}

// A hub that is down, at the start and later, is waited for; what waits in its
// queue comes through. It may restart as often as it likes.
func TestAgentHubRestarts(t *testing.T) {
	t.Parallel()
	cfg := emulator.Config{Devices: []emulator.Device{{ID: agentDevice, PrimaryKey: agentKey}}}
	l := newAgentLab(t, cfg)
	hc := l.config("")
	var r *agentRun
	start := func() {
		if r == nil {
			r = l.agent(hc)
		}
		l.says("the hub is not reached; trying until it is")
	}
	hc.TLS = l.trust.Clone()
	hc.TLS.InsecureSkipVerify = true // each of these hubs has a CA of its own
	l.restartHub(start)
	for i := range 5 {
		l.listens("")
		bridge := fmt.Sprint("bridge-", i)
		l.signal(l.calls(""), bridge)
		r.hears(bridge)
		l.restartHub(func() {
			l.wait("it is lost", func() bool { return !r.src.Stats().Listening && r.src.Stats().Losses == uint64(i+1) })
			n := strings.Count(l.log.String(), "connection refused")
			l.wait("it has tried", func() bool { return strings.Count(l.log.String(), "connection refused") > n })
		})
	}
	l.listens("")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(l.log.String(), "level=WARN"); n > 15 {
		t.Errorf("%d warnings", n)
	}
}

// Credentials that are refused are tried until they are good: a key that is put
// right, a device that is enabled again.
func TestAgentRefused(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{Devices: []emulator.Device{{ID: agentDevice, PrimaryKey: "d3Jvbmc="}}})
	cfg := l.config("")
	cfg.Key = agentKey
	r := l.agent(cfg)
	change := func(d emulator.Device) {
		t.Helper()
		if _, err := l.hub.PutDevice(d); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() {
		t.Helper()
		n := r.src.Stats().Refusals
		l.wait("it is refused again and again", func() bool { return r.src.Stats().Refusals > n+2 })
	}
	refused()
	change(emulator.Device{ID: agentDevice, PrimaryKey: agentKey})
	l.listens("")
	l.signal(l.calls(""), "enabled")
	for range 3 {
		change(emulator.Device{ID: agentDevice, PrimaryKey: agentKey, Disabled: true})
		refused()
		change(emulator.Device{ID: agentDevice, PrimaryKey: agentKey})
		l.listens("")
	}
	l.signal(l.calls(""), "again")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(l.log.String(), "the hub refuses this identity; trying"); n < 4 || strings.Count(l.log.String(), "level=WARN msg=\"the hub refuses") != 4 {
		t.Errorf("told %d times", n)
	}
}

// A device that is deleted and made again, with the same key.
func TestAgentDeleted(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{Devices: []emulator.Device{{ID: agentDevice, PrimaryKey: agentKey}}})
	r := l.agent(l.config(""))
	l.listens("")
	if err := l.hub.DeleteDevice(agentDevice); err != nil {
		t.Fatal(err)
	}
	l.says("the hub refuses this identity")
	if _, err := l.hub.PutDevice(emulator.Device{ID: agentDevice, PrimaryKey: agentKey}); err != nil {
		t.Fatal(err)
	}
	l.listens("")
	l.signal(l.messages(), "back")
	r.hears("back")
}

// A program that has the device's connection and comes back whenever it is evicted:
// an agent with the same identity gives up and says what to do. Beside it, as a
// module, both live.
func TestAgentTakenOver(t *testing.T) {
	t.Parallel()
	for _, webSocket := range []bool{false, true} {
		t.Run(agentName("websocket=", webSocket), func(t *testing.T) {
			t.Parallel()
			l := newAgentLab(t, emulator.Config{})
			l.rival()
			cfg := l.config("")
			cfg.WebSocket = webSocket
			if webSocket {
				cfg.Addr = l.hub.HTTPSAddr()
			}
			r := l.agent(cfg)
			select {
			case <-r.ended:
			case <-time.After(agentPatience):
				t.Fatal("it fights on")
			}
			if !errors.Is(r.err, signaler.ErrTakenOver) || !strings.Contains(r.err.Error(), "module identity of its own") {
				t.Errorf("got %v", r.err)
			}
			if got := r.src.Stats(); got.Connects != 3 {
				t.Errorf("counted %+v", got)
			}
			l.wait("the rival is back", func() bool { return l.hub.Stats().Connections == 1 })
		})
	}
}

// Of two agents with one identity one stays, and works.
func TestAgentTwice(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{})
	a, b := l.agent(l.config("")), l.agent(l.config(""))
	var stays *agentRun
	select {
	case <-a.ended:
		stays = b
		if !errors.Is(a.err, signaler.ErrTakenOver) {
			t.Errorf("got %v", a.err)
		}
	case <-b.ended:
		stays = a
		if !errors.Is(b.err, signaler.ErrTakenOver) {
			t.Errorf("got %v", b.err)
		}
	case <-time.After(agentPatience):
		t.Fatal("they fight on")
	}
	l.listens("")
	l.wait("the other answers", func() bool { return l.calls("").Signal(l.ctx(), agentSignal("who")) == nil })
	stays.hears("who")
}

// As a module the agent lives beside whoever has the device's connection.
func TestAgentBesideADevice(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{})
	others := l.rival()
	r := l.agent(l.config(agentModule))
	l.listens(agentModule)
	for i := range 10 {
		bridge := fmt.Sprint("bridge-", i)
		l.signal(l.calls(agentModule), bridge)
		r.hears(bridge)
		l.sendRaw(fmt.Sprint("message-", i), "for the device", nil)
		if got := <-others; got != "for the device" {
			t.Errorf("the device got %q", got)
		}
	}
	if got := l.hub.Stats(); got.Takeovers != 0 || got.Connections != 2 {
		t.Errorf("the hub counted %+v", got)
	}
	if got := r.src.Stats(); got.Losses != 0 || got.ForeignMessages != 0 {
		t.Errorf("counted %+v", got)
	}
}
