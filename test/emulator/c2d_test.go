package emulator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMessagesRefused(t *testing.T) {
	now := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	zero := func() time.Time { return time.Time{} }
	for _, tt := range []struct {
		name   string
		cfg    Config
		id     identity
		m      c2dMessage
		expiry func() time.Time
		code   int // 0: taken
	}{
		{"good", Config{}, dev, c2dMessage{Ack: "Full"}, now(5 * time.Second), 0},
		{"unknown device", Config{}, identity{Device: "D"}, c2dMessage{}, zero, 404001},
		{"unknown module", Config{}, identity{"d", "x"}, c2dMessage{}, zero, 404010},
		{"module", Config{}, mod, c2dMessage{}, zero, 404006},
		{"module, allowed", Config{ModuleMessages: true}, mod, c2dMessage{}, zero, 0},
		{"ack", Config{}, dev, c2dMessage{Ack: "always"}, zero, 400004},
		{"64 KB", Config{}, dev, c2dMessage{Body: make([]byte, maxMessage)}, zero, 0},
		{"more", Config{}, dev, c2dMessage{Body: make([]byte, maxMessage-3), Properties: []property{{"ab", new("cd")}}}, zero, 413001},
		{"expired", Config{}, dev, c2dMessage{}, now(-time.Second), 403009},
		{"for a week", Config{}, dev, c2dMessage{}, now(7 * 24 * time.Hour), 403009},
		{"basic tier", Config{Tier: Basic}, dev, c2dMessage{}, zero, 403010},
		{"free tier", Config{Tier: Free}, dev, c2dMessage{}, zero, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core(t, tt.cfg, func(t *testing.T, h *Hub) {
				m := tt.m
				m.Expiry = tt.expiry()
				err := h.enqueueC2D(t.Context(), tt.id, &m)
				if (err == nil) != (tt.code == 0) || err != nil && err.Code != tt.code {
					t.Errorf("got %v, want %d", err, tt.code)
				}
				if s := h.Stats(); s.MessagesAccepted+s.MessagesRejected != 1 || (s.MessagesAccepted == 1) != (err == nil) {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

func TestQueueOfFifty(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint(i))
			send(t, h, want[i])
		}
		err := h.enqueueC2D(t.Context(), dev, &c2dMessage{})
		if err == nil || err.Code != 403004 || err.Condition != "amqp:resource-limit-exceeded" {
			t.Errorf("the 51st: %v", err)
		}
		if err := h.enqueueC2D(t.Context(), identity{Device: "other"}, &c2dMessage{}); err != nil {
			t.Errorf("another device: %v", err)
		}
		a, link := on(t, h, dev, ListenMessages)
		got := link.take()
		for i, d := range got {
			if d.id != want[i] || d.sent != 1 {
				t.Errorf("%d: %+v", i, d)
			}
		}
		if err := h.enqueueC2D(t.Context(), dev, &c2dMessage{}); err == nil { // what is locked counts
			t.Error("the 51st is taken while 50 are locked")
		}
		if !a.complete(got[0].lock) || a.complete(got[0].lock) {
			t.Error("complete is not once")
		}
		send(t, h, "50")
		if ids := link.ids(); !slices.Equal(ids, []string{"50"}) {
			t.Errorf("got %v", ids)
		}
	})
}

func TestMessageLock(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		send(t, h, "1", "2")
		first := link.take()
		a.complete(first[1].lock)
		pass(59 * time.Second)
		if got := link.ids(); got != nil {
			t.Fatalf("again after 59 s: %v", got)
		}
		pass(time.Second)
		again := link.take()
		if len(again) != 1 || again[0].id != "1" || again[0].sent != 2 || again[0].dels != 0 || again[0].lock == first[0].lock {
			t.Fatalf("after 60 s: %+v", again)
		}
		if a.complete(first[0].lock) {
			t.Error("the lost lock completes")
		}
		for range 20 { // time alone never uses a message up
			pass(time.Minute)
		}
		if got := link.take(); len(got) != 20 {
			t.Errorf("delivered %d times more", len(got))
		}
		pass(time.Hour)
		if link.take(); len(h.devices["d"].messages) != 0 {
			t.Error("it outlived its hour")
		}
		if s := h.Stats(); s.MessagesExpired != 1 || s.MessagesCompleted != 1 || s.MessagesRequeued < 21 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMessageExpiry(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		sendMessage(t, h, &c2dMessage{ID: "short", Expiry: time.Now().Add(5 * time.Second), Ack: "negative"})
		sendMessage(t, h, &c2dMessage{ID: "default", Ack: "negative"})
		sendMessage(t, h, &c2dMessage{ID: "locked", Expiry: time.Now().Add(10 * time.Second), Ack: "full"})
		pass(5 * time.Second)
		a, link := on(t, h, dev, ListenMessages)
		got := link.take()
		if len(got) != 2 || got[0].id != "default" || got[1].id != "locked" {
			t.Fatalf("got %+v", got)
		}
		pass(20 * time.Second) // what the device has may still be completed
		if !a.complete(got[1].lock) {
			t.Error("an expired message cannot be completed while it is locked")
		}
		a.detach()
		pass(5 * time.Second)
		if r := recordsOf(t, h); !slices.Equal(r, []string{"short Expired", "locked Success"}) {
			t.Errorf("feedback %v", r)
		}
		pass(time.Hour)
		if r := recordsOf(t, h); !slices.Equal(r, []string{"default Expired"}) {
			t.Errorf("feedback %v", r)
		}
	})
}

func TestSettle(t *testing.T) {
	core(t, Config{MaxDeliveries: 3}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		send(t, h, "abandoned", "rejected")
		got := link.take()
		a.reject(got[1].lock)
		lock := got[0].lock
		for i := range 2 {
			a.abandon(lock)
			again := link.take()
			if len(again) != 1 || again[0].dels != i+1 || again[0].sent != i+2 {
				t.Fatalf("abandoned %d times: %+v", i+1, again)
			}
			lock = again[0].lock
		}
		a.abandon(lock)
		if again := link.take(); again != nil {
			t.Errorf("after the third: %+v", again)
		}
		pass(15 * time.Second)
		if r := recordsOf(t, h); !slices.Equal(r, []string{"rejected Rejected", "abandoned DeliveryCountExceeded"}) {
			t.Errorf("feedback %v", r)
		}
	})
}

