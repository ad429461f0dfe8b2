package method_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/method"
	"websocketbridge/test/netfault"
)

// inBubble runs f with a hub in memory, where time is that of the bubble.
func inBubble(t *testing.T, h http.HandlerFunc, change func(*method.Config), f func(t *testing.T, s *stub)) {
	synctest.Test(t, func(t *testing.T) {
		l := netfault.NewListener()
		s := &stub{tokens: &tokens{}}
		s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.calls.Add(1)
			h(w, r)
		}))
		s.Listener.Close()
		s.Listener = l
		s.Config.ErrorLog = quiet
		s.StartTLS()
		s.method = newMethod(t, s.Server, s.tokens, change)
		s.method.DialWith(l.Dial)
		f(t, s)
		s.method.Close()
		s.CloseClientConnections()
		s.Close()
	})
}

// offline answers as the hub does, which waits for as long as it is told to.
func offline(w http.ResponseWriter, r *http.Request) {
	var in struct{ ConnectTimeoutInSeconds int }
	json.NewDecoder(r.Body).Decode(&in)
	time.Sleep(time.Duration(in.ConnectTimeoutInSeconds) * time.Second)
	hubSays(w, "new", 404, 404103, "DeviceNotOnline", "Timed out waiting for device to connect.")
}

// A requester of a device that is off hears so soon.
func TestOfflineIsFast(t *testing.T) {
	inBubble(t, offline, nil, func(t *testing.T, s *stub) {
		start := time.Now()
		check(t, s.method.Signal(withTimeout(t, 15*time.Second), newSignal("pump-7")), signaler.ErrDeviceOffline)
		if took := time.Since(start); took > method.OfflineAtMost || took > 1500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// What the first try brought counts, unless the second one brings more.
func TestSecondTry(t *testing.T) {
	inBubble(t, offline, func(c *method.Config) { c.Rate, c.Burst, c.MaxWait = 0.1, 1, time.Second }, func(t *testing.T, s *stub) {
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrDeviceOffline)
		if n := s.calls.Load(); n != 1 { // the second has no turn
			t.Errorf("%d calls", n)
		}
	})
	inBubble(t, offline, nil, func(t *testing.T, s *stub) { // no time for a second
		check(t, s.method.Signal(withTimeout(t, 500*time.Millisecond), newSignal("pump-7")), signaler.ErrDeviceOffline)
		if n := s.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
	left := errors.New("requester left")
	inBubble(t, offline, nil, func(t *testing.T, s *stub) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(left) }) // between the tries
		check(t, s.method.Signal(ctx, newSignal("pump-7")), left)
	})
}

func TestAskOnce(t *testing.T) {
	inBubble(t, offline, func(c *method.Config) { c.AskOnce = true }, func(t *testing.T, s *stub) {
		start := time.Now()
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrDeviceOffline)
		if n := s.calls.Load(); n != 1 || time.Since(start) > 0 {
			t.Errorf("%d calls in %v", n, time.Since(start))
		}
	})
}

// A hub that takes a request and never answers is given up, with and without a
// deadline of the caller's.
func TestSilentHub(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // net/http notices a lost connection only then
		<-r.Context().Done()
	}
	inBubble(t, silent, nil, func(t *testing.T, s *stub) {
		start := time.Now()
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrTimedOut)
		if took := time.Since(start); took != 45*time.Second {
			t.Errorf("it took %v", took)
		}
		late := errors.New("late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, late)
		defer cancel()
		check(t, s.method.Signal(ctx, newSignal("pump-7")), late)
	})
}

func TestThrottled(t *testing.T) {
	header, status, code := "", 429, 429001
	throttle := func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Retry-After", header)
		}
		hubSays(w, "new", status, code, "", "slower")
	}
	wait := func(t *testing.T, s *stub) time.Duration {
		t.Helper()
		err := s.method.Signal(t.Context(), newSignal("pump-7"))
		check(t, err, signaler.ErrThrottled)
		e, _ := errors.AsType[*signaler.ThrottledError](err)
		if e == nil {
			return 0
		}
		return e.RetryAfter
	}
	inBubble(t, throttle, nil, func(t *testing.T, s *stub) {
		for range 2 { // asked each time
			if got := wait(t, s); got != 0 {
				t.Errorf("the hub did not say, and got %v", got)
			}
		}
		header = "10"
		if got := wait(t, s); got != 10*time.Second {
			t.Errorf("got %v", got)
		}
		calls := s.calls.Load()
		time.Sleep(4 * time.Second)
		if got := wait(t, s); got != 6*time.Second || s.calls.Load() != calls {
			t.Errorf("got %v, and %d calls", got, s.calls.Load()-calls)
		}
		time.Sleep(6 * time.Second)
		status, code = 403, 403800 // one device's
		header = ""
		if got := wait(t, s); got != 0 || s.calls.Load() != calls+1 {
			t.Errorf("got %v, and %d calls", got, s.calls.Load()-calls)
		}
		status, code = 403, 403002 // the quota
		if got := wait(t, s); got != method.MaxRetryAfter {
			t.Errorf("got %v", got)
		}
		time.Sleep(method.MaxRetryAfter)
		time.Sleep(time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour - 20*time.Second)))
		if got := wait(t, s); got > 20*time.Second {
			t.Errorf("before midnight: %v", got)
		}
	})
}

