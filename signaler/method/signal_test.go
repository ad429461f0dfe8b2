package method_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/method"
)

// What the hub gets is what its documentation wants.
func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		device, module, path string
		left                 time.Duration // of the deadline; 0: none
		response             int
	}{
		{"pump-7", "", "/twins/pump-7/methods", 15 * time.Second, 15},
		{"pump-7", "bridge", "/twins/pump-7/modules/bridge/methods", 0, 30},
		{"pump-7", "", "/twins/pump-7/methods", 2 * time.Second, 5},
		{"pump-7", "", "/twins/pump-7/methods", time.Hour, 300},
		{"-.+%_#*?!(),:=@$'", "a%2Fb+c", "/twins/-.%2B%25_%23%2A%3F%21%28%29%2C%3A%3D%40%24%27/modules/a%252Fb%2Bc/methods", time.Minute, 60},
		{"...", "", "/twins/.../methods", time.Minute, 60},
	} {
		sig := newSignal(tt.device)
		var sni string
		s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
			var in map[string]json.RawMessage
			b, _ := io.ReadAll(r.Body)
			if err := json.Unmarshal(b, &in); err != nil {
				t.Error(err)
			}
			for name, want := range map[string]string{
				"methodName": `"Bridge"`, "responseTimeoutInSeconds": fmt.Sprint(tt.response), "connectTimeoutInSeconds": "7",
			} {
				if got := string(in[name]); got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			if len(in) != 4 {
				t.Errorf("%d members", len(in))
			}
			if want, _ := sig.Encode(); string(in["payload"]) != string(want) {
				t.Errorf("payload %s", in["payload"])
			}
			if r.Method != "POST" || r.URL.EscapedPath() != tt.path || r.URL.RawQuery != "api-version=2021-04-12" || r.Proto != "HTTP/1.1" {
				t.Errorf("%s %s?%s %s, want %s", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Proto, tt.path)
			}
			if r.Host != hostName || sni != hostName {
				t.Errorf("host %q, server name %q", r.Host, sni)
			}
			for name, want := range map[string]string{
				"Authorization": secretToken + "&n=0", "Content-Type": "application/json; charset=utf-8", "Request-Id": sig.BridgeID,
			} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s: %q", name, got)
				}
			}
			accept(w, r)
		}, func(c *method.Config) { c.Module, c.ConnectTimeout = tt.module, 7*time.Second })
		s.TLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { sni = h.ServerName; return nil, nil }
		ctx := t.Context()
		if tt.left > 0 {
			ctx = withTimeout(t, tt.left)
		}
		if err := s.method.Signal(ctx, sig); err != nil {
			t.Error(err)
		}
	}
}

// The device's words, whatever they are.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   signaler.Refusal // zero: accepted
	}{
		{`{"status":200,"payload":{"any":"thing"}}`, signaler.Refusal{}},
		{`{"status":0,"payload":null}`, signaler.Refusal{}},
		{`{"status":299}`, signaler.Refusal{}},
		{`{"status":409,"payload":{"code":"limit_reached","message":"8 bridges are open"}}`, signaler.Refusal{Code: "limit_reached", Message: "8 bridges are open"}},
		{`{"status":300,"payload":null}`, signaler.Refusal{Code: "device_status_300", Message: "the device answered status 300 and no words"}},
		{`{"status":-1}`, signaler.Refusal{Code: "device_status_-1", Message: "the device answered status -1 and no words"}},
		{`{"status":404,"payload":"Method not defined"}`, signaler.Refusal{Code: "device_status_404", Message: "Method not defined"}},
		{`{"status":500,"payload":{"error":"disk full"}}`, signaler.Refusal{Code: "device_status_500", Message: "disk full"}},
		{`{"status":500,"payload":{"code":17,"message":["a"]}}`, signaler.Refusal{Code: "17", Message: "the device answered status 500 and no words"}},
		{`{"status":500,"payload":[1,2]}`, signaler.Refusal{Code: "device_status_500", Message: "the device answered status 500 and no words"}},
		{`{"status":500,"payload":{"code":" a\u0000\n","message":"\u001b[31mred\u202e\ufffd"}}`, signaler.Refusal{Code: "a", Message: "[31mred"}},
		{`{"status":500,"payload":{"code":"` + strings.Repeat("ä", 100) + `","message":"` + strings.Repeat("x", 5000) + `"}}`, signaler.Refusal{Code: strings.Repeat("ä", 32), Message: strings.Repeat("x", 1000)}},
	} {
		s := newStub(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tt.answer) }, nil)
		err := s.method.Signal(t.Context(), newSignal("pump-7"))
		if tt.want == (signaler.Refusal{}) {
			if err != nil {
				t.Errorf("%.60s: %v", tt.answer, err)
			}
			continue
		}
		check(t, err, signaler.ErrRefused)
		if no, ok := errors.AsType[*signaler.RefusedError](err); !ok || no.Refusal != tt.want {
			t.Errorf("%.60s: got %v", tt.answer, err)
		}
		if got, want := errors.Is(err, method.ErrNoHandler), tt.want.Code == "device_status_404"; got != want {
			t.Errorf("%.60s: is ErrNoHandler: %t", tt.answer, got)
		}
		if s.calls.Load() != 1 {
			t.Errorf("%.60s: %d calls", tt.answer, s.calls.Load())
		}
	}
}

