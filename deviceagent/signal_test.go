package deviceagent_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

// sourceFunc is a SignalSource in a sentence.
type sourceFunc func(ctx context.Context, h signaler.Handler) error

func (f sourceFunc) Run(ctx context.Context, h signaler.Handler) error { return f(ctx, h) }

// handling runs an agent whose source is f. The agent's dials lead nowhere.
func handling(t *testing.T, change func(*deviceagent.Config), f func(a *deviceagent.Agent, handle func(s *signaler.Signal) string)) {
	t.Helper()
	cfg := deviceagent.Config{
		DeviceID: device, RelayHosts: []string{"relay.test", "127.0.0.1"}, Targets: parse(t, "echo", "web=echo:"),
		Dialer: ws.Dialer{Proxy: netfault.NoProxy, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no way") }},
	}
	var a *deviceagent.Agent
	cfg.Source = sourceFunc(func(ctx context.Context, h signaler.Handler) error {
		f(a, func(s *signaler.Signal) string {
			t.Helper()
			payload, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return code(h(ctx, signaler.Delivery{Payload: payload, Answers: true}))
		})
		return nil
	})
	if change != nil {
		change(&cfg)
	}
	a, err := deviceagent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func code(no *signaler.Refusal) string {
	if no == nil {
		return ""
	}
	return no.Code
}

// good is a signal that is accepted.
func good() *signaler.Signal {
	return &signaler.Signal{
		AcceptURL: "wss://relay.test/bridge/accept?bridgeToken=t", RejectURL: "https://relay.test/bridge/reject?bridgeToken=t", Version: 1,
		BridgeID: "b", DeviceID: device, Target: "echo", ExpiresAt: time.Now().Add(20 * time.Second), Subprotocols: []string{wire.SessionV1},
	}
}

func TestRefusals(t *testing.T) {
	withDefault := func(c *deviceagent.Config) { c.Targets = parse(t, "default=echo:", "echo") }
	for _, tt := range []struct {
		name   string
		agent  func(*deviceagent.Config)
		signal func(*signaler.Signal)
		want   string
	}{
		{"good", nil, func(s *signaler.Signal) {}, ""},
		{"good raw", nil, func(s *signaler.Signal) { s.Subprotocols = nil }, ""},
		{"no device", nil, func(s *signaler.Signal) { s.DeviceID = "" }, ""},
		{"no expiry", nil, func(s *signaler.Signal) { s.ExpiresAt = time.Time{} }, ""},
		{"no reject URL", nil, func(s *signaler.Signal) { s.RejectURL = "" }, ""},
		{"two targets", nil, func(s *signaler.Signal) { s.Target = "echo,web" }, ""},
		{"other subprotocols", nil, func(s *signaler.Signal) { s.Subprotocols = []string{"bridge.session.v9", "mqtt"} }, ""},
		{"bad target", nil, func(s *signaler.Signal) { s.Target = "a b" }, "bad_signal"},
		{"too many targets", nil, func(s *signaler.Signal) { s.Target = strings.Repeat("echo,", 16) + "echo" }, "bad_signal"},
		{"wrong device", nil, func(s *signaler.Signal) { s.DeviceID = "PUMP-7" }, "wrong_device"},
		{"expired", nil, func(s *signaler.Signal) { s.ExpiresAt = time.Now().Add(-2 * time.Minute) }, "expired"},
		{"other relay", nil, func(s *signaler.Signal) { s.AcceptURL = "wss://evil.test/" }, "relay_not_allowed"},
		{"other relay to refuse at", nil, func(s *signaler.Signal) { s.RejectURL = "https://evil.test/" }, "relay_not_allowed"},
		{"plain", nil, func(s *signaler.Signal) { s.AcceptURL = "ws://relay.test/" }, "relay_not_allowed"},
		{"plain to refuse at", nil, func(s *signaler.Signal) { s.RejectURL = "http://relay.test/" }, "relay_not_allowed"},
		{"plain on loopback", nil, func(s *signaler.Signal) { s.AcceptURL, s.RejectURL = "ws://127.0.0.1:1/", "http://127.0.0.1:1/" }, ""},
		{"plain, allowed", func(c *deviceagent.Config) { c.AllowPlain = true }, func(s *signaler.Signal) { s.AcceptURL = "ws://relay.test/" }, ""},
		{"unknown target", nil, func(s *signaler.Signal) { s.Target = "ssh" }, "target_not_allowed"},
		{"one unknown target", nil, func(s *signaler.Signal) { s.Target = "echo,ssh" }, "target_not_allowed"},
		{"unknown raw target", nil, func(s *signaler.Signal) { s.Target, s.Subprotocols = "ssh", nil }, "target_not_allowed"},
		{"no default", nil, func(s *signaler.Signal) { s.Target = "" }, "target_required"},
		{"no raw default", nil, func(s *signaler.Signal) { s.Target, s.Subprotocols = "", nil }, "target_required"},
		{"two raw targets", nil, func(s *signaler.Signal) { s.Target, s.Subprotocols = "echo,web", nil }, "target_required"},
		{"default", withDefault, func(s *signaler.Signal) { s.Target = "" }, ""},
		{"raw default", withDefault, func(s *signaler.Signal) { s.Target, s.Subprotocols = "", nil }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handling(t, tt.agent, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
					s := good()
					tt.signal(s)
					if got := handle(s); got != tt.want {
						t.Errorf("got %q, want %q", got, tt.want)
					}
				})
			})
		})
	}
}

