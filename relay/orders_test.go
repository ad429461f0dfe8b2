package relay_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

func TestJoin(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, device := n.open("deviceId=pump-7&requestData=a%26b&target=ssh")
		echo(t, requester, device)
		echo(t, device, requester)
		if id := requester.Header().Get(wire.HeaderBridgeID); id == "" || id != device.Header().Get(wire.HeaderBridgeID) {
			t.Errorf("bridge IDs %q and %q", id, device.Header().Get(wire.HeaderBridgeID))
		}
		go device.CloseWith(4001, "bye")
		wantClose(t, requester, 4001, "")
	})
}

func TestSignalContents(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		done := n.connecting(context.Background(), "deviceId=pump-7&requestData=a%26b&target=ssh,web", "bridge.session.v1", "other")
		s := <-n.signals
		if s.DeviceID != "pump-7" || s.RequestData != "a&b" || s.Target != "ssh,web" || s.Principal != "anonymous" ||
			s.Version != 1 || strings.Join(s.Subprotocols, " ") != "bridge.session.v1 other" {
			t.Errorf("signal %+v", s)
		}
		if !strings.HasPrefix(s.AcceptURL, "ws://relay.test/front/bridge/accept?bridgeToken=") ||
			!strings.HasPrefix(s.RejectURL, "http://relay.test/front/bridge/reject?bridgeToken=") {
			t.Errorf("URLs %q %q", s.AcceptURL, s.RejectURL)
		}
		if life := time.Until(s.ExpiresAt); life != 20*second {
			t.Errorf("the token lives %v, want dial-back and 5 s", life)
		}
		n.reject(s, `{"code":"busy","message":"later"}`)
		<-done
	})
}

// With a key every signal is signed, and the largest ordinary one still fits.
func TestSignedSignal(t *testing.T) {
	key, next := signaler.NewSigningKey(), signaler.NewSigningKey()
	signer := signaler.NewSigner(key)
	inBubble(t, func(c *relay.Config) {
		c.Signer = signer
		c.PublicURL = "ws://" + strings.Repeat("relay.", 30) + "test/front"
	}, func(n *node) {
		for _, k := range []signaler.SigningKey{key, next} {
			signer.Replace(k)
			query := "deviceId=" + strings.Repeat("d", wire.MaxDeviceID) + "&target=" + strings.Repeat("t", wire.MaxTarget) + "&requestData=" + strings.Repeat("x", wire.MaxRequestData)
			done := n.connecting(context.Background(), query, "bridge.session.v1")
			s := <-n.signals
			if err := signaler.CheckSignature(s, []signaler.PublicKey{k.Public()}); err != nil {
				t.Error(err)
			}
			if b, err := s.Encode(); err != nil {
				t.Error(err)
			} else {
				t.Logf("%d bytes of %d", len(b), signaler.MaxSize)
			}
			n.reject(s, `{"code":"busy","message":"later"}`)
			<-done
		}
	})
}

// What the device picks is what the requester gets.
func TestSubprotocols(t *testing.T) {
	for _, tt := range []struct {
		name, offered, device, want string
	}{
		{"none", "", "", ""},
		{"same", "bridge.session.v1", "bridge.session.v1", "bridge.session.v1"},
		{"the device's best", "v2 v1", "v1 v2", "v1"},
		{"one of several", "v2 v1", "v0 v1", "v1"},
		{"the device wants raw", "v1", "", ""},
		{"nothing shared", "v1", "v9", ""},
		{"not offered", "", "v1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(n *node) {
				done := n.connecting(context.Background(), "deviceId=d", strings.Fields(tt.offered)...)
				device, err := n.accept(<-n.signals, strings.Fields(tt.device)...)
				got := <-done
				if err != nil || got.err != nil {
					t.Fatal(err, got.err)
				}
				if device.Subprotocol() != tt.want || got.conn.Subprotocol() != tt.want {
					t.Errorf("device %q, requester %q, want %q", device.Subprotocol(), got.conn.Subprotocol(), tt.want)
				}
				go device.Close()
				wantClose(t, got.conn, wire.CloseNormal, "")
			})
		})
	}
}

