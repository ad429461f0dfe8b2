package relay_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

const handshakeHead = " HTTP/1.1\r\nHost: relay.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// speak writes to the node as nobody should, and returns all that it answers.
func (n *node) speak(text string) string {
	n.t.Helper()
	c, err := n.ln.Dial(context.Background(), "", "")
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, text)
	b, _ := io.ReadAll(c)
	return string(b)
}

// A body that never comes holds nothing for long.
func TestBodyThatNeverComes(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		for _, request := range []string{
			"POST /bridge/connect", "POST /bridge/reject?bridgeToken=x", "GET /nothing", "GET /bridge/connect?deviceId=d",
		} {
			began := time.Now()
			answer := n.speak(request + " HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 100\r\n\r\n")
			if took := time.Since(began); took > 15*second || !strings.HasPrefix(answer, "HTTP/1.1 4") {
				t.Errorf("%s: after %v: %q", request, took, answer)
			}
		}
	})
}

// A head that never ends is cut off, and so is a connection that says nothing.
func TestSlowHead(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		for _, text := range []string{"", "GET /bridge/connect HTTP/1.1\r\nHost: rel"} {
			began := time.Now()
			n.speak(text)
			if took := time.Since(began); took > 11*second {
				t.Errorf("%q: after %v", text, took)
			}
		}
	})
}

// Strangers who keep knocking do not keep the node from stopping.
func TestStopUnderKnocking(t *testing.T) {
	inBubble(t, func(c *relay.Config) {
		c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return nil, auth.ErrNoCredentials })
	}, func(n *node) {
		ctx, cancel := context.WithCancel(context.Background())
		knocking := make(chan struct{})
		go func() {
			defer close(knocking)
			for ctx.Err() == nil {
				if c, err := n.ln.Dial(ctx, "", ""); err == nil {
					go io.WriteString(c, "GET /bridge/connect?deviceId=d&upgrade=early"+handshakeHead+"\r\n")
					go func() {
						io.Copy(io.Discard, c) // never answers the close frame
						c.Close()
					}()
				}
				time.Sleep(2 * second) // the bubble's clock
			}
		}()
		time.Sleep(10 * second)
		n.stop()
		began := time.Now()
		n.stopped <- <-n.stopped
		if took := time.Since(began); took > 15*second {
			t.Errorf("stopping took %v", took)
		}
		cancel()
		<-knocking
	})
}

func TestSubprotocolsOnTwoLines(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		answer := make(chan string)
		go func() {
			c, _ := n.ln.Dial(context.Background(), "", "")
			go fmt.Fprintf(c, "GET /bridge/connect?deviceId=d%sSec-WebSocket-Protocol: first\r\nSec-WebSocket-Protocol: second\r\n\r\n", handshakeHead)
			b := make([]byte, 4096)
			m, _ := c.Read(b)
			answer <- string(b[:m])
			c.Close()
		}()
		device, err := n.accept(<-n.signals, "second")
		if err != nil {
			t.Fatal(err)
		}
		if got := <-answer; device.Subprotocol() != "second" || !strings.Contains(got, "Sec-WebSocket-Protocol: second\r\n") {
			t.Errorf("device %q, requester %q", device.Subprotocol(), got)
		}
		device.CloseNow()
	})
}

// A proxy that changes Host does not lock the public URL's own page out.
func TestOriginBehindProxy(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.PublicURL = "wss://relay.example.com" }, func(n *node) {
		answer := n.speak("GET /bridge/connect?upgrade=early" + handshakeHead + "Origin: https://relay.example.com\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 101") {
			t.Errorf("got %q", answer)
		}
	})
}

// Who leaves, or speaks out of turn, is never told 200.
func TestNoAnswerIsNotTaken(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		c, err := n.ln.Dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(c, "GET /bridge/connect?deviceId=d"+handshakeHead+"\r\n")
		s := <-n.signals
		go c.Write([]byte{0x81, 0x80, 0, 0, 0, 0}) // a message before the 101
		synctest.Wait()
		device, err := n.accept(s)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); strings.HasPrefix(string(b), "HTTP/1.1 2") {
			t.Errorf("got %q", b)
		}
		wantClose(t, device, wire.CloseGoingAway, wire.PeerLost)
		synctest.Wait()
		if !strings.Contains(n.log.String(), "client sent data before handshake is complete") {
			t.Errorf("the log does not say why:\n%s", n.log)
		}
	})
}

// A panic in a part of the host's is logged, answered and costs no room.
func TestPanic(t *testing.T) {
	for name, change := range map[string]func(*relay.Config){
		"the host's authenticator": func(c *relay.Config) {
			c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { panic("the host's authenticator") })
		},
		"the host's signaler": func(c *relay.Config) {
			c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { panic("the host's signaler") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(c *relay.Config) { change(c); c.MaxWaiting = 1 }, func(n *node) {
				for range 2 {
					_, err := n.connect(context.Background(), "deviceId=d")
					wantStatus(t, err, http.StatusInternalServerError, wire.Internal)
				}
				if log := n.log.String(); !strings.Contains(log, name) || !strings.Contains(log, "guard_test.go") {
					t.Errorf("log:\n%s", log)
				}
			})
		})
	}
}