// An ID that could lead elsewhere is nobody's.
func TestBadIDs(t *testing.T) {
	s := newStub(t, accept, nil)
	for _, id := range []string{"", ".", "..", "a/b", `a\b`, "a b", "ä", "a\x00", strings.Repeat("x", 129)} {
		check(t, s.method.Signal(t.Context(), newSignal(id)), signaler.ErrDeviceNotFound)
	}
	if n := s.calls.Load(); n != 0 {
		t.Errorf("the hub was asked %d times", n)
	}
}

// A device that comes back while it is asked for is found, and one that had the first
// signal already says so.
func TestReconnects(t *testing.T) {
	for name, second := range map[string]string{
		"accepts": `{"status":200}`, "has it": `{"status":409,"payload":{"code":"replayed","message":"the signal has been here before"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
				var in struct{ ConnectTimeoutInSeconds int }
				json.NewDecoder(r.Body).Decode(&in)
				if n.Add(1); int64(in.ConnectTimeoutInSeconds) != n.Load()-1 {
					t.Errorf("call %d waits for %d s", n.Load(), in.ConnectTimeoutInSeconds)
				}
				if n.Load() == 1 {
					hubSays(w, "new", 404, 404103, "DeviceNotOnline", "")
					return
				}
				io.WriteString(w, second)
			}, nil)
			if err := s.method.Signal(withTimeout(t, 10*time.Second), newSignal("pump-7")); err != nil || n.Load() != 2 {
				t.Errorf("%v after %d calls", err, n.Load())
			}
		})
	}
	t.Run("replayed at first", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"status":409,"payload":{"code":"replayed","message":"x"}}`)
		}, nil)
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrRefused)
	})
}

func TestTokens(t *testing.T) {
	refuse := func(w http.ResponseWriter) { hubSays(w, "new", 401, 401003, "IotHubUnauthorized", "expired") }
	t.Run("a fresh one helps", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.Header.Get("Authorization"), "&n=0") {
				refuse(w)
				return
			}
			accept(w, r)
		}, nil)
		if err := s.method.Signal(t.Context(), newSignal("pump-7")); err != nil || s.calls.Load() != 2 {
			t.Errorf("%v after %d calls", err, s.calls.Load())
		}
	})
	t.Run("there is no other", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w) }, nil)
		s.tokens.frozen = true
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrUnauthorized)
		if s.calls.Load() != 1 {
			t.Errorf("%d calls", s.calls.Load())
		}
	})
	t.Run("none", func(t *testing.T) {
		s := newStub(t, accept, nil)
		s.tokens.err = errors.New("the client secret has expired")
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrUnauthorized)
		s.tokens.err = fmt.Errorf("entra: %w", unreachable{})
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrUnavailable)
		if s.calls.Load() != 0 {
			t.Errorf("%d calls", s.calls.Load())
		}
	})
	t.Run("a wrong clock", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-7*time.Minute).UTC().Format(http.TimeFormat))
			refuse(w)
		}, nil)
		if err := s.method.Signal(t.Context(), newSignal("pump-7")); err == nil || !strings.Contains(err.Error(), "clock and the hub's are 7m0s apart") {
			t.Error(err)
		}
	})
}