func TestWindow(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev)
		link.window = 2
		send(t, h, "1", "2", "3", "4")
		if got := link.ids(); got != nil {
			t.Fatalf("without listening: %v", got)
		}
		a.listen(ListenMessages, true)
		got := link.take()
		if len(got) != 2 {
			t.Fatalf("got %+v", got)
		}
		link.window = 1
		a.complete(got[0].lock)
		if ids := link.ids(); !slices.Equal(ids, []string{"3"}) {
			t.Errorf("after one was settled: %v", ids)
		}
		link.window = 1
		a.flow()
		if ids := link.ids(); !slices.Equal(ids, []string{"4"}) {
			t.Errorf("after flow: %v", ids)
		}
		a.listen(ListenMessages, false)
		send(t, h, "5")
		link.window = 10
		a.flow()
		if ids := link.ids(); ids != nil {
			t.Errorf("after it stopped listening: %v", ids)
		}
	})
}

func TestPurge(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		link.window = 1
		send(t, h, "1", "2")
		h.mu.Lock()
		n := h.purge(h.devices["d"])
		h.mu.Unlock()
		if got := link.take(); n != 2 || a.complete(got[0].lock) {
			t.Errorf("purged %d", n)
		}
		pass(15 * time.Second)
		if r := recordsOf(t, h); !slices.Equal(r, []string{"1 Purged", "2 Purged"}) {
			t.Errorf("feedback %v", r)
		}
		pass(time.Hour) // no alarm of theirs is left
		if s := h.Stats(); s.MessagesExpired+s.MessagesRequeued != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMessageFaults(t *testing.T) {
	for _, tt := range []struct {
		fault C2DFault
		want  string // of the second of three messages
		out   outcome
	}{
		{C2DFault{Outcome: "rejected"}, "amqp:internal-error", outcomeRejected},
		{C2DFault{Outcome: "rejected", Condition: "com.microsoft:timeout", Description: "later"}, "com.microsoft:timeout", outcomeRejected},
		{C2DFault{Outcome: "released"}, "", outcomeReleased},
		{C2DFault{Outcome: "modified"}, "", outcomeModified},
		{C2DFault{Outcome: "none"}, "", outcomeNone},
	} {
		t.Run(tt.fault.Outcome, func(t *testing.T) {
			tt.fault.Trigger = Trigger{Nth: 2, Device: "d"}
			core(t, Config{Faults: Faults{C2D: &tt.fault}}, func(t *testing.T, h *Hub) {
				send(t, h, "1")
				if err := h.enqueueC2D(t.Context(), identity{Device: "other"}, &c2dMessage{}); err != nil {
					t.Errorf("another device: %v", err)
				}
				err := h.enqueueC2D(t.Context(), dev, &c2dMessage{})
				if err == nil || err.Condition != tt.want || err.Outcome != tt.out || !strings.Contains(err.Message, tt.fault.Description) {
					t.Errorf("got %+v", err)
				}
				send(t, h, "3")
			})
		})
	}
}

func TestMessageTwice(t *testing.T) {
	core(t, Config{Faults: Faults{C2DDuplicate: &Trigger{Every: 2}}}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		send(t, h, "1", "2", "3")
		got := link.take()
		var ids []string
		for _, d := range got {
			ids = append(ids, d.id)
			a.complete(d.lock)
		}
		if !slices.Equal(ids, []string{"1", "2", "2", "3"}) || len(h.devices["d"].messages) != 0 {
			t.Errorf("got %v, left %d", ids, len(h.devices["d"].messages))
		}
	})
}

