package deviceagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/signaler"
	"websocketbridge/test/testlog"
)

// A signal without a good signature is refused, and nothing of it is dialled: neither of
// its URLs, whether or not the hub carries the answer, and whatever else is wrong with it.
func TestSignature(t *testing.T) {
	mine, next, other := signaler.NewSigningKey(), signaler.NewSigningKey(), signaler.NewSigningKey()
	sign := func(k signaler.SigningKey, change func(*signaler.Signal)) func(*signaler.Signal) {
		return func(s *signaler.Signal) {
			if change != nil {
				change(s)
			}
			signaler.NewSigner(k).Sign(s)
		}
	}
	then := func(first, second func(*signaler.Signal)) func(*signaler.Signal) {
		return func(s *signaler.Signal) { first(s); second(s) }
	}
	signed := sign(mine, nil)
	for _, tt := range []struct {
		name, want string
		says       string // the refusal
		signal     func(*signaler.Signal)
		posts      int // if the hub carries no answer
	}{
		{"signed", "target_not_allowed", "", signed, 1},
		{"by the next key", "target_not_allowed", "", sign(next, nil), 1},
		{"not at all", "not_signed", "follows signed ones only", func(*signaler.Signal) {}, 0},
		{"by another relay", "wrong_signature", "made with key " + other.Public().ID() + ", which is not on the list", sign(other, nil), 0},
		{"rubbish", "wrong_signature", "not base64url", func(s *signaler.Signal) { s.Sig = "SECRET?" }, 0},
		{"then another accept URL", "wrong_signature", "changed on its way, or forged", then(signed, func(s *signaler.Signal) { s.AcceptURL = "ws://relay.test/22?bridgeToken=SECRET" }), 0},
		{"then another reject URL", "wrong_signature", "changed on its way, or forged", then(signed, func(s *signaler.Signal) { s.RejectURL = "http://relay.test/x" }), 0},
		{"then a later expiry", "wrong_signature", "changed on its way, or forged", then(signed, func(s *signaler.Signal) { s.ExpiresAt = s.ExpiresAt.Add(time.Hour) }), 0},
		{"then a replay's new name", "wrong_signature", "changed on its way, or forged", then(signed, func(s *signaler.Signal) { s.BridgeID = "another" }), 0},
		{"then another principal", "wrong_signature", "changed on its way, or forged", then(signed, func(s *signaler.Signal) { s.Principal = "root" }), 0},
		{"for another device", "wrong_device", "", sign(mine, func(s *signaler.Signal) { s.DeviceID = "pump-8" }), 1},
		{"for any device", "wrong_signature", "does not say for which device", sign(mine, func(s *signaler.Signal) { s.DeviceID = "" }), 0},
		{"for ever", "wrong_signature", "does not say for which device and until when", sign(mine, func(s *signaler.Signal) { s.ExpiresAt = time.Time{} }), 0},
		{"expired", "expired", "", sign(mine, func(s *signaler.Signal) { s.ExpiresAt = s.ExpiresAt.Add(-time.Hour) }), 1},
		{"unsigned and expired", "not_signed", "", func(s *signaler.Signal) { s.ExpiresAt = s.ExpiresAt.Add(-time.Hour) }, 0},
		{"unsigned, elsewhere", "not_signed", "", func(s *signaler.Signal) { s.AcceptURL, s.RejectURL = "ws://evil.test/", "http://evil.test/" }, 0},
		{"of websocketbridge", "not_signed", "", func(s *signaler.Signal) { *s = signaler.Signal{AcceptURL: s.AcceptURL} }, 0},
	} {
		for _, answers := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answers %t", tt.name, answers), func(t *testing.T) {
				d := new(desk)
				log := rejecting(t, d, func(c *deviceagent.Config) {
					c.SignalKeys = []signaler.PublicKey{next.Public(), mine.Public()}
				}, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
					s := bad()
					tt.signal(s)
					if no := h(s, answers); no == nil || no.Code != tt.want || !strings.Contains(no.Message, tt.says) || strings.Contains(no.Message, "SECRET") {
						t.Errorf("got %+v", no)
					}
				})
				posts := tt.posts
				if answers {
					posts = 0
				}
				if len(d.posts) != posts || len(d.dials) != posts {
					t.Errorf("posted %q, dialled %q", d.posts, d.dials)
				}
				if strings.Contains(log, "SECRET") || !strings.Contains(log, "reason="+tt.want) {
					t.Errorf("log:\n%s", log)
				}
			})
		}
	}
}