type unreachable struct{}

func (unreachable) Error() string     { return "nobody there" }
func (unreachable) Unavailable() bool { return true }

// The network is down, in all its ways.
func TestNetwork(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		s := newStub(t, accept, nil)
		s.Close()
		err := s.method.Signal(t.Context(), newSignal("pump-7"))
		check(t, err, signaler.ErrUnavailable)
		if !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "https://") {
			t.Error(err)
		}
	})
	t.Run("a certificate nobody signed", func(t *testing.T) {
		s := newStub(t, accept, func(c *method.Config) { c.TLS = nil })
		start := time.Now()
		err := s.method.Signal(t.Context(), newSignal("pump-7"))
		check(t, err, signaler.ErrUnavailable)
		if !strings.Contains(err.Error(), "certificate") || time.Since(start) > 10*time.Second {
			t.Error(err)
		}
	})
	t.Run("it hangs up", func(t *testing.T) {
		s := newStub(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil)
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrUnavailable)
		if n := s.calls.Load(); n != 1 { // it may have been heard
			t.Errorf("%d calls", n)
		}
	})
	t.Run("it hangs up in the answer", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"status":200`)
			panic(http.ErrAbortHandler)
		}, nil)
		check(t, s.method.Signal(t.Context(), newSignal("pump-7")), signaler.ErrUnavailable)
	})
	t.Run("a kept connection has died", func(t *testing.T) {
		var s *stub
		s = newStub(t, func(w http.ResponseWriter, r *http.Request) {
			if s.calls.Load() == 2 {
				panic(http.ErrAbortHandler)
			}
			accept(w, r)
		}, nil)
		for range 2 {
			if err := s.method.Signal(t.Context(), newSignal("pump-7")); err != nil {
				t.Error(err)
			}
		}
		if n := s.calls.Load(); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
	t.Run("the hub was busy", func(t *testing.T) {
		var s *stub
		s = newStub(t, func(w http.ResponseWriter, r *http.Request) {
			if s.calls.Load() == 1 {
				hubSays(w, "new", 503, 503001, "ServiceUnavailable", "")
				return
			}
			accept(w, r)
		}, nil)
		if err := s.method.Signal(t.Context(), newSignal("pump-7")); err != nil {
			t.Error(err)
		}
	})
}

// The caller's context has the last word, and its cause is the error.
func TestContext(t *testing.T) {
	left := errors.New("requester left")
	hang, asked := make(chan struct{}), make(chan struct{}, 2)
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // net/http notices a lost connection only then
		asked <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}, nil)
	defer close(hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.method.Signal(ctx, newSignal("pump-7")) }()
	<-asked
	cancel(left)
	check(t, <-result, left)
	check(t, s.method.Signal(ctx, newSignal("pump-7")), left)
	if s.calls.Load() != 1 {
		t.Error("the hub was asked in vain")
	}
}

// What a server says because it was hung up on is not what went wrong; a yes is a yes.
func TestAnswerToLeaving(t *testing.T) {
	left := errors.New("requester left")
	for body, want := range map[string]error{"": left, `{"status":503,"payload":null}`: left, `{"status":200,"payload":null}`: nil} {
		s := newStub(t, accept, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		s.method.RoundTripWith(func(r *http.Request) (*http.Response, error) {
			cancel(left)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})
		if err := s.method.Signal(ctx, newSignal("pump-7")); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", body, err, want)
		}
	}
}

// 200 calls wait for their devices at a time, on 200 connections, which the next 200
// use again.
func TestConcurrent(t *testing.T) {
	const n = 200
	var conns atomic.Int64
	var together sync.WaitGroup
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		accept(w, r)
	}, nil)
	s.method.DialWith(countDials(&conns))
	for range 3 {
		together.Add(n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if err := s.method.Signal(t.Context(), newSignal(fmt.Sprint("pump-", i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if got := conns.Load(); got > n+n/4 {
		t.Errorf("%d connections for %d calls at a time", got, n)
	}
}