// The order of doc.go: what is wrong in several ways is refused for the first.
func TestRefusalOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := signaler.NewSigner(signaler.NewSigningKey())
		off := false
		handling(t, func(c *deviceagent.Config) {
			c.MaxBridges, c.SignalKeys, c.Principals = 1, []signaler.PublicKey{key.Public()}, []string{"ops", "dev"}
			c.TargetPrincipals = map[string][]string{"echo": {"ops"}}
			c.KillSwitch = func() error {
				if off {
					return errors.New("off")
				}
				return nil
			}
		}, func(_ *deviceagent.Agent, handleAsIs func(*signaler.Signal) string) {
			handle := func(s *signaler.Signal) string {
				key.Sign(s)
				return handleAsIs(s)
			}
			first := good()
			first.Principal = "ops"
			if got := handle(first); got != "" {
				t.Fatalf("got %q", got)
			}
			s := good()
			s.DeviceID, s.ExpiresAt, s.AcceptURL, s.Target = "other", time.Now().Add(-time.Hour), "wss://evil.test/", "ssh"
			if got := handleAsIs(s); got != "not_signed" {
				t.Errorf("got %q", got)
			}
			signaler.NewSigner(signaler.NewSigningKey()).Sign(s)
			if got := handleAsIs(s); got != "wrong_signature" {
				t.Errorf("got %q", got)
			}
			off = true
			for _, step := range []struct {
				want string
				mend func()
			}{
				{"wrong_device", func() { s.DeviceID = device }},
				{"expired", func() { s.ExpiresAt = first.ExpiresAt }},
				{"relay_not_allowed", func() { s.AcceptURL = first.AcceptURL }},
				{"disabled", func() { // which has ended the first one
					off = false
					synctest.Wait()
					again := *first
					again.BridgeID = "b again"
					if got := handle(&again); got != "" {
						t.Errorf("on again: got %q", got)
					}
				}},
				{"replayed", func() { s.BridgeID = "another" }},
				{"principal_not_allowed", func() { s.BridgeID, s.Principal = "a third", "dev" }},
				{"target_not_allowed", func() { s.BridgeID, s.Target = "a fourth", "echo" }},
				{"principal_not_allowed", func() { s.BridgeID, s.Principal = "a fifth", "ops" }},
				{"limit_reached", func() {}},
			} {
				if got := handle(s); got != step.want {
					t.Errorf("got %q, want %q", got, step.want)
				}
				step.mend()
			}
		})
	})
}