// The device dials while the signaler is still busy; its late failure is
// nobody's business any more.
func TestDeviceBeforeSignaler(t *testing.T) {
	for _, late := range []error{nil, signaler.ErrDeviceOffline, signaler.ErrTimedOut} {
		var n *node
		inBubble(t, func(c *relay.Config) {
			c.Signaler = signalFunc(func(ctx context.Context, s *signaler.Signal) error {
				n.signals <- s
				time.Sleep(second)
				if ctx.Err() != nil {
					t.Errorf("the join cut the signal short: %v", context.Cause(ctx))
				}
				<-ctx.Done() // a moment later
				return late
			})
		}, func(m *node) {
			n = m
			requester, device := n.open("deviceId=d")
			echo(t, requester, device)
			time.Sleep(2 * second)
			go requester.Close()
			wantClose(t, device, wire.CloseNormal, "")
		})
	}
}

// Nobody waits for the device any more: the hub is not asked any longer either.
func TestRequesterLeavesSignal(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	inBubble(t, func(c *relay.Config) {
		asked, left = make(chan struct{}), make(chan struct{}) // of this bubble
		c.Signaler = signalFunc(func(ctx context.Context, _ *signaler.Signal) error {
			close(asked)
			<-ctx.Done()
			close(left)
			return ctx.Err()
		})
	}, func(n *node) {
		ctx, cancel := context.WithCancel(context.Background())
		done := n.connecting(ctx, "deviceId=d")
		<-asked
		began := time.Now()
		cancel()
		<-left
		if took := time.Since(began); took > second {
			t.Errorf("the signal ended %v after the requester", took)
		}
		<-done
	})
}

func TestAcceptTwice(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		done := n.connecting(context.Background(), "deviceId=d")
		s := <-n.signals
		device, err := n.accept(s)
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		_, err = n.accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		echo(t, got.conn, device) // the first is not disturbed
		if status := n.reject(s, `{"code":"x","message":""}`); status != http.StatusGone {
			t.Errorf("reject after the join: %d", status)
		}
		echo(t, device, got.conn)
		go device.Close()
		wantClose(t, got.conn, wire.CloseNormal, "")
		_, err = n.accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
	})
}

func TestAcceptAfterRequesterLeft(t *testing.T) {
	for _, early := range []string{"", "&upgrade=early"} {
		inBubble(t, nil, func(n *node) {
			ctx, leave := context.WithCancel(context.Background())
			done := n.connecting(ctx, "deviceId=d"+early)
			s := <-n.signals
			if early != "" {
				got := <-done
				got.conn.CloseNow()
			}
			leave()
			if early == "" {
				<-done
			}
			synctest.Wait()
			_, err := n.accept(s)
			wantStatus(t, err, http.StatusGone, wire.BridgeGone)
			if !strings.Contains(n.log.String(), "reason=requester_out") {
				t.Errorf("log:\n%s", n.log)
			}
		})
	}
}

func TestDialBackTimeout(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		began := time.Now()
		done := n.connecting(context.Background(), "deviceId=d")
		s := <-n.signals
		p := wantStatus(t, (<-done).err, http.StatusGatewayTimeout, wire.DialBackTimeout)
		if took := time.Since(began); took != 15*second {
			t.Errorf("took %v", took)
		}
		if p.BridgeID != s.BridgeID {
			t.Errorf("problem %+v, bridge %s", p, s.BridgeID)
		}
		_, err := n.accept(s) // late, but not yet expired
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		time.Sleep(6 * second) // the bubble's clock: past the token's life
		_, err = n.accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
	})
}