// Each of several targets has to be allowed.
func TestEveryTargetIsAuthorized(t *testing.T) {
	glob := func(s string) auth.Glob {
		g, err := auth.ParseGlob(s)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	inBubble(t, func(c *relay.Config) {
		p := &auth.Principal{Name: "ops", Grants: []auth.Grant{{Devices: []auth.Glob{glob("*")}, Targets: []auth.Glob{glob("ssh")}}}}
		c.Auth = authFunc(func(*http.Request) (*auth.Principal, error) { return p, nil })
	}, func(n *node) {
		for _, target := range []string{"&target=web", "&target=ssh,web", "&target=web,ssh", ""} {
			_, err := n.connect(context.Background(), "deviceId=d"+target)
			wantStatus(t, err, http.StatusForbidden, wire.Forbidden)
		}
	})
}

// A token for one device's bridge does not open it for another device.
func TestTokenOfAnotherDevice(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		done := n.connecting(context.Background(), "deviceId=d")
		s := <-n.signals
		_, text, _ := strings.Cut(s.AcceptURL, "bridgeToken=")
		claims, err := n.ring.Open(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		claims.DeviceID = "other"
		forged, err := n.ring.Seal(claims)
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.accept(&signaler.Signal{AcceptURL: strings.Replace(s.AcceptURL, text, forged, 1)})
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		n.reject(s, `{"code":"x","message":""}`)
		<-done
	})
}

// However a bridge ends, its room is given back, once.
func TestRoomIsGivenBack(t *testing.T) {
	for _, early := range []string{"", "&upgrade=early"} {
		inBubble(t, func(c *relay.Config) { c.MaxWaiting, c.MaxBridges = 1, 1 }, func(n *node) {
			for i := range 12 {
				ctx, leave := context.WithCancel(context.Background())
				done := n.connecting(ctx, "deviceId=d"+early)
				s := <-n.signals
				switch i % 4 {
				case 0: // never comes
					got := <-done
					if early != "" {
						wantClose(t, got.conn, wire.DialBackTimeout.Row().Close, wire.DialBackTimeout)
					}
				case 1: // refuses
					n.reject(s, `{"code":"x","message":""}`)
					if got := <-done; early != "" {
						wantClose(t, got.conn, wire.DeviceRefused.Row().Close, wire.DeviceRefused)
					}
				case 2: // the requester leaves
					if early != "" {
						(<-done).conn.CloseNow()
					} else {
						leave()
						<-done
					}
				case 3: // joins
					device, err := n.accept(s)
					got := <-done
					if err != nil || got.err != nil {
						t.Fatal(i, err, got.err)
					}
					go device.Close()
					wantClose(t, got.conn, wire.CloseNormal, "")
				}
				leave()
				synctest.Wait()
			}
		})
	}
}

// Either 101 can fail to be written; the other side hears of it.
func TestAnswerCannotBeWritten(t *testing.T) {
	t.Run("the device's", func(t *testing.T) {
		inBubble(t, nil, func(n *node) {
			done := n.connecting(context.Background(), "deviceId=d")
			s := <-n.signals
			n.ln.BreakNext()
			if _, err := n.accept(s); err == nil {
				t.Fatal("the device got its answer")
			}
			p := wantStatus(t, (<-done).err, http.StatusGatewayTimeout, wire.DialBackTimeout)
			if !strings.Contains(p.Detail, "broke as it was answered") {
				t.Errorf("detail %q", p.Detail)
			}
		})
	})
	t.Run("the requester's", func(t *testing.T) {
		inBubble(t, nil, func(n *node) {
			n.ln.BreakNext()
			done := n.connecting(context.Background(), "deviceId=d")
			device, err := n.accept(<-n.signals)
			if err != nil {
				t.Fatal(err)
			}
			wantClose(t, device, wire.CloseGoingAway, wire.PeerLost)
			if got := <-done; got.err == nil {
				t.Error("the requester got an answer")
			}
		})
	})
}

func TestValidateMore(t *testing.T) {
	good := relay.Config{PublicURL: "ws://x/{a", Signaler: signalFunc(nil), Keys: mustRing(t), Auth: authFunc(nil)}
	srv, err := relay.New(good)
	if err != nil {
		t.Fatal(err)
	}
	srv.Handler() // a path like this once upset the mux
	for want, change := range map[string]func(*relay.Config){
		"without a Ping": func(c *relay.Config) { c.Ping = -1 },
		"TrustedProxies": func(c *relay.Config) { c.TrustedProxies = make([]netip.Prefix, 1) },
	} {
		c := good
		change(&c)
		if _, err := relay.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
