package deviceagent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// A desk takes what agents post, and notes whom they dial.
type desk struct {
	mu     sync.Mutex
	dials  []string
	posts  []string
	answer func(w http.ResponseWriter, r *http.Request)
}

// rejecting runs f with an agent in a bubble. All addresses lead to the desk.
func rejecting(t *testing.T, d *desk, change func(*deviceagent.Config), f func(h func(s *signaler.Signal, answers bool) *signaler.Refusal)) (log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := netfault.NewListener()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			d.mu.Lock()
			d.posts = append(d.posts, fmt.Sprintf("%s %s%s %s", r.Method, r.Host, r.URL.Path, body))
			d.mu.Unlock()
			if d.answer != nil {
				d.answer(w, r)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})}
		served := make(chan struct{})
		go func() {
			defer close(served)
			srv.Serve(ln)
		}()
		var buf testlog.Buffer
		handling(t, func(c *deviceagent.Config) {
			c.Logger = newLogger(&buf)
			c.AllowPlain = true
			c.Dialer = ws.Dialer{Proxy: netfault.NoProxy, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				d.mu.Lock()
				d.dials = append(d.dials, addr)
				d.mu.Unlock()
				return ln.Dial(ctx, network, addr)
			}}
			if change != nil {
				change(c)
			}
			f0 := c.Source
			c.Source = sourceFunc(func(ctx context.Context, h signaler.Handler) error {
				f(func(s *signaler.Signal, answers bool) *signaler.Refusal {
					t.Helper()
					payload, err := s.Encode()
					if err != nil {
						t.Fatal(err)
					}
					return h(ctx, signaler.Delivery{Payload: payload, Answers: answers})
				})
				time.Sleep(time.Minute) // for what runs by itself
				return f0.Run(ctx, h)
			})
		}, func(*deviceagent.Agent, func(*signaler.Signal) string) {})
		srv.Close()
		<-served
		log = buf.String()
	})
	return log
}

// bad is a signal that is refused for its target.
func bad() *signaler.Signal {
	s := good()
	s.AcceptURL, s.RejectURL, s.Target = "ws://relay.test/accept?bridgeToken=SECRET", "http://relay.test/reject?bridgeToken=SECRET", "ssh"
	return s
}

func TestReject(t *testing.T) {
	post := func(code, text string) string {
		return `POST relay.test/reject {"code":"` + code + `","message":"` + text + `"}`
	}
	notAllowed := post("target_not_allowed", `target \"ssh\" is not on this device's list`)
	for _, tt := range []struct {
		name    string
		signal  func(*signaler.Signal)
		answers bool
		posts   []string
	}{
		{"the hub carries no answer", func(*signaler.Signal) {}, false, []string{notAllowed}},
		{"the hub carries the answer", func(*signaler.Signal) {}, true, nil},
		{"nowhere to post", func(s *signaler.Signal) { s.RejectURL = "" }, false, nil},
		{"another device's", func(s *signaler.Signal) { s.DeviceID = "other" }, false, []string{post("wrong_device", `the signal is for device \"other\", this is \"pump-7\"`)}},
		{"another device's, elsewhere", func(s *signaler.Signal) { s.DeviceID, s.RejectURL = "other", "http://evil.test/" }, false, nil},
		{"expired, elsewhere", func(s *signaler.Signal) {
			s.ExpiresAt, s.RejectURL = s.ExpiresAt.AddDate(-1, 0, 0), "http://evil.test/"
		}, false, nil},
		{"elsewhere", func(s *signaler.Signal) { s.RejectURL = "http://evil.test/" }, false, nil},
		{"accept elsewhere", func(s *signaler.Signal) { s.AcceptURL = "ws://evil.test/" }, false, []string{post("relay_not_allowed", `the relay evil.test is not on this device's list`)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := new(desk)
			log := rejecting(t, d, nil, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
				s := bad()
				tt.signal(s)
				if h(s, tt.answers) == nil {
					t.Error("accepted")
				}
			})
			if !slices.Equal(d.posts, tt.posts) {
				t.Errorf("posted %q, want %q", d.posts, tt.posts)
			}
			if len(d.dials) != len(tt.posts) {
				t.Errorf("dialled %q", d.dials)
			}
			if strings.Contains(log, "SECRET") || strings.Contains(log, "reject failed") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// A replay is refused, but not at the relay: the first one may still be under way.
func TestRejectReplay(t *testing.T) {
	d := new(desk)
	rejecting(t, d, nil, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
		s := bad()
		if a, b := h(s, false), h(s, false); a.Code != "target_not_allowed" || b.Code != "replayed" {
			t.Errorf("got %v, %v", a, b)
		}
	})
	if len(d.posts) != 1 {
		t.Errorf("posted %q", d.posts)
	}
}

// What the agent makes of the relay's answers: nothing, and without its secrets.
func TestRejectAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		log    string
	}{
		{"gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, ""},
		{"failed", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "SECRET", 500) }, "status=500"},
		{"redirected", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://evil.test/SECRET")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "status=307"},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "error=EOF"},
		{"hanging", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}, "status=200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{answer: tt.answer}
			log := rejecting(t, d, nil, func(h func(*signaler.Signal, bool) *signaler.Refusal) { h(bad(), false) })
			if len(d.posts) != 1 || len(d.dials) != 1 {
				t.Errorf("posted %q, dialled %q", d.posts, d.dials)
			}
			if strings.Contains(log, "SECRET") || !strings.Contains(log, tt.log) || tt.log == "" && strings.Contains(log, "reject failed") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// Refusals that the relay does not take do not pile up.
func TestRejectFlood(t *testing.T) {
	d := &desk{answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}
	rejecting(t, d, nil, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
		for i := range 100 {
			s := bad()
			s.BridgeID = fmt.Sprint(i)
			h(s, false)
		}
	})
	if len(d.posts) != 16 {
		t.Errorf("%d posts at once", len(d.posts))
	}
}

// A raw bridge's target that is down is told to the relay even if the hub has
// carried a yes, in the words of the target, as many as the relay reads.
func TestRejectDialFailed(t *testing.T) {
	targets := parse(t)
	if err := targets.Add("down", dialFunc(func(context.Context) (net.Conn, error) {
		return nil, errors.New("\xff<\x00>" + strings.Repeat("é\x00", 5000))
	})); err != nil {
		t.Fatal(err)
	}
	for _, answers := range []bool{true, false} {
		d := new(desk)
		rejecting(t, d, func(c *deviceagent.Config) { c.Targets = targets }, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
			s := bad()
			s.Target, s.Subprotocols = "down", nil
			if no := h(s, answers); no != nil {
				t.Errorf("refused: %v", no)
			}
		})
		if len(d.posts) != 1 || !strings.Contains(d.posts[0], `{"code":"dial_failed","message":"`) || len(d.posts[0]) > 4000 {
			t.Errorf("posted %q", d.posts)
		}
	}
}
