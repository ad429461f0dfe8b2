package lent_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amenzhinsky/iothub/iotdevice"

	"websocketbridge/deviceagent/lent"
	"websocketbridge/signaler"
)

// The host's traffic and ours at once, each reaching its own.
func TestBeside(t *testing.T) {
	h := newHost(t)
	h.connect()
	sub, err := h.client.SubscribeEvents(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client.RegisterMethod(context.Background(), "Reboot", func(p map[string]any) (int, map[string]any, error) {
		return 202, map[string]any{"in": p["in"]}, nil
	}); err != nil {
		t.Fatal(err)
	}
	var ours heard
	h.start(h.source(lent.Both), ours.handle)

	const n = 500
	var mine int
	var work sync.WaitGroup
	work.Go(func() {
		for range 2 * n {
			if m := <-sub.C(); m.Properties["colour"] == "red" {
				mine++
			}
		}
	})
	work.Go(func() {
		for i := range n {
			h.wire.message("open the valve", map[string]string{"colour": "red"})
			h.wire.message(numbered(i), map[string]string{lent.Property: "v1"})
			until(t, "the agent has it", func() bool { return ours.count() >= i+1 })
		}
	})
	work.Go(func() {
		for range n {
			if status, body, err := h.wire.call("Reboot", `{"in":5}`); status != 202 || body != `{"in":5}` || err != nil {
				t.Errorf("the host's method: %d, %s, %v", status, body, err)
			}
		}
	})
	work.Wait()
	if mine != n || ours.count() != n {
		t.Errorf("the host has %d messages of its own and the agent %d; want %d each", mine, ours.count(), n)
	}
	for range n {
		if status, body, err := h.wire.call(lent.MethodName, goodOne); status != 200 || body != `{}` || err != nil {
			t.Fatalf("our method: %d, %s, %v", status, body, err)
		}
	}
	for i, d := range ours.got {
		if d.Answers != (i >= n) {
			t.Fatalf("delivery %d has Answers %t", i, d.Answers)
		}
	}
	// Every character counts against signaler.MaxSize: none was escaped.
	if got := string(ours.got[n].Payload); len(got) != len(goodOne) || !strings.Contains(got, "a=<b>") {
		t.Errorf("the method's payload arrived as %s", got)
	}
	if _, err := signaler.Parse(ours.got[n].Payload); err != nil {
		t.Error(err)
	}
}

func TestWhatIsOurs(t *testing.T) {
	h := newHost(t)
	h.connect()
	var ours heard
	h.start(h.source(lent.MessagesOnly), ours.handle)
	for _, tt := range []struct {
		name, body string
		properties map[string]string
		want       bool
	}{
		{"marked", goodOne, map[string]string{"bridge-signal": "v1"}, true},
		{"marked, of a later version", `{"v":9}`, map[string]string{"bridge-signal": "v9"}, true},
		{"its property was lost in the library", goodOne, nil, true},
		{"the host's", "reboot", nil, false},
		{"the host's, in JSON", `{"cmd":"reboot","url":"wss://relay.example.com/"}`, map[string]string{"a": "b"}, false},
		{"empty", "", nil, false},
	} {
		before := ours.count()
		h.wire.message(tt.body, tt.properties)
		h.wire.message(goodOne, nil) // when this one is there, so is the other
		want := before + 1
		if tt.want {
			want++
		}
		until(t, "it is handled: "+tt.name, func() bool { return ours.count() >= want })
		if got := ours.count(); got != want {
			t.Errorf("%s: %d signals, want %d", tt.name, got-before, want-before)
		}
	}
}

func TestAnswers(t *testing.T) {
	h := newHost(t)
	h.connect()
	var no *signaler.Refusal
	h.start(h.source(lent.MethodsOnly), func(context.Context, signaler.Delivery) *signaler.Refusal { return no })
	for _, tt := range []struct {
		refusal *signaler.Refusal
		status  int
		body    string
	}{
		{nil, 200, `{}`},
		{&signaler.Refusal{Code: "target_not_allowed", Message: `"ssh" is not`}, 409, `{"code":"target_not_allowed","message":"\"ssh\" is not"}`},
		{&signaler.Refusal{Code: "stopping", Message: "bye"}, 409, `{"code":"stopping","message":"bye"}`},
	} {
		no = tt.refusal // nobody else runs between two calls
		if status, body, err := h.wire.call(lent.MethodName, goodOne); status != tt.status || body != tt.body || err != nil {
			t.Errorf("%v: %d, %s, %v", tt.refusal, status, body, err)
		}
	}
	if status, body, err := h.wire.call(lent.MethodName, `null`); status != 409 || err != nil { // as the handler says
		t.Errorf("a call without a payload: %d, %s, %v", status, body, err)
	}
	if h.wire.messages != nil {
		t.Error("MethodsOnly has subscribed to messages, which a hub has none of for a module")
	}
}

// After its end the method is answered at once, messages are left, and Run may
// come back.
func TestRunAgain(t *testing.T) {
	h := newHost(t)
	h.connect()
	if _, _, err := h.wire.call(lent.MethodName, goodOne); err == nil {
		t.Error("somebody answers before the first Run")
	}
	s := h.source(lent.Both)
	for round := range 3 {
		var ours heard
		stop := h.start(s, ours.handle)
		h.wire.message(goodOne, nil)
		if status, _, err := h.wire.call(lent.MethodName, goodOne); status != 200 || err != nil {
			t.Errorf("round %d: %d, %v", round, status, err)
		}
		until(t, "both are there", func() bool { return ours.count() == 2 })
		if err := stop(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for range 30 { // more than the library's channel holds
			h.wire.message(goodOne, nil)
		}
		if status, body, err := h.wire.call(lent.MethodName, goodOne); status != 503 || !strings.Contains(body, `"stopping"`) || err != nil {
			t.Errorf("round %d, after the end: %d, %s, %v", round, status, body, err)
		}
		if n := ours.count(); n != 2 {
			t.Errorf("round %d: %d signals after the end", round, n-2)
		}
		if round == 1 {
			h.client.UnregisterMethod(lent.MethodName) // by a host that tidies up
		}
	}
	if err := s.Run(ended(), nil); err != nil {
		t.Errorf("Run with an ended context: %v", err)
	}
}

func TestTwiceAtOnce(t *testing.T) {
	h := newHost(t)
	h.connect()
	s := h.source(lent.Both)
	var ours heard
	h.start(s, ours.handle)
	if err := s.Run(context.Background(), ours.handle); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("the same source: %v", err)
	}
	err := h.source(lent.Both).Run(context.Background(), ours.handle)
	if err == nil || !strings.Contains(err.Error(), "already registered") || errors.Is(err, lent.ErrDeaf) {
		t.Errorf("another source: %v", err)
	}
	if status, _, err := h.wire.call(lent.MethodName, goodOne); status != 200 || err != nil {
		t.Errorf("the first one does not answer any more: %d, %v", status, err)
	}
}

// Trap 4: the library subscribes once, whether that succeeds or not.
func TestDeaf(t *testing.T) {
	broken := errors.New("connection lost before Subscribe completed")
	fail := func(context.Context) error { return broken }
	for _, tt := range []struct {
		name string
		set  func(*wire)
		what string
	}{
		{"methods", func(w *wire) { w.registerMethods = fail }, "register method Bridge"},
		{"messages", func(w *wire) { w.subscribeEvents = fail }, "subscribe to messages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.set(h.wire)
			h.connect()
			err := h.source(lent.Both).Run(context.Background(), nil)
			if !errors.Is(err, lent.ErrDeaf) || !errors.Is(err, broken) || !strings.Contains(err.Error(), tt.what) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Trap 5: the library keeps the first context it is given.
func TestContextOutlivesRun(t *testing.T) {
	h := newHost(t)
	var kept []context.Context
	keep := func(ctx context.Context) error {
		kept = append(kept, ctx)
		return nil
	}
	h.wire.subscribeEvents, h.wire.registerMethods = keep, keep
	h.connect()
	var ours heard
	stop := h.start(h.source(lent.Both), ours.handle)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 2 || kept[0].Err() != nil || kept[1].Err() != nil {
		t.Errorf("the library has contexts that have ended, or too few: %d", len(kept))
	}
}

// Trap 2 and 3: nobody but the host can make the library wait, and then Run does
// not wait for ever.
func TestAgentIsSlow(t *testing.T) {
	h := newHost(t)
	h.connect()
	release, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop := h.start(h.source(lent.Both), func(context.Context, signaler.Delivery) *signaler.Refusal {
		once.Do(func() { close(entered) })
		<-release
		return nil
	})
	h.wire.message(goodOne, nil)
	<-entered
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			h.wire.message(goodOne, nil)
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("an agent that does not answer stops the host's messages")
	}
	until(t, "one was dropped", func() bool { return strings.Contains(h.log.String(), "does not keep up") })
	until(t, "a method is refused", func() bool {
		status, _, _ := h.wire.call(lent.MethodName, goodOne)
		return status == 503
	})
	close(release)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHostDoesNotRead(t *testing.T) {
	h := newHost(t)
	h.connect()
	sub, err := h.client.SubscribeEvents(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s := h.source(lent.Both)
	s.SetGrace(10 * time.Millisecond)
	var ours heard
	stop := h.start(s, ours.handle)
	const n = 20 // the library's channel holds ten
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range n {
			h.wire.message(goodOne, nil)
		}
	}()
	until(t, "the library waits for the host", func() bool { return len(sub.C()) == cap(sub.C()) && ours.count() >= cap(sub.C()) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.log.String(), "does the host read its own messages?") {
		t.Errorf("nobody is told:\n%s", &h.log)
	}
	// A Run in that state does not hang either.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx, ours.handle); err != nil {
		t.Error(err)
	}
	for range n { // now it reads, and all that was left behind ends
		<-sub.C()
	}
	<-sent
}

// A caller whose signal was in line when the agent stopped has its answer at once,
// whatever the host does.
func TestStopAnswersTheLine(t *testing.T) {
	h := newHost(t)
	h.connect()
	sub, err := h.client.SubscribeEvents(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	stop := h.start(h.source(lent.Both), func(ctx context.Context, _ signaler.Delivery) *signaler.Refusal {
		close(entered)
		<-ctx.Done()
		return nil
	})
	answers := make(chan int, 2)
	call := func() {
		status, _, _ := h.wire.call(lent.MethodName, goodOne)
		answers <- status
	}
	go call()
	<-entered
	go call()
	const n = 20 // the library's channel holds ten
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range n {
			h.wire.message("for the host", nil)
		}
	}()
	until(t, "the library waits for the host", func() bool { return len(sub.C()) == cap(sub.C()) })
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	got := map[int]int{}
	for range 2 {
		select {
		case status := <-answers:
			got[status]++
		case <-stopped:
			t.Fatal("Run has returned, and the caller waits")
		}
	}
	if got[200] != 1 || got[503] != 1 {
		t.Errorf("answers %v, want one that was served and one that was in line", got)
	}
	for range n {
		<-sub.C()
	}
	<-sent
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHostCloses(t *testing.T) {
	h := newHost(t)
	s := h.source(lent.Both)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background(), nil) }()
	h.client.Close() // before it has connected
	if err := <-ran; !errors.Is(err, iotdevice.ErrClosed) {
		t.Errorf("got %v", err)
	}

	h = newHost(t)
	h.connect()
	s = h.source(lent.Both)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { ran <- s.Run(ctx, nil) }()
	until(t, "it listens", func() bool { return strings.Contains(h.log.String(), "listening") })
	h.client.Close()
	if err := <-ran; !errors.Is(err, iotdevice.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if status, _, _ := h.wire.call(lent.MethodName, goodOne); status != 503 {
		t.Errorf("a call after the end: %d", status)
	}
}

// Run waits for the host, and stops waiting.
func TestNotConnected(t *testing.T) {
	h := newHost(t)
	s := h.source(lent.Both)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx, nil); err != nil {
		t.Errorf("got %v", err)
	}
	ran := make(chan error, 1)
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	go func() { ran <- s.Run(ctx, nil) }()
	h.connect()
	until(t, "it listens", func() bool { return strings.Contains(h.log.String(), "listening") })
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// The hub does not answer the subscription, and the agent stops: the library must
// not be interrupted.
func TestStopWhileSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		acked := make(chan struct{})
		h.wire.subscribeEvents = func(ctx context.Context) error {
			select {
			case <-acked:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		h.connect()
		s := h.source(lent.Both)
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx, nil) }()
		synctest.Wait()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		close(acked)
		synctest.Wait()
		// The host's own subscription, the library's second, works.
		sub, err := h.client.SubscribeEvents(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for range 20 {
				h.wire.message("for the host", nil)
			}
		}()
		for range 20 {
			<-sub.C()
		}
	})
}

func TestConfig(t *testing.T) {
	if _, err := lent.New(lent.Config{Listen: 7}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v, want three faults", err)
	}
	h := newHost(t)
	if _, err := lent.New(lent.Config{Client: h.client, Listen: lent.MessagesOnly}); err != nil {
		t.Errorf("messages alone need no guard: %v", err)
	}
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
