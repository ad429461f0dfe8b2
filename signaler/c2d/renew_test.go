package c2d

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// TestRenews: at 2/3 of the token's life, on the live connection.
func TestRenews(t *testing.T) {
	src := &source{}
	n := 0
	src.token = func() (credential.Token, error) {
		n++
		return credential.Token{Text: "SharedAccessSignature " + strings.Repeat("i", n), Expires: time.Now().Add(time.Hour)}, nil
	}
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		synctest.Wait()
		sleep(39 * time.Minute)
		if got := len(h.tokens()); got != 1 {
			t.Errorf("%d tokens after 39 min", got)
		}
		sleep(2 * time.Minute)
		if got := len(h.tokens()); got != 2 || h.tokens()[0] == h.tokens()[1] {
			t.Errorf("%d tokens after 41 min", got)
		}
		sleep(24 * time.Hour)
		if got := len(h.tokens()); got < 37 || got > 39 || h.count() != 1 {
			t.Errorf("%d tokens on %d connections after a day", got, h.count())
		}
		if _, gap := h.last.seen(); gap > peerIdle {
			t.Errorf("the hub did not hear of us for %v", gap)
		}
	})
}

// TestRenew: another key is shown at once, on the live connection, and the same one not
// again.
func TestRenew(t *testing.T) {
	src := &source{}
	key := func(name string) func() (credential.Token, error) {
		return func() (credential.Token, error) {
			return credential.Token{Text: "SharedAccessSignature " + name, Expires: time.Now().Add(time.Hour)}, nil
		}
	}
	src.token = key("old")
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		s.Renew() // before it is connected, or while it is
		sleep(time.Minute)
		if got := len(h.tokens()); got != 1 {
			t.Errorf("%d tokens of one key", got)
		}
		src.set(key("new"))
		s.Renew()
		s.Renew()
		sleep(time.Second)
		if got := h.tokens(); len(got) != 2 || got[1] != "SharedAccessSignature new" || h.count() != 1 {
			t.Errorf("%q on %d connections", got, h.count())
		}
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
	})
}

// TestRenewRefused: the hub does not know the new key yet. The connection stays, and the
// key is shown again until the hub does.
func TestRenewRefused(t *testing.T) {
	src := &source{}
	src.token = func() (credential.Token, error) {
		return credential.Token{Text: "SharedAccessSignature old", Expires: time.Now().Add(time.Hour)}, nil
	}
	var known atomic.Bool
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer {
			return &peer{put: func(text string) int32 {
				if strings.HasSuffix(text, "new") && !known.Load() {
					return 401
				}
				return 200
			}}
		})
		h.cut0()
		sleep(time.Minute)
		before := h.count()
		src.set(func() (credential.Token, error) {
			return credential.Token{Text: "SharedAccessSignature new", Expires: time.Now().Add(time.Hour)}, nil
		})
		s.Renew()
		sleep(time.Minute)
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
		known.Store(true)
		sleep(tokenRetry + time.Second)
		if got := h.tokens(); got[len(got)-1] != "SharedAccessSignature new" || h.count() != before {
			t.Errorf("%q, %d connections more", got, h.count()-before)
		}
		for _, want := range []string{"cannot be renewed", "token is renewed"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("not once %q in\n%s", want, log)
			}
		}
	})
}

// TestRenewsUnchanged: a source that gives its token again is asked again, and the
// hub is not bothered.
func TestRenewsUnchanged(t *testing.T) {
	src := &source{}
	expires := time.Time{}
	src.token = func() (credential.Token, error) {
		if time.Until(expires) < 5*time.Minute { // as azidentity
			expires = time.Now().Add(time.Hour)
		}
		return credential.Token{Text: "Bearer " + expires.String(), Kind: credential.Bearer, Expires: expires}, nil
	}
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		synctest.Wait()
		sleep(24 * time.Hour)
		if got := len(h.tokens()); got < 24 || got > 27 || h.count() != 1 {
			t.Errorf("%d tokens on %d connections after a day", got, h.count())
		}
		if n := src.times(); n > 150 {
			t.Errorf("the source was asked %d times", n)
		}
	})
}

// TestRenewalFails: it is tried again every few seconds, said once, and the
// connection stays.
func TestRenewalFails(t *testing.T) {
	src := &source{}
	good := func() (credential.Token, error) {
		return credential.Token{Text: "Bearer " + time.Now().String(), Kind: credential.Bearer, Expires: time.Now().Add(time.Hour)}, nil
	}
	src.token = good
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		synctest.Wait()
		src.set(func() (credential.Token, error) { return credential.Token{}, errors.New("no route to login.example") })
		sleep(45 * time.Minute)
		if n := src.times(); n < 50 {
			t.Errorf("asked %d times", n)
		}
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
		src.set(good)
		sleep(time.Minute)
		if got := len(h.tokens()); got != 2 || h.count() != 1 {
			t.Errorf("%d tokens on %d connections", got, h.count())
		}
		for _, want := range []string{"cannot be renewed", "token is renewed"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("not once %q in\n%s", want, log)
			}
		}
	})
}

// TestRenewsWhenRefused: a message refused as unauthorized makes the token be
// shown again, though not for each of many.
func TestRenewsWhenRefused(t *testing.T) {
	var no atomic.Bool
	no.Store(true)
	bubble(t, nil, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		h.set(func() *peer {
			return &peer{transfer: func(p *peer, hub uint16, id uint32) {
				if no.Load() {
					p.settle(hub, id, rejected("amqp:unauthorized-access", ""))
				} else {
					p.settle(hub, id, unhex(stateAccepted))
				}
			}}
		})
		h.cut0()
		sleep(time.Minute)
		for range 10 {
			if err := signal(t, s); !errors.Is(err, signaler.ErrUnauthorized) {
				t.Errorf("got %v", err)
			}
		}
		sleep(time.Second)
		if got := len(h.tokens()); got != 2 {
			t.Errorf("%d tokens", got)
		}
		no.Store(false)
		if err := signal(t, s); err != nil {
			t.Error(err)
		}
	})
}

// TestTokenLinkLost: hubs may end the links to $cbs when they like. The next renewal
// has new ones, on the same connection.
func TestTokenLinkLost(t *testing.T) {
	src := &source{}
	src.token = func() (credential.Token, error) {
		return credential.Token{Text: "Bearer " + time.Now().String(), Kind: credential.Bearer, Expires: time.Now().Add(time.Hour)}, nil
	}
	bubble(t, func(c *Config) { c.Credential = src }, func(t *testing.T, s *Signaler, h *site, log *bytes.Buffer) {
		var lose atomic.Bool
		h.set(func() *peer {
			return &peer{stale: true, put: func(string) int32 {
				if lose.CompareAndSwap(true, false) {
					return 0
				}
				return 200
			}}
		})
		h.cut0()
		before := h.count()
		lose.Store(true)
		sleep(41 * time.Minute)
		if n := len(h.tokens()); n != 3 || h.count() != before {
			t.Errorf("%d tokens, %d connections more\n%s", n, h.count()-before, log)
		}
	})
}