func TestBadPayloads(t *testing.T) {
	var log testlog.Buffer
	cfg := deviceagent.Config{
		DeviceID: device, RelayHosts: []string{"*"}, Targets: parse(t, "echo"), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Source: sourceFunc(func(ctx context.Context, h signaler.Handler) error {
			for _, payload := range []string{
				"", "null", "[]", `{}`, `{"acceptUrl":"wss://relay.test/?bridgeToken=SECRET","v":2}`, `{"acceptUrl":"wss://relay.test/?bridgeToken=SECRET","v":"SECRET"}`,
				`{"acceptUrl":"wss://u:SECRET@relay.test/"}`, `{"acceptUrl":"ftp://SECRET"}`, `{"acceptUrl":"wss://%zzSECRET"}`, strings.Repeat("SECRET", 1000),
			} {
				for _, answers := range []bool{true, false} {
					if got := code(h(ctx, signaler.Delivery{Payload: []byte(payload), Answers: answers})); got != "bad_signal" {
						t.Errorf("%.40q: got %q", payload, got)
					}
				}
			}
			no := h(ctx, signaler.Delivery{Payload: []byte(`{"acceptUrl":"wss://relay.test/","v":2}`)})
			if !strings.Contains(no.Message, "upgrade") {
				t.Errorf("a newer signal: %q", no.Message)
			}
			return nil
		}),
	}
	a, err := deviceagent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "SECRET") {
		t.Errorf("a secret is in the log:\n%s", &log)
	}
}

// A clock that is a minute ahead is forgiven, and the relay is still dialled.
func TestExpiryGrace(t *testing.T) {
	for late, want := range map[time.Duration]string{59 * time.Second: "", 60 * time.Second: "", 61 * time.Second: "expired"} {
		synctest.Test(t, func(t *testing.T) {
			start, dials := time.Now(), 0
			handling(t, func(c *deviceagent.Config) {
				c.Dialer.Dial = func(context.Context, string, string) (net.Conn, error) {
					dials++
					return nil, errors.New("no way")
				}
			}, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
				s := good()
				s.ExpiresAt = time.Now().Add(-late)
				if got := handle(s); got != want {
					t.Errorf("%v late: got %q, want %q", late, got, want)
				}
				time.Sleep(time.Minute)
			})
			if want == "" && dials < 8 || want != "" && dials > 0 {
				t.Errorf("%v late: %d dials in %v", late, dials, time.Since(start))
			}
		})
	}
}

func TestReplay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal func(*signaler.Signal)
		forgot time.Duration // after which it is no replay any more
		then   string
	}{
		{"with an expiry", func(s *signaler.Signal) {}, 20*time.Second + time.Minute, "expired"},
		{"without one", func(s *signaler.Signal) { s.ExpiresAt = time.Time{} }, time.Hour, ""},
		{"by a clock of 1970", func(s *signaler.Signal) { s.ExpiresAt = s.ExpiresAt.AddDate(50, 0, 0) }, time.Hour, ""},
		{"by its URL", func(s *signaler.Signal) { *s = signaler.Signal{AcceptURL: s.AcceptURL, Target: "echo"} }, time.Hour, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handling(t, nil, func(a *deviceagent.Agent, handle func(*signaler.Signal) string) {
					s := good()
					tt.signal(s)
					if got := handle(s); got != "" {
						t.Fatalf("got %q", got)
					}
					for _, at := range []time.Duration{0, tt.forgot} {
						time.Sleep(at)
						if got := handle(s); got != "replayed" {
							t.Errorf("after %v: got %q", at, got)
						}
					}
					time.Sleep(time.Nanosecond)
					if got := handle(s); got != tt.then {
						t.Errorf("after %v: got %q, want %q", tt.forgot, got, tt.then)
					}
					other := good()
					other.BridgeID, other.Target = "other", "ssh"
					handle(other)
					time.Sleep(2 * time.Hour)
					other.BridgeID, other.ExpiresAt = "a third", time.Now()
					handle(other)
					if n := a.Remembered(); n != 1 {
						t.Errorf("%d signals are remembered", n)
					}
				})
			})
		})
	}
}

// The handler answers at once, whatever the target does.
func TestAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := parse(t)
		if err := targets.Add("hangs", dialFunc(func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})); err != nil {
			t.Fatal(err)
		}
		handling(t, func(c *deviceagent.Config) { c.Targets = targets }, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
			start := time.Now()
			s := good()
			s.Target, s.Subprotocols = "hangs", nil
			if got := handle(s); got != "" || time.Since(start) > 0 {
				t.Errorf("got %q after %v", got, time.Since(start))
			}
		})
	})
}

// A source that calls after its Run has returned, which it must not, finds the
// agent closed.
func TestStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late signaler.Handler
		cfg := deviceagent.Config{
			DeviceID: device, RelayHosts: []string{"*"}, Targets: parse(t, "echo"),
			Source: sourceFunc(func(_ context.Context, h signaler.Handler) error {
				late = h
				return nil
			}),
		}
		a, err := deviceagent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		payload, _ := good().Encode()
		if got := code(late(context.Background(), signaler.Delivery{Payload: payload})); got != "stopping" {
			t.Errorf("got %q", got)
		}
	})
}

