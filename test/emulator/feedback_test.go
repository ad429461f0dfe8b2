package emulator

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
