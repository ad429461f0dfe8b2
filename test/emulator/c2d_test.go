package emulator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// recordsOf takes all feedback that there is, as "id status".
func recordsOf(t *testing.T, h *Hub) (out []string) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		b, done, err := h.receiveFeedback(ctx)
		cancel()
		if err != nil {
			return out
		}
		for _, r := range b.Records {
			out = append(out, r.OriginalMessageID+" "+string(r.StatusCode))
		}
		done(true)
	}
}

func TestFeedbackAck(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		for _, ack := range []string{"", "none", "positive", "negative", "FULL"} {
			sendMessage(t, h, &c2dMessage{ID: "good-" + ack, Ack: ack})
			a.complete(link.take()[0].lock)
			sendMessage(t, h, &c2dMessage{ID: "bad-" + ack, Ack: ack})
			a.reject(link.take()[0].lock)
		}
		pass(15 * time.Second)
		want := []string{"good-positive Success", "bad-negative Rejected", "good-FULL Success", "bad-FULL Rejected"}
		if r := recordsOf(t, h); !slices.Equal(r, want) {
			t.Errorf("feedback %v", r)
		}
	})
}

func TestFeedbackBatches(t *testing.T) {
	core(t, Config{MessageQueue: 200}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		complete := func(n int) {
			for range n {
				send(t, h, "x")
				a.complete(link.take()[0].lock)
			}
		}
		var mu sync.Mutex // guards both
		var sizes []int
		var at []time.Duration
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		read := func() {
			for {
				b, done, err := h.receiveFeedback(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				sizes, at = append(sizes, len(b.Records)), append(at, time.Since(start))
				mu.Unlock()
				done(true)
			}
		}
		go read()
		pass(10 * time.Second)
		complete(3)
		pass(4 * time.Second)
		mu.Lock()
		if sizes != nil {
			t.Errorf("a batch before its time: %v", sizes)
		}
		mu.Unlock()
		pass(2 * time.Second) // 16 s
		complete(70)          // 64 at once, at 16 s; the rest 15 s later
		pass(20 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(sizes, []int{3, 64, 6}) || !slices.Equal(at, []time.Duration{15 * time.Second, 16 * time.Second, 31 * time.Second}) {
			t.Errorf("batches of %v at %v", sizes, at)
		}
	})
}

func TestFeedbackReaders(t *testing.T) {
	core(t, Config{MaxDeliveries: 2}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		send(t, h, "1")
		a.complete(link.take()[0].lock)
		pass(15 * time.Second)
		b, done, err := h.receiveFeedback(t.Context())
		if err != nil || len(b.Records) != 1 || !bytes.HasPrefix(b.body(), []byte(`[{"originalMessageId":"1","description":"Success","deviceGenerationId":"`)) {
			t.Fatalf("got %s, %v", b.body(), err)
		}
		other := make(chan string, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		go func() {
			b, done, err := h.receiveFeedback(ctx)
			if err == nil {
				done(false) // once; the second time uses it up
				b, done, err = h.receiveFeedback(ctx)
			}
			if err == nil {
				done(false)
				other <- b.Records[0].OriginalMessageID
			} else {
				other <- err.Error()
			}
		}()
		synctest.Wait()
		select {
		case <-other:
			t.Error("two readers have it")
		default:
		}
		pass(time.Minute) // the first reader never settled it
		if got := <-other; got != "1" {
			t.Errorf("the other reader: %s", got)
		}
		done(true) // too late, and harmless
		if r := recordsOf(t, h); r != nil {
			t.Errorf("after %d deliveries: %v", 2, r)
		}
	})
}

func TestFeedbackLost(t *testing.T) {
	core(t, Config{Faults: Faults{Feedback: &Trigger{Nth: 2}}}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		for _, id := range []string{"1", "2", "3"} {
			send(t, h, id)
			a.complete(link.take()[0].lock)
		}
		pass(15 * time.Second)
		if r := recordsOf(t, h); !slices.Equal(r, []string{"1 Success", "3 Success"}) {
			t.Errorf("feedback %v", r)
		}
		send(t, h, "4")
		a.complete(link.take()[0].lock)
		pass(15 * time.Second)
		send(t, h, "5")
		a.complete(link.take()[0].lock)
		if err := h.DeleteDevice("d"); err != nil {
			t.Fatal(err)
		}
		pass(15 * time.Second)
		if r := recordsOf(t, h); r != nil {
			t.Errorf("feedback of a deleted device: %v", r)
		}
	})
}

func TestFeedbackLife(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMessages)
		send(t, h, "1")
		a.complete(link.take()[0].lock)
		pass(time.Hour + 15*time.Second)
		if r := recordsOf(t, h); r != nil {
			t.Errorf("feedback after an hour: %v", r)
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
