package emulator

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseMethod(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		code       int
	}{
		{"least", `{"methodName":"m"}`, 0},
		{"all", `{"methodName":"m","payload":{"a":1},"responseTimeoutInSeconds":300,"connectTimeoutInSeconds":300}`, 0},
		{"5 s", `{"methodName":"m","responseTimeoutInSeconds":5}`, 0},
		{"4 s", `{"methodName":"m","responseTimeoutInSeconds":4}`, 400004},
		{"0 s", `{"methodName":"m","responseTimeoutInSeconds":0}`, 400004},
		{"301 s", `{"methodName":"m","responseTimeoutInSeconds":301}`, 400004},
		{"connect -1 s", `{"methodName":"m","connectTimeoutInSeconds":-1}`, 400004},
		{"connect 301 s", `{"methodName":"m","connectTimeoutInSeconds":301}`, 400004},
		{"no name", `{"payload":1}`, 400004},
		{"a name with /", `{"methodName":"a/b"}`, 400004},
		{"no JSON", `{`, 400004},
		{"128 KB", `{"methodName":"m","payload":"` + strings.Repeat("x", maxMethod-2) + `"}`, 0},
		{"more", `{"methodName":"m","payload":"` + strings.Repeat("x", maxMethod-1) + `"}`, 413001},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := parseMethod([]byte(tt.body))
			if (err == nil) != (tt.code == 0) || err != nil && err.Code != tt.code {
				t.Fatalf("got %v", err)
			}
			if tt.name == "least" && (q.Respond != 30*time.Second || q.Connect != 0 || q.Payload != nil) {
				t.Errorf("defaults %+v", q)
			}
		})
	}
}

