package relay_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// pinged makes a bridge as open does, whose requester says what is in pings.
func (c *city) pinged(owner, at int, query string) (requester, device *ws.Conn, pings <-chan string) {
	c.t.Helper()
	all := make(chan string, 100)
	n := c.nodes[owner]
	d := n.dialer()
	d.Config.OnPing = func(payload []byte) {
		if len(payload) > 0 {
			all <- string(payload)
		}
	}
	done := make(chan dialed, 1)
	go func() {
		conn, err := d.DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?"+query, nil)
		done <- dialed{conn, err}
	}()
	device, err := c.nodes[at].accept(<-n.signals)
	if err != nil {
		c.t.Fatalf("accept: %v", err)
	}
	got := <-done
	if got.err != nil {
		c.t.Fatalf("connect: %v", got.err)
	}
	return got.conn, device, all
}

func draining(d time.Duration) func(int, *relay.Config) {
	return func(_ int, c *relay.Config) { c.Drain = d }
}

// wantPings counts the node's words.
func wantPings(t *testing.T, pings <-chan string, want int) {
	t.Helper()
	synctest.Wait()
	got := 0
	for len(pings) > 0 {
		if s := <-pings; s != wire.PingDraining {
			t.Errorf("ping %q", s)
		}
		got++
	}
	if got != want {
		t.Errorf("%d pings say that the node drains, want %d", got, want)
	}
}

// Requesters are asked to move by the owner when it drains, and when the node through
// which their device came does; no other is.
func TestDrainAsksToMove(t *testing.T) {
	for name, drains := range map[string]int{"owner": 0, "forwarder": 1, "neither": 2} {
		t.Run(name, func(t *testing.T) {
			inCity(t, 3, draining(time.Hour), func(c *city) {
				requester, device, pings := c.pinged(0, 1, "deviceId=pump-7")
				other, otherDevice, otherPings := c.pinged(2, 2, "deviceId=pump-8")
				atRequester, atOther := reading(requester), reading(other)
				c.nodes[drains].stop()
				wantPings(t, pings, map[bool]int{true: 1}[drains < 2])
				wantPings(t, otherPings, map[bool]int{true: 1}[drains == 2])
				device.Close() // it moves
				otherDevice.Close()
				<-atRequester
				<-atOther
				if drains < 2 {
					began := time.Now()
					c.nodes[drains].stopped <- <-c.nodes[drains].stopped
					if took := time.Since(began); took > 10*second {
						t.Errorf("the drain ends %v after the last bridge", took)
					}
				}
				requester.Close()
				other.Close()
			})
		})
	}
}

// A bridge that opens during the drain, of its owner or on its way, is to move at once.
func TestDrainAsksLateOnes(t *testing.T) {
	for name, drains := range map[string]int{"owner": 0, "forwarder": 1} {
		t.Run(name, func(t *testing.T) {
			inCity(t, 2, draining(time.Hour), func(c *city) {
				keeps, keepsDevice := c.open(drains, drains, "deviceId=keeps-it-up")
				waits := make(chan string, 100)
				d := c.nodes[0].dialer()
				d.Config.OnPing = func(payload []byte) { waits <- string(payload) }
				done := make(chan dialed, 1)
				go func() {
					conn, err := d.DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?deviceId=d", nil)
					done <- dialed{conn, err}
				}()
				s := <-c.nodes[0].signals
				c.nodes[drains].stop()
				synctest.Wait()
				device, err := c.nodes[1].accept(s)
				if err != nil {
					t.Fatal(err)
				}
				requester := (<-done).conn
				atRequester := reading(requester)
				wantPings(t, waits, 1)
				device.Close()
				<-atRequester
				requester.Close()
				go keeps.Close()
				wantClose(t, keepsDevice, wire.CloseNormal, "")
			})
		})
	}
}

// At the deadline of the node that forwards, the owner closes the bridge for it.
func TestForwarderDrainEnds(t *testing.T) {
	inCity(t, 2, draining(10*time.Minute), func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7")
		kept, keptDevice := c.open(0, 0, "deviceId=pump-8")
		began := time.Now()
		c.nodes[1].stop()
		atDevice := reading(device)
		wantClose(t, requester, wire.CloseRestart, wire.Draining)
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("closed after %v", took)
		}
		if err := <-atDevice; !strings.Contains(err.Error(), string(wire.Draining)) {
			t.Errorf("the device heard %v", err)
		}
		device.Close()
		c.nodes[1].stopped <- <-c.nodes[1].stopped
		if took := time.Since(began); took > 10*time.Minute+cluster.Linger {
			t.Errorf("the node ended after %v", took)
		}
		echo(t, kept, keptDevice)
		go kept.Close()
		wantClose(t, keptDevice, wire.CloseNormal, "")
	})
}

