package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// scatter makes whoever dials the relay reach any of its nodes.
func (w *world) scatter(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, w.nodes[rand.IntN(len(w.nodes))].addr)
}

// namers are devices that say the ID of the bridge that they were signalled for.
func (w *world) namers(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.run(func(ctx context.Context) error {
			var dials sync.WaitGroup
			defer dials.Wait()
			return w.hub.Source(id).Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
				s, err := signaler.Parse(d.Payload)
				if err != nil {
					w.t.Error(err)
					return nil
				}
				dials.Go(func() { w.sayName(ctx, s) })
				return nil
			})
		})
		if err := w.hub.WaitOnline(w.ctx(), id); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) sayName(ctx context.Context, s *signaler.Signal) {
	d := ws.Dialer{Dial: w.scatter}
	c, err := d.DialWebSocket(ctx, s.AcceptURL, nil)
	if err != nil {
		w.t.Errorf("bridge %s: %v", s.BridgeID, err)
		return
	}
	if _, err := fmt.Fprintln(c, s.DeviceID, s.BridgeID); err != nil {
		w.t.Errorf("bridge %s: %v", s.BridgeID, err)
	}
	c.Close()
}

// A thousand bridges over three nodes, each side at a node of its own: all join, each
// requester with its own device, and two of three cross from one node to another.
func TestThousandBridges(t *testing.T) {
	const bridges, atOnce = 1000, 32
	for _, nodeTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", nodeTLS), func(t *testing.T) {
			w := newWorld(t, options{nodes: 3, nodeTLS: nodeTLS, noAgent: true})
			devices := []string{"a", "b", "c", "d", "e", "f", "g"}
			w.namers(devices...)
			w.client.Dialer.Dial = w.scatter
			var wg sync.WaitGroup
			var i atomic.Int32
			for range atOnce {
				wg.Go(func() {
					for n := i.Add(1); n <= bridges; n = i.Add(1) {
						dev := devices[int(n)%len(devices)]
						c, err := client.DialRaw(w.ctx(), w.client, client.Request{Device: dev})
						if err != nil {
							t.Errorf("bridge %d: %v", n, err)
							return
						}
						line, err := bufio.NewReader(c).ReadString('\n')
						if want := dev + " " + c.Header().Get(wire.HeaderBridgeID) + "\n"; line != want {
							t.Errorf("joined with %q, want %q, %v", line, want, err)
						}
						c.Close()
					}
				})
			}
			wg.Wait()
			// Of 1000 draws of 2 in 3 the standard deviation is 15.
			if n := w.forwards.Load(); n < bridges*2/3-90 || n > bridges*2/3+90 {
				t.Errorf("%d of %d bridges were forwarded", n, bridges)
			}
			until(t, "all forwards have ended", func() bool { return !strings.Contains(stacks(), "cluster.(*forward)") })
		})
	}
}

// Keys rotate on one node after the other while bridges are made. Not one is lost, and
// one that is open does not notice.
func TestRotationOverNodes(t *testing.T) {
	w := newWorld(t, options{nodes: 3})
	w.client.Dialer.Dial = w.scatter
	st, err := w.dial("echo").Open(w.ctx(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var made atomic.Int32
	var makers sync.WaitGroup
	defer makers.Wait()
	defer stop()
	for range 8 {
		makers.Go(func() {
			for ctx.Err() == nil {
				s, err := client.Dial(w.ctx(), w.client, client.Request{Device: device, Targets: []string{"echo"}})
				if err != nil {
					t.Errorf("after %d bridges: %v", made.Load(), err)
					return
				}
				made.Add(1)
				s.Close()
			}
		})
	}
	more := func() { // each maker has a bridge from before behind it
		n := made.Load()
		until(t, "more bridges", func() bool { return t.Failed() || made.Load() >= n+16 })
	}
	next := token.NewKey()
	for _, keys := range [][]token.Key{{w.key, next}, {next, w.key}, {next}} {
		for _, m := range w.nodes {
			if err := m.ring.Replace(keys...); err != nil {
				t.Fatal(err)
			}
			more()
		}
	}
	more()
	exchange(t, st, "undisturbed")
}

// A listener in no list of peers, and tokens of all kinds that name it: nobody comes.
func TestHoneypot(t *testing.T) {
	w := newWorld(t, options{nodes: 2, noAgent: true})
	pot := w.listen("127.0.0.1:0")
	var visits atomic.Int32
	w.run(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { pot.Close() })()
		for {
			c, err := pot.Accept()
			if err != nil {
				return nil
			}
			visits.Add(1)
			c.Close()
		}
	})
	foreign, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	claims := token.Claims{Owner: pot.Addr().String(), Instance: token.NewID(), BridgeID: token.NewID(), DeviceID: device, Expires: time.Now().Add(time.Minute)}
	host, port, _ := net.SplitHostPort(claims.Owner)
	var tokens []string
	for _, owner := range []string{claims.Owner, "localhost:" + port, "[::ffff:" + host + "]:" + port, w.nodes[0].nodeAddr + "@" + claims.Owner, "0x7f000001:" + port} {
		for _, ring := range []*token.Ring{w.nodes[0].ring, foreign} {
			for _, expires := range []time.Time{claims.Expires, time.Now().Add(-time.Minute)} {
				c := claims
				c.Owner, c.Expires = owner, expires
				tok, err := ring.Seal(c)
				if err != nil {
					t.Fatal(err)
				}
				tokens = append(tokens, tok, tok[:len(tok)-1], tok[:len(tok)/2], tok+tok)
				for range 20 {
					b := []byte(tok)
					b[rand.IntN(len(b))] ^= 1 << rand.IntN(6)
					tokens = append(tokens, string(b))
				}
			}
		}
	}
	var d ws.Dialer
	for _, tok := range tokens {
		q := "?" + wire.ParamBridgeToken + "=" + url.QueryEscape(tok)
		for _, m := range w.nodes {
			_, err := d.DialWebSocket(w.ctx(), "ws://"+m.addr+wire.PathAccept+q, nil)
			var h *ws.HandshakeError
			if !errors.As(err, &h) || h.Status/100 != 4 {
				t.Fatalf("accept: %v", err)
			}
			resp, err := http.Post("http://"+m.addr+wire.PathReject+q, "application/json", strings.NewReader(`{"code":"c"}`))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode/100 != 4 {
				t.Errorf("reject: %s", resp.Status)
			}
		}
	}
	if n := w.forwards.Load(); n != 0 {
		t.Errorf("%d dials between nodes", n)
	}
	c, err := net.Dial("tcp", claims.Owner) // it counts
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	until(t, "a visit", func() bool { return visits.Load() > 0 })
	if n := visits.Load(); n != 1 {
		t.Errorf("%d visits", n-1)
	}
}