func FuzzParseMethod(f *testing.F) {
	f.Add([]byte(`{"methodName":"m","payload":{"a":[null]},"responseTimeoutInSeconds":5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := parseMethod(b); err == nil && (q.Respond < 5*time.Second || q.Connect < 0 || q.Name == "") {
			t.Errorf("%+v", q)
		}
	})
}

// call invokes a method in the background.
func call(t *testing.T, h *Hub, id identity, connect time.Duration) <-chan string {
	out := make(chan string, 1)
	ctx := t.Context()
	go func() {
		a, err := h.invokeMethod(ctx, id, methodRequest{Name: "x", Payload: []byte(`{}`), Respond: 30 * time.Second, Connect: connect})
		switch {
		case err != nil:
			out <- fmt.Sprint(err.Code)
		case a == nil:
			out <- "gone"
		default:
			out <- fmt.Sprint(a.Status, string(a.Payload))
		}
	}()
	synctest.Wait()
	return out
}

func TestMethods(t *testing.T) {
	for _, tt := range []struct {
		name string
		id   identity
		cfg  Config
		do   func(t *testing.T, h *Hub) <-chan string
		want string
		took time.Duration
	}{
		{"answered", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			a, link := on(t, h, dev, ListenMethods)
			out := call(t, h, dev, 0)
			c := <-link.invoked
			if c.method != "x" || c.payload != "{}" {
				t.Errorf("invoked %+v", c)
			}
			a.methodResult("unknown", 200, nil)
			a.methodResult(c.rid, 200, []byte(`[1]`))
			a.methodResult(c.rid, 500, nil)
			return out
		}, "200[1]", 0},
		{"offline", dev, Config{}, func(t *testing.T, h *Hub) <-chan string { return call(t, h, dev, 0) }, "404103", 0},
		{"connected, but not subscribed", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			on(t, h, dev, ListenMessages)
			return call(t, h, dev, 0)
		}, "404103", 0},
		{"offline all the while", dev, Config{}, func(t *testing.T, h *Hub) <-chan string { return call(t, h, dev, 10*time.Second) }, "404103", 10 * time.Second},
		{"comes in time", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			out := call(t, h, dev, 10*time.Second)
			pass(5 * time.Second)
			a, link := on(t, h, dev)
			pass(4 * time.Second)
			a.listen(ListenMethods, true)
			a.methodResult((<-link.invoked).rid, 1, nil)
			return out
		}, "1", 9 * time.Second},
		{"no answer", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			on(t, h, dev, ListenMethods)
			return call(t, h, dev, 0)
		}, "504101", 30 * time.Second},
		{"evicted", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			on(t, h, dev, ListenMethods)
			out := call(t, h, dev, 0)
			on(t, h, dev, ListenMethods)
			return out
		}, "400027", 0},
		{"disconnected", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			a, _ := on(t, h, dev, ListenMethods)
			out := call(t, h, dev, 0)
			a.detach()
			return out
		}, "404104", 0},
		{"deleted in between", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			out := call(t, h, dev, 10*time.Second)
			h.DeleteDevice("d")
			return out
		}, "404001", 0},
		{"the link cannot", dev, Config{}, func(t *testing.T, h *Hub) <-chan string {
			_, link := on(t, h, dev, ListenMethods)
			link.unlisten = true
			return call(t, h, dev, 0)
		}, "404103", 0},
		{"just after SUBACK", dev, Config{Faults: Faults{ListenLag: Duration(2 * time.Second)}}, func(t *testing.T, h *Hub) <-chan string {
			a, link := on(t, h, dev, ListenMethods)
			if got := <-call(t, h, dev, 0); got != "404103" {
				t.Errorf("at once: %s", got)
			}
			pass(2 * time.Second)
			out := call(t, h, dev, 0)
			a.methodResult((<-link.invoked).rid, 200, nil)
			return out
		}, "200", 2 * time.Second},
		{"unknown", dev, Config{}, func(t *testing.T, h *Hub) <-chan string { return call(t, h, identity{Device: "x"}, time.Minute) }, "404001", 0},
		{"basic tier", dev, Config{Tier: Basic}, func(t *testing.T, h *Hub) <-chan string { return call(t, h, dev, 0) }, "403010", 0},
		{"too many in flight", dev, Config{MaxMethodsInFlight: 1}, func(t *testing.T, h *Hub) <-chan string {
			a, link := on(t, h, dev, ListenMethods)
			first := call(t, h, dev, 0)
			out := call(t, h, dev, 0)
			a.methodResult((<-link.invoked).rid, 200, nil)
			if got := <-first; got != "200" {
				t.Errorf("the first: %s", got)
			}
			return out
		}, "403800", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core(t, tt.cfg, func(t *testing.T, h *Hub) {
				start := time.Now()
				if got := <-tt.do(t, h); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if d := h.devices["d"]; d != nil && d.link != nil && len(d.link.calls) > 0 {
					t.Errorf("%d calls are left", len(d.link.calls))
				}
			})
		})
	}
}

func TestMethodsInterleave(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMethods)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				want := fmt.Sprint(i)
				got, err := h.invokeMethod(t.Context(), dev, methodRequest{Name: "x", Payload: []byte(want), Respond: time.Minute})
				if err != nil || string(got.Payload) != want {
					t.Errorf("%d: %v, %v", i, got, err)
				}
			})
		}
		synctest.Wait()
		var all []invoked
		for range 20 {
			all = append(all, <-link.invoked)
		}
		seen := map[string]bool{}
		for i := len(all) - 1; i >= 0; i-- {
			if seen[all[i].rid] {
				t.Errorf("rid %s twice", all[i].rid)
			}
			seen[all[i].rid] = true
			a.methodResult(all[i].rid, 200, []byte(all[i].payload))
		}
		wg.Wait()
	})
}

func TestMethodCallerGone(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenMethods)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := h.invokeMethod(ctx, dev, methodRequest{Name: "x", Respond: time.Minute}); got != nil || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		a.methodResult((<-link.invoked).rid, 200, nil)
		if s := h.Stats(); s.Methods["gone"] != 1 || s.AnswersLate != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMethodResultChecked(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, _ := on(t, h, dev, ListenMethods)
		for payload, want := range map[string]bool{
			"": true, "null": true, `"text"`: true, `{"a":`: false, "text": false, `"` + strings.Repeat("x", maxMethod) + `"`: false,
		} {
			if got := a.methodResult("1", 200, []byte(payload)); got != want {
				t.Errorf("%.20s: %t", payload, got)
			}
		}
	})
}
