package emulator

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }

// A coreLink is a device without a protocol.
type coreLink struct {
	mu       sync.Mutex
	window   int // messages that it takes; negative: none
	got      []delivery
	invoked  chan invoked
	desires  []string
	closed   error
	unlisten bool // invoke fails
}

type delivery struct {
	lock       uint64
	id         string
	sent, dels int
}

type invoked struct{ rid, method, payload string }

func newCoreLink() *coreLink { return &coreLink{window: 1000, invoked: make(chan invoked, 1000)} }

func (l *coreLink) deliver(lock uint64, m *c2dMessage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.window <= 0 {
		return false
	}
	l.window--
	l.got = append(l.got, delivery{lock, m.ID, m.Sent, m.Deliveries})
	return true
}

func (l *coreLink) invoke(rid, method string, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unlisten {
		return false
	}
	l.invoked <- invoked{rid, method, string(payload)}
	return true
}

func (l *coreLink) desired(version int64, patch []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.desires = append(l.desires, fmt.Sprint(version, " ", string(patch)))
	return true
}

func (l *coreLink) close(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = cause
}

// take returns what was delivered since the last take.
func (l *coreLink) take() []delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.got
	l.got = nil
	return out
}

func (l *coreLink) ids() (ids []string) {
	for _, d := range l.take() {
		ids = append(ids, d.id)
	}
	return ids
}

func (l *coreLink) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// core runs f with a hub without sockets, in a bubble of synctest. The hub has the
// devices d and other, and d's module m.
func core(t *testing.T, cfg Config, f func(t *testing.T, h *Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Devices = append([]Device{{ID: "d", Modules: []Module{{ID: "m"}}}, {ID: "other"}}, cfg.Devices...)
		h, err := newHub(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.keepTime(ctx) })
		defer wg.Wait()
		defer cancel()
		f(t, h)
	})
}

// pass lets time go by, and alarms be run.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

var dev, mod = identity{Device: "d"}, identity{"d", "m"}

// on attaches a link that listens.
func on(t *testing.T, h *Hub, id identity, what ...Listen) (*attachment, *coreLink) {
	t.Helper()
	l := newCoreLink()
	a, err := h.attach(id, l, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range what {
		a.listen(w, true)
	}
	return a, l
}

func send(t *testing.T, h *Hub, ids ...string) {
	t.Helper()
	for _, id := range ids {
		sendMessage(t, h, &c2dMessage{ID: id, Ack: "full"})
	}
}

func sendMessage(t *testing.T, h *Hub, m *c2dMessage) {
	t.Helper()
	if err := h.enqueueC2D(t.Context(), dev, m); err != nil {
		t.Fatal(err)
	}
}

func TestOneConnectionPerIdentity(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		first, link1 := on(t, h, dev, ListenMessages)
		module, _ := on(t, h, mod)
		send(t, h, "1")
		lock := link1.take()[0].lock
		second, link2 := on(t, h, dev, ListenMessages)
		if link1.cause() != errTaken || link2.cause() != nil || module.dead {
			t.Errorf("first closed with %v, second with %v, module dead %t", link1.cause(), link2.cause(), module.dead)
		}
		if got := link2.ids(); !slices.Equal(got, []string{"1"}) {
			t.Errorf("what the first had not settled: %v", got)
		}
		if first.complete(lock) {
			t.Error("the first connection still completes")
		}
		first.detach() // it notices late
		first.listen(ListenMethods, true)
		if err := h.WaitConnected(t.Context(), "d", ""); err != nil {
			t.Error(err)
		}
		second.detach()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if h.WaitConnected(ctx, "d", "") == nil {
			t.Error("still connected")
		}
		s := h.Stats()
		if s.Takeovers != 1 || s.Connects["d"] != 2 || s.Connects["d/m"] != 1 || s.Connections != 1 || s.Disconnects != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestTokenExpiry(t *testing.T) {
	for _, tt := range []struct {
		name         string
		grace, after time.Duration
	}{{"ten minutes of grace", 0, 11 * time.Minute}, {"none", -1, time.Minute}, {"five seconds", 5 * time.Second, time.Minute + 5*time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			core(t, Config{TokenGrace: tt.grace}, func(t *testing.T, h *Hub) {
				l := newCoreLink()
				a, err := h.attach(dev, l, time.Now().Add(30*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				a.renew(time.Now().Add(time.Minute))
				pass(tt.after - time.Second)
				if l.cause() != nil {
					t.Fatalf("cut early: %v", l.cause())
				}
				pass(time.Second)
				if l.cause() != errExpired {
					t.Errorf("closed with %v", l.cause())
				}
			})
		})
	}
}

func TestDisableAndDelete(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		_, link := on(t, h, dev, ListenMessages)
		_, module := on(t, h, mod)
		if _, err := h.PutDevice(Device{ID: "d", Disabled: true}); err != nil {
			t.Fatal(err)
		}
		if link.cause() != errDisabled || module.cause() != errDisabled {
			t.Errorf("closed with %v and %v", link.cause(), module.cause())
		}
		if _, err := h.attach(dev, newCoreLink(), time.Time{}); err == nil || err.Code != 404001 {
			t.Errorf("a disabled device attaches: %v", err)
		}
		if err := h.enqueueC2D(t.Context(), dev, &c2dMessage{}); err == nil || err.Code != 404001 {
			t.Errorf("a disabled device takes a message: %v", err)
		}
		if _, err := h.PutDevice(Device{ID: "d"}); err != nil {
			t.Fatal(err)
		}
		send(t, h, "1")
		generation := h.devices["d"].generation
		_, link = on(t, h, dev)
		pass(time.Second)
		if err := h.DeleteDevice("d"); err != nil {
			t.Fatal(err)
		}
		if link.cause() != errDeleted || h.DeleteDevice("d") == nil || h.Devices()[0].ID != "other" {
			t.Errorf("delete: closed with %v, left %v", link.cause(), h.Devices())
		}
		if _, err := h.PutDevice(Device{ID: "d"}); err != nil {
			t.Fatal(err)
		}
		_, link = on(t, h, dev, ListenMessages)
		if got := link.ids(); got != nil || h.devices["d"].generation == generation {
			t.Errorf("the device's next life has messages %v, generation changed %t", got, h.devices["d"].generation != generation)
		}
	})
}

func TestConnectionStateLag(t *testing.T) {
	core(t, Config{ConnectionStateLag: time.Minute}, func(t *testing.T, h *Hub) {
		state := func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.devices["d"].connectionState(h.cfg.ConnectionStateLag)
		}
		pass(time.Hour)
		a, _ := on(t, h, dev)
		if state() {
			t.Error("connected at once")
		}
		pass(time.Minute)
		if !state() {
			t.Error("not connected after the lag")
		}
		a.detach()
		pass(59 * time.Second)
		if !state() {
			t.Error("disconnected before the lag is over")
		}
		pass(time.Second)
		if state() {
			t.Error("connected after the lag")
		}
	})
}