func TestForwarderKilled(t *testing.T) {
	inCity(t, 2, draining(time.Hour), func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7")
		began := time.Now()
		c.nodes[1].stop()
		synctest.Wait()
		c.nodes[1].srv.Kill()
		atDevice := reading(device)
		wantClose(t, requester, wire.CloseRestart, wire.Draining)
		<-atDevice
		device.Close()
		if took := time.Since(began); took > second {
			t.Errorf("closed after %v", took)
		}
	})
}

// An owner that does not answer any more does not keep the node that forwards for it.
func TestForwarderDrainsWithoutOwner(t *testing.T) {
	inCity(t, 2, draining(time.Minute), func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7")
		atRequester, atDevice := reading(requester), reading(device)
		synctest.Wait()
		began := time.Now()
		c.places[0].set(dark)
		c.nodes[1].stop()
		c.nodes[1].stopped <- <-c.nodes[1].stopped
		if took, most := time.Since(began), time.Minute+2*cluster.DefaultDialTimeout+cluster.Linger; took > most {
			t.Errorf("ended after %v, want %v at most", took, most)
		}
		<-atRequester
		<-atDevice
		wantLog(t, c.nodes[1], "owner does not hear that this node drains")
		requester.Close()
		device.Close()
	})
}

// No ping where there is no time to heed it.
func TestNoDrainNoPing(t *testing.T) {
	inCity(t, 1, draining(-1), func(c *city) {
		requester, device, pings := c.pinged(0, 0, "deviceId=d")
		atDevice := reading(device)
		c.nodes[0].stop()
		wantClose(t, requester, wire.CloseRestart, wire.Draining)
		wantPings(t, pings, 0)
		<-atDevice
		device.Close()
	})
}

// A node with nothing to do stays for balancers that have not noticed yet, and says no.
func TestLameDuck(t *testing.T) {
	for _, drain := range []time.Duration{-1, time.Hour} {
		inBubble(t, func(c *relay.Config) { c.Drain, c.LameDuck = drain, 5*time.Second }, func(n *node) {
			began := time.Now()
			n.stop()
			time.Sleep(4 * time.Second)
			if got := ready(n); got != http.StatusServiceUnavailable {
				t.Errorf("readyz %d", got)
			}
			_, err := n.connect(context.Background(), "deviceId=d")
			wantStatus(t, err, http.StatusServiceUnavailable, wire.Draining)
			n.stopped <- <-n.stopped
			if took := time.Since(began); took < 5*time.Second || took > 7*time.Second {
				t.Errorf("ended after %v", took)
			}
		})
	}
	inBubble(t, func(c *relay.Config) { c.LameDuck = time.Hour }, func(n *node) {
		began := time.Now()
		n.stop()
		synctest.Wait()
		n.srv.Kill()
		n.stopped <- <-n.stopped
		if took := time.Since(began); took > 2*second {
			t.Errorf("killed, it ended after %v", took)
		}
	})
}

// What peers send is checked like anybody's words.
func TestNodePortNonsense(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		peers, err := cluster.ParsePeers([]string{"10.0.0.0/24"}, 7443)
		if err != nil {
			t.Fatal(err)
		}
		other, err := cluster.New(cluster.Config{Address: "10.0.0.9:7443", Peers: peers, Keys: c.ring, Dial: c.dial})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			method, path, body string
			status             int
		}{
			{"POST", "/leave", "not JSON", 400},
			{"POST", "/leave", `{"bridges":["x"]}`, 400},
			{"POST", "/leave", `{"bridges":["aaaqeayeaudaocajbifqydiob4"],"now":true}`, 204}, // gone, which is as good
			{"GET", "/leave", "", 405},
			{"DELETE", "/bridges/x", "", 404},
			{"GET", "/bridges", "", 200},
			{"GET", "/bridge/connect?deviceId=d", "", 404},
			{"GET", "/", "", 404},
		} {
			r, err := http.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			a, err := other.Ask(context.Background(), c.places[0].addr, r)
			if err != nil || a.Status != tt.status {
				t.Errorf("%s %s %.20s: %+v, %v; want %d", tt.method, tt.path, tt.body, a, err, tt.status)
			}
		}
	})
}