// A signed signal works once; a forged one with its name does not use it up, and the same
// signal with its JSON written anew is still the same.
func TestSignedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := signaler.NewSigningKey()
		cfg := func(c *deviceagent.Config) { c.SignalKeys = []signaler.PublicKey{key.Public()} }
		payload := func(s *signaler.Signal) []byte {
			b, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		handling(t, func(c *deviceagent.Config) {
			cfg(c)
			c.Source = sourceFunc(func(ctx context.Context, h signaler.Handler) error {
				s, forged := good(), good()
				signaler.NewSigner(signaler.NewSigningKey()).Sign(forged)
				signaler.NewSigner(key).Sign(s)
				var m map[string]any
				if err := json.Unmarshal(payload(s), &m); err != nil {
					t.Fatal(err)
				}
				anew, err := json.MarshalIndent(m, "", "\t")
				if err != nil {
					t.Fatal(err)
				}
				for i, step := range []struct {
					payload []byte
					want    string
				}{
					{payload(forged), "wrong_signature"}, {payload(good()), "not_signed"}, {anew, ""}, {anew, "replayed"}, {payload(s), "replayed"}, {payload(forged), "wrong_signature"},
				} {
					if got := code(h(ctx, signaler.Delivery{Payload: step.payload, Answers: true})); got != step.want {
						t.Errorf("step %d: got %q, want %q", i+1, got, step.want)
					}
				}
				return nil
			})
		}, nil)
	})
}

// A stranger who sends and sends does not fill the log.
func TestUnsignedFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		handling(t, func(c *deviceagent.Config) {
			c.SignalKeys, c.Logger = []signaler.PublicKey{signaler.NewSigningKey().Public()}, newLogger(&log)
		}, func(a *deviceagent.Agent, handle func(*signaler.Signal) string) {
			for range 300 { // for 30 s
				if got := handle(good()); got != "not_signed" {
					t.Fatalf("got %q", got)
				}
				time.Sleep(100 * time.Millisecond)
			}
			s := good()
			s.Sig = "x"
			handle(s) // another code has lines of its own
			if n := a.Remembered(); n != 0 {
				t.Errorf("%d are remembered", n)
			}
		})
		if n := strings.Count(log.String(), "signal refused"); n != 31 || strings.Count(log.String(), "not_logged_before=90") != 2 {
			t.Errorf("%d lines:\n%s", n, &log)
		}
	})
}