func TestRedeliver(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		_, link := on(t, h, dev, ListenMessages)
		send(t, h, "1", "2")
		link.take()
		for range 3 {
			if err := h.Do(Action{Do: "redeliver", Device: "d"}); err != nil {
				t.Fatal(err)
			}
			if ids := link.ids(); !slices.Equal(ids, []string{"1", "2"}) {
				t.Fatalf("got %v", ids)
			}
		}
	})
}

// Whatever happens to connections, each message that was accepted is completed
// once, after it was delivered at least once.
func TestAtLeastOnce(t *testing.T) {
	core(t, Config{Faults: Faults{C2DDuplicate: &Trigger{Every: 3}}}, func(t *testing.T, h *Hub) {
		r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
		got, completed := map[string]int{}, map[string]int{}
		var a *attachment
		var link *coreLink
		var held []delivery
		connect := func() {
			a, link = on(t, h, dev, ListenMessages)
			held = nil
		}
		connect()
		next := 0
		for range 2000 {
			switch r.IntN(8) {
			case 0:
				connect() // over the one that is there
			case 1:
				a.detach()
				connect()
			case 2:
				pass(time.Duration(r.IntN(70)) * time.Second)
			case 3:
				h.Do(Action{Do: "redeliver"})
			case 4:
				link.mu.Lock()
				link.window = r.IntN(5)
				link.mu.Unlock()
				a.flow()
			case 5:
				if len(held) > 0 {
					i := r.IntN(len(held))
					if a.complete(held[i].lock) {
						completed[held[i].id]++
					}
					held = slices.Delete(held, i, i+1)
				}
			default:
				id := fmt.Sprint(next)
				if err := h.enqueueC2D(t.Context(), dev, &c2dMessage{ID: id, Expiry: time.Now().Add(48 * time.Hour)}); err == nil {
					next++
				}
			}
			for _, d := range link.take() {
				got[d.id]++
				held = append(held, d)
			}
		}
		a.detach()
		connect()
		for i := 0; i < 100 && len(h.devices["d"].messages) > 0; i++ {
			for _, d := range link.take() {
				got[d.id]++
				if a.complete(d.lock) {
					completed[d.id]++
				}
			}
		}
		if left := len(h.devices["d"].messages); left > 0 || len(completed) != next {
			t.Errorf("%d of %d are completed, %d are queued", len(completed), next, left)
		}
		for id, n := range completed {
			if n != 1 || got[id] < 1 {
				t.Errorf("%s: completed %d times, delivered %d times", id, n, got[id])
			}
		}
	})
}