func TestConfigFaults(t *testing.T) {
	_, err := deviceagent.New(deviceagent.Config{DeviceID: "a b", RelayHosts: []string{"wss://x", "*x"}, MaxBridges: -1})
	for _, want := range []string{"DeviceID: has ' '", "Source: is missing", `RelayHosts: "wss://x" is a URL`, `RelayHosts: "*x" may have a star only`, "Targets: are missing", "cannot be negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	_, err = deviceagent.New(deviceagent.Config{})
	if err == nil || !strings.Contains(err.Error(), "RelayHosts: name the relays") {
		t.Errorf("got %v", err)
	}
	cfg := deviceagent.Config{DeviceID: "d", Source: sourceFunc(nil), RelayHosts: []string{"*"}, Targets: parse(t)}
	cfg.SignalKeys = make([]signaler.PublicKey, 1)
	if _, err := deviceagent.New(cfg); err == nil || !strings.Contains(err.Error(), "SignalKeys: one is empty") {
		t.Errorf("got %v", err)
	}
	cfg.Principals, cfg.TargetPrincipals = []string{"a b", `o\*`}, map[string][]string{"ssh": {"ops"}, "web": nil, "db": {""}}
	if _, err := deviceagent.New(cfg); err == nil || !strings.Contains(err.Error(), `Principals: "a b" has a space`) || !strings.Contains(err.Error(), `Principals: "o\\*" has a \`) ||
		!strings.Contains(err.Error(), `TargetPrincipals: there is no target named "ssh"`) || !strings.Contains(err.Error(), `TargetPrincipals: "web" has no principal`) ||
		!strings.Contains(err.Error(), `TargetPrincipals: "" of "db" is empty`) {
		t.Errorf("got %v", err)
	}
	cfg.Session.InitialWindow = 1
	if _, err := deviceagent.New(cfg); err == nil || !strings.Contains(err.Error(), "Session: ") {
		t.Errorf("got %v", err)
	}
}

func TestSourceError(t *testing.T) {
	want := errors.New("taken over")
	a, err := deviceagent.New(deviceagent.Config{
		DeviceID: device, RelayHosts: []string{"*"}, Targets: parse(t), Source: sourceFunc(func(context.Context, signaler.Handler) error { return want }),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Run(context.Background()); err != want {
			t.Errorf("got %v", err)
		}
	}
}

// FuzzHandle: no payload breaks the agent, and none that is refused makes it dial.
func FuzzHandle(f *testing.F) {
	for _, s := range []*signaler.Signal{good(), {AcceptURL: "wss://evil.test/"}, {AcceptURL: "ws://127.0.0.1/", Target: "echo,web"}} {
		payload, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload, true)
		f.Add(payload, false)
	}
	f.Add([]byte(`{"acceptUrl":"wss://relay.test/","v":2}`), false)
	f.Fuzz(func(t *testing.T, payload []byte, answers bool) {
		dialled := make(chan string, 100)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		targets, err := deviceagent.ParseTargets([]string{"echo", "tcp:*:1"})
		if err != nil {
			t.Fatal(err)
		}
		cfg := deviceagent.Config{
			DeviceID: device, RelayHosts: []string{"relay.test", "127.0.0.1"}, Targets: targets,
			Dialer: ws.Dialer{Proxy: netfault.NoProxy, Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
				dialled <- addr
				return nil, errors.New("no way")
			}},
			Source: sourceFunc(func(ctx context.Context, h signaler.Handler) error {
				no := h(ctx, signaler.Delivery{Payload: payload, Answers: answers})
				if no != nil && (no.Code == "" || no.Message == "" || len(no.Message) > 600) {
					t.Errorf("refused with %+v", no)
				}
				cancel()
				return nil
			}),
		}
		a, err := deviceagent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a.Run(ctx)
		close(dialled)
		for addr := range dialled {
			if host, _, _ := net.SplitHostPort(addr); !strings.EqualFold(strings.TrimSuffix(host, "."), "relay.test") && !net.ParseIP(host).Equal(net.IPv4(127, 0, 0, 1)) {
				t.Errorf("dialled %s", addr)
			}
		}
	})
}