// A hub that says "timed out" may have delivered the signal.
func TestSignalerTimesOutDeviceComes(t *testing.T) {
	var n *node
	inBubble(t, func(c *relay.Config) {
		c.Signaler = signalFunc(func(_ context.Context, s *signaler.Signal) error {
			n.signals <- s
			return signaler.ErrTimedOut
		})
	}, func(m *node) {
		n = m
		done := n.connecting(context.Background(), "deviceId=d")
		s := <-n.signals
		time.Sleep(10 * second) // the bubble's clock
		device, err := n.accept(s)
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		go device.Close()
		wantClose(t, got.conn, wire.CloseNormal, "")
	})
}

func TestReject(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		done := n.connecting(context.Background(), "deviceId=d")
		s := <-n.signals
		for _, body := range []string{``, `{}`, `[]`, `{"code":7}`, `{"code":"x","message":"` + strings.Repeat("a", wire.MaxReject) + `"}`} {
			if status := n.reject(s, body); status != http.StatusBadRequest {
				t.Errorf("body of %d bytes: %d", len(body), status)
			}
		}
		if status := n.reject(s, `{"code":"busy","message":"two\nlines \u001b[31m"}`); status != http.StatusNoContent {
			t.Errorf("reject: %d", status)
		}
		p := wantStatus(t, (<-done).err, http.StatusConflict, wire.DeviceRefused)
		if p.DeviceCode != "busy" || !strings.Contains(p.Detail, `device "d" refused: busy: two lines  [31m`) {
			t.Errorf("problem %+v", p)
		}
		_, err := n.accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
	})
}

// Whoever comes first wins, and everybody hears what happened.
func TestEverythingAtOnce(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		for range 300 {
			ctx, leave := context.WithCancel(context.Background())
			done := n.connecting(ctx, "deviceId=d")
			s := <-n.signals
			var wg sync.WaitGroup
			var joined, rejected int
			var mu sync.Mutex
			for range 2 {
				wg.Go(func() {
					c, err := n.accept(s)
					if err != nil {
						wantGone(t, err)
						return
					}
					mu.Lock()
					joined++
					mu.Unlock()
					c.CloseNow()
				})
			}
			wg.Go(func() {
				if n.reject(s, `{"code":"busy","message":""}`) == http.StatusNoContent {
					mu.Lock()
					rejected++
					mu.Unlock()
				}
			})
			wg.Go(leave)
			got := <-done
			wg.Wait()
			if got.conn != nil {
				got.conn.CloseNow()
			}
			if joined+rejected > 1 {
				t.Fatalf("%d joined and %d rejected", joined, rejected)
			}
		}
	})
}

func wantGone(t *testing.T, err error) {
	t.Helper()
	if h := (*ws.HandshakeError)(nil); !errors.As(err, &h) || h.Status != http.StatusGone {
		t.Errorf("got %v, want 410", err)
	}
}

func TestForgedTokens(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		other, err := token.NewRing(token.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		claims := token.Claims{BridgeID: token.NewID(), Instance: token.NewID(), DeviceID: "d", Expires: time.Now().Add(time.Hour)}
		foreignKey, _ := other.Seal(claims)
		gone, _ := n.ring.Seal(claims) // our address, another instance: we, before a restart
		claims.Owner = "10.9.9.9:1"
		foreignNode, _ := n.ring.Seal(claims)
		for _, tt := range []struct {
			name, token string
			status      int
			code        wire.Code
		}{
			{"none", "", http.StatusBadRequest, wire.BadToken},
			{"rubbish", "not a token", http.StatusBadRequest, wire.BadToken},
			{"another key", foreignKey, http.StatusForbidden, wire.TokenProof},
			{"a node that is no peer", foreignNode, http.StatusForbidden, wire.TokenProof},
			{"before a restart", gone, http.StatusGone, wire.BridgeGone},
		} {
			_, err := n.accept(&signaler.Signal{AcceptURL: "ws://relay.test/bridge/accept?bridgeToken=" + strings.ReplaceAll(tt.token, " ", "+")})
			t.Log(tt.name)
			wantStatus(t, err, tt.status, tt.code)
		}
	})
}
