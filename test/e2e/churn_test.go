package e2e_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/client"
)

// Ten thousand bridges (fewer where the race detector makes each one slow) come
// and go, politely and not, joined and not; nothing of them stays: no goroutine,
// no descriptor, no entry.
func TestChurn(t *testing.T) {
	const atOnce = 16
	w := newWorld(t, options{
		relay: func(c *relay.Config) { c.Logger = nil },
		agent: func(c *deviceagent.Config) { c.Logger = nil },
	})
	cycle(t, w, 0) // what is made once is made now
	settle := func() (goroutines, files int) { return runtime.NumGoroutine(), openFiles(t) }
	until(t, "the first bridge has gone", func() bool { return !strings.Contains(stacks(), "relay/pump") })
	goroutines, files := settle()

	var wg sync.WaitGroup
	for part := range atOnce {
		wg.Go(func() {
			for i := part; i < cycles; i += atOnce {
				cycle(t, w, i)
			}
		})
	}
	wg.Wait()
	const slack = 4 // a timer's goroutine, a connection net/http is about to close
	deadline := time.Now().Add(patience)
	for {
		g, f := settle()
		if g <= goroutines+slack && f <= files+slack {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d files stay; there were %d and %d\n%s", g, f, goroutines, files, stacks())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// cycle is one bridge; i decides how it goes.
func cycle(t *testing.T, w *world, i int) {
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req := client.Request{Device: device, Targets: []string{"echo"}}
	switch i % 6 {
	case 0, 1: // politely
		s, err := client.Dial(ctx, w.client, req)
		if err != nil {
			t.Error(err)
			return
		}
		st, err := s.Open(ctx, "echo")
		if err != nil {
			t.Error(err)
		} else {
			exchange(t, st, "hello")
			st.Close()
		}
		s.Close()
	case 2: // with a stream left open
		s, err := client.Dial(ctx, w.client, req)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := s.Open(ctx, "echo"); err != nil {
			t.Error(err)
		}
		s.Close()
	case 3: // raw, dropped without a word
		c, err := client.DialRaw(ctx, w.client, req)
		if err != nil {
			t.Error(err)
			return
		}
		c.Write([]byte("x"))
		c.CloseNow()
	case 4: // the requester leaves while it waits, or just after
		ctx, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Microsecond)
		defer cancel()
		if s, err := client.Dial(ctx, w.client, req); err == nil {
			s.Close()
		} else if ctx.Err() == nil && !isTimeout(err) {
			t.Errorf("cycle %d: %v", i, err)
		}
	case 5: // refused
		req.Targets = []string{"nowhere"}
		if _, err := client.DialRaw(ctx, w.client, req); err == nil {
			t.Error("a target that is not there was reached")
		}
	}
}

// openFiles counts descriptors. Where the system has no such folder there is
// nothing to count, and goroutines have to do.
func openFiles(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func stacks() string {
	var b strings.Builder
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String()
}

// isTimeout: the network's deadline can strike just before its context's.
func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