func TestPrincipals(t *testing.T) {
	for _, tt := range []struct {
		name, principal, target, want string
		principals                    []string
		targets                       map[string][]string
	}{
		{"everybody", "anyone", "echo", "", nil, nil},
		{"nobody in particular", "", "echo", "", nil, nil},
		{"listed", "ops", "echo", "", []string{"dev", "ops"}, nil},
		{"not listed", "ops2", "echo", "principal_not_allowed", []string{"dev", "ops"}, nil},
		{"another case", "OPS", "echo", "principal_not_allowed", []string{"ops"}, nil},
		{"without a name", "", "echo", "principal_not_allowed", []string{"ops"}, nil},
		{"without a name, but all are welcome", "", "echo", "", []string{"*"}, nil},
		{"who has a URL of ops", "signed:ops", "echo", "principal_not_allowed", []string{"ops"}, nil},
		{"of the domain", "oidc:me@example.com", "echo", "", []string{"oidc:*@example.com"}, nil},
		{"of a longer domain", "oidc:me@example.com.evil", "echo", "principal_not_allowed", []string{"oidc:*@example.com"}, nil},
		{"of no such target", "ops", "ssh", "target_not_allowed", []string{"ops"}, nil},
		{"not listed learns no targets", "dev", "ssh", "principal_not_allowed", []string{"ops"}, nil},
		{"for this target", "ops", "web", "", nil, map[string][]string{"web": {"dev", "o*"}}},
		{"not for this target", "ops", "web", "principal_not_allowed", nil, map[string][]string{"web": {"dev"}}},
		{"for others", "ops", "echo", "", nil, map[string][]string{"web": {"dev"}}},
		{"not for one of two", "ops", "echo,web", "principal_not_allowed", nil, map[string][]string{"web": {"dev"}}},
		{"for the target, but not here", "ops", "web", "principal_not_allowed", []string{"dev"}, map[string][]string{"web": {"ops"}}},
		{"for the default", "ops", "", "principal_not_allowed", nil, map[string][]string{"default": {"dev"}}},
	} {
		for _, protocols := range [][]string{good().Subprotocols, nil} {
			if protocols == nil && strings.Contains(tt.target, ",") {
				continue // a raw bridge has one target
			}
			t.Run(fmt.Sprintf("%s, %d", tt.name, len(protocols)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					handling(t, func(c *deviceagent.Config) {
						c.Targets = parse(t, "echo", "web=echo:", "default=echo:")
						c.Principals, c.TargetPrincipals = tt.principals, tt.targets
					}, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
						s := good()
						s.Principal, s.Target, s.Subprotocols = tt.principal, tt.target, protocols
						if got := handle(s); got != tt.want {
							t.Errorf("got %q, want %q", got, tt.want)
						}
					})
				})
			})
		}
	}
}

// FuzzMatchStars compares with the simplest matcher there is.
func FuzzMatchStars(f *testing.F) {
	f.Add("oidc:*@example.com", "oidc:me@example.com")
	f.Add("*a*b*", "xxaxbx")
	f.Add("a**a", "a")
	f.Add("ab*b", "ab")
	f.Add("***************\x1b", "0+7a 9ab8y&9cs and many more that do not end so")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 16 || len(name) > 64 {
			return
		}
		if got, want := deviceagent.MatchStars(pattern, name), slowMatch(pattern, name); got != want {
			t.Errorf("%q matches %q: %t, want %t", pattern, name, got, want)
		}
	})
}

// slowMatch fills a table of which beginnings match.
func slowMatch(pattern, name string) bool {
	matches := make([][]bool, len(pattern)+1)
	for p := range matches {
		matches[p] = make([]bool, len(name)+1)
		for n := range matches[p] {
			switch {
			case p == 0:
				matches[p][n] = n == 0
			case pattern[p-1] == '*':
				matches[p][n] = matches[p-1][n] || n > 0 && matches[p][n-1]
			default:
				matches[p][n] = n > 0 && pattern[p-1] == name[n-1] && matches[p-1][n-1]
			}
		}
	}
	return matches[len(pattern)][len(name)]
}

// FuzzHandleSigned: nobody without the key makes a device dial.
func FuzzHandleSigned(f *testing.F) {
	key := signaler.NewSigningKey()
	var whole []byte
	for _, s := range []*signaler.Signal{good(), bad(), {AcceptURL: "wss://relay.test/"}} {
		signaler.NewSigner(signaler.NewSigningKey()).Sign(s)
		payload, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload, false)
		f.Add(payload, true)
		whole = payload
	}
	f.Add(whole[:len(whole)-3], false)
	f.Fuzz(func(t *testing.T, payload []byte, answers bool) {
		handling(t, func(c *deviceagent.Config) {
			c.RelayHosts, c.AllowPlain, c.SignalKeys = []string{"*"}, true, []signaler.PublicKey{key.Public()}
			c.Dialer.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
				t.Errorf("dialled %s", addr)
				return nil, context.Canceled
			}
			c.Source = sourceFunc(func(ctx context.Context, h signaler.Handler) error {
				if got := code(h(ctx, signaler.Delivery{Payload: payload, Answers: answers})); got != "bad_signal" && got != "not_signed" && got != "wrong_signature" {
					t.Errorf("got %q", got)
				}
				return nil
			})
		}, nil)
	})
}