// The relay stays below its rate, lets nobody wait too long, and says when to come back.
func TestRate(t *testing.T) {
	slow := func(c *method.Config) { c.Rate, c.Burst, c.MaxWait = 10, 5, 2*time.Second }
	inBubble(t, accept, slow, func(t *testing.T, s *stub) {
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		taken, refused := 0, 0
		for range 200 {
			wg.Go(func() {
				err := s.method.Signal(t.Context(), newSignal("pump-7"))
				mu.Lock()
				defer mu.Unlock()
				e, _ := errors.AsType[*signaler.ThrottledError](err)
				switch {
				case err == nil:
					taken++
				case e == nil || e.RetryAfter <= 2*time.Second || e.RetryAfter > 2200*time.Millisecond:
					t.Errorf("got %v", err)
				default:
					check(t, err, signaler.ErrThrottled)
					refused++
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); taken != 25 || refused != 175 || took < 1900*time.Millisecond || took > 2100*time.Millisecond {
			t.Errorf("%d taken, %d refused in %v", taken, refused, took)
		}
		if s.calls.Load() != 25 {
			t.Errorf("%d calls", s.calls.Load())
		}
	})
	inBubble(t, accept, slow, func(t *testing.T, s *stub) { // a deadline before its turn
		for range 5 {
			if err := s.method.Signal(t.Context(), newSignal("pump-7")); err != nil {
				t.Error(err)
			}
		}
		check(t, s.method.Signal(withTimeout(t, 50*time.Millisecond), newSignal("pump-7")), signaler.ErrThrottled)
		left := errors.New("left")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(left) })
		check(t, s.method.Signal(ctx, newSignal("pump-7")), left)
	})
}

// Who waits for a turn while the hub begins to throttle, does not call.
func TestThrottledWhileWaiting(t *testing.T) {
	throttle := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		hubSays(w, "new", 429, 429001, "", "")
	}
	inBubble(t, throttle, func(c *method.Config) { c.Rate, c.Burst = 1, 1 }, func(t *testing.T, s *stub) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrThrottled) })
		}
		wg.Wait()
		if s.calls.Load() != 1 {
			t.Errorf("%d calls", s.calls.Load())
		}
	})
}

func TestRateFor(t *testing.T) {
	for _, tt := range []struct {
		tier  string
		units int
		rate  float64
		burst int
	}{
		{"F1", 1, 32, 32}, {"S1", 1, 32, 32}, {"s1", 10, 320, 320}, {"S2", 2, 192, 192}, {"S3", 10, 48000, 48000},
		{"F1", 2, 0, 0}, {"S1", 0, 0, 0}, {"S1", 201, 0, 0}, {"S3", 11, 0, 0}, {"B1", 1, 0, 0}, {"", 1, 0, 0},
	} {
		rate, burst, err := method.RateFor(tt.tier, tt.units)
		if rate != tt.rate || burst != tt.burst || (err != nil) != (tt.rate == 0) {
			t.Errorf("%s, %d units: %v, %d, %v", tt.tier, tt.units, rate, burst, err)
		}
	}
}

// Everything that is wrong is said at once.
func TestValidate(t *testing.T) {
	err := method.Config{
		HostName: "https://hub.azure-devices.net", Addr: "hub", Module: "a/b", Rate: math.NaN(), ConnectTimeout: 1500 * time.Millisecond,
	}.Validate()
	if err == nil {
		t.Fatal("it is valid")
	}
	for i, name := range []string{"HostName", "Addr", "Module", "Credential", "Rate, Burst and MaxWait", "ConnectTimeout"} {
		if lines := strings.Split(err.Error(), "\n"); len(lines) != 6 || !strings.HasPrefix(lines[i], name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, host := range []string{"", "a b", "u@h", "h/p", "h?q", ":443"} {
		if (method.Config{HostName: host, Credential: &tokens{}}).Validate() == nil {
			t.Errorf("%q is a host name", host)
		}
	}
	for _, host := range []string{"hub.azure-devices.net", "localhost:8443", "[::1]:443"} {
		if err := (method.Config{HostName: host, Credential: &tokens{}}).Validate(); err != nil {
			t.Error(err)
		}
	}
	if _, err := method.New(method.Config{}); err == nil || !strings.HasPrefix(err.Error(), "method: ") {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "0": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "60": time.Minute, "61": time.Minute, "99999999999999999999": time.Minute,
		"-1": 0, "1.5": 0, "soon": 0, now.Add(20 * time.Second).Format(http.TimeFormat): 20 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat): 0, now.Add(time.Hour).Format(http.TimeFormat): time.Minute,
	} {
		if got := method.RetryAfter(v, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func ExampleRateFor() {
	rate, burst, _ := method.RateFor("S1", 2)
	fmt.Println(rate, burst)
	// Output: 64 64
}
