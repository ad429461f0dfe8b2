package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
)

// A city is several nodes in one bubble, with a network between them.
type city struct {
	t      *testing.T
	ring   *token.Ring
	change func(i int, c *relay.Config)
	nodes  []*node
	places []*place

	// A peer that is in no list, and counts who dials it.
	honeypot atomic.Int32
}

// A place is an address with whatever listens there now.
type place struct {
	addr  string
	dials atomic.Int32
	mu    sync.Mutex // guards the three below
	port  *netfault.Listener
	last  net.Conn // the dialler's end of the newest connection
	state placeState
}

type placeState int

const (
	up   placeState = iota
	dark            // it swallows whatever comes
	down            // nobody listens
)

const honeypot = "10.9.9.9:7443"

func inCity(t *testing.T, nodes int, change func(i int, c *relay.Config), f func(c *city)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &city{t: t, ring: mustRing(t), change: change}
		for i := range nodes {
			c.add(i)
		}
		for i := range nodes {
			c.start(i)
		}
		defer func() {
			for _, n := range c.nodes {
				n.end()
			}
		}()
		f(c)
	})
}

// add makes room for a node.
func (c *city) add(i int) {
	c.places = append(c.places, &place{addr: fmt.Sprintf("10.0.0.%d:7443", i+1)})
	c.nodes = append(c.nodes, nil)
}

// start starts node i at its place, in which another may have been before.
func (c *city) start(i int) {
	c.t.Helper()
	p := c.places[i]
	peers, err := cluster.ParsePeers([]string{"10.0.0.0/24"}, 7443)
	if err != nil {
		c.t.Fatal(err)
	}
	p.mu.Lock()
	p.port = netfault.NewListener()
	p.mu.Unlock()
	c.nodes[i] = startNode(c.t, c.ring, p.port, func(cfg *relay.Config) {
		cfg.Cluster, err = cluster.New(cluster.Config{Address: p.addr, Peers: peers, Keys: c.ring, Dial: c.dial, Logger: cfg.Logger})
		if err != nil {
			c.t.Fatal(err)
		}
		if c.change != nil {
			c.change(i, cfg)
		}
	})
}

// dial is the network between the nodes.
func (c *city) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr == honeypot {
		c.honeypot.Add(1)
	}
	for _, p := range c.places {
		if p.addr != addr {
			continue
		}
		p.dials.Add(1)
		p.mu.Lock()
		port, state := p.port, p.state
		p.mu.Unlock()
		switch state {
		case dark:
			<-ctx.Done()
			return nil, ctx.Err()
		case down:
			return nil, errors.New("connection refused")
		}
		conn, err := port.Dial(ctx, network, addr)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = conn
		return conn, err
	}
	return nil, errors.New("no route to host")
}

func (p *place) set(s placeState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
}

// open makes a bridge whose requester is at one node and whose device comes to another.
func (c *city) open(owner, at int, query string, subprotocols ...string) (requester, device *ws.Conn) {
	c.t.Helper()
	done := c.nodes[owner].connecting(context.Background(), query, subprotocols...)
	device, err := c.nodes[at].accept(<-c.nodes[owner].signals, subprotocols...)
	if err != nil {
		c.t.Fatalf("accept: %v", err)
	}
	got := <-done
	if got.err != nil {
		c.t.Fatalf("connect: %v", got.err)
	}
	return got.conn, device
}

func (c *city) dials() (n int32) {
	for _, p := range c.places {
		n += p.dials.Load()
	}
	return n
}

func wantLog(t *testing.T, n *node, lines ...string) {
	t.Helper()
	log := n.log.String()
	for _, want := range lines {
		if !strings.Contains(log, want) {
			t.Errorf("%s is missing:\n%s", want, log)
		}
	}
}

func TestForward(t *testing.T) {
	inCity(t, 3, nil, func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7", "b", "a")
		if requester.Subprotocol() != "b" || device.Subprotocol() != "b" {
			t.Errorf("subprotocols %q and %q", requester.Subprotocol(), device.Subprotocol())
		}
		id := requester.Header().Get(wire.HeaderBridgeID)
		if device.Header().Get(wire.HeaderBridgeID) != id || id == "" {
			t.Errorf("bridge IDs %q and %q", id, device.Header().Get(wire.HeaderBridgeID))
		}
		echo(t, requester, device)
		echo(t, device, requester)
		go device.CloseWith(4000, "enough")
		wantClose(t, requester, 4000, "")
		synctest.Wait()
		wantLog(t, c.nodes[0], "bridge open", "via=10.0.0.2:7443", "reason=done by=device close=4000", "to_device_bytes=5 to_requester_bytes=5")
		wantLog(t, c.nodes[1], "forward open", "bridge="+id, "device=pump-7 owner=10.0.0.1:7443", "forward closed")
		if log := c.nodes[2].log.String(); log != "" {
			t.Errorf("a third node has part in it:\n%s", log)
		}
		if n := c.dials(); n != 1 {
			t.Errorf("%d dials between nodes", n)
		}
	})
}

// An accept at its owner goes nowhere.
func TestNoForwardAtOwner(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		requester, device := c.open(1, 1, "deviceId=pump-7")
		echo(t, requester, device)
		requester.Close()
		device.Close()
		if n := c.dials(); n != 0 {
			t.Errorf("%d dials between nodes", n)
		}
	})
}

func TestRejectElsewhere(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		for _, step := range []struct {
			body   string
			status int
		}{
			{"not JSON", 400},
			{`{"code":"` + strings.Repeat("x", wire.MaxReject) + `"}`, 400},
			{`{"code":"busy","message":"not now"}`, 204},
			{`{"code":"busy","message":"not now"}`, 410},
		} {
			if got := c.nodes[1].reject(s, step.body); got != step.status {
				t.Errorf("%.20s: %d, want %d", step.body, got, step.status)
			}
		}
		p := wantStatus(t, (<-done).err, http.StatusConflict, wire.DeviceRefused)
		if p.DeviceCode != "busy" || !strings.Contains(p.Detail, "not now") {
			t.Errorf("got %+v", p)
		}
	})
}

// The owner counts and logs who the device is, not the node or the proxy in between; and
// what a stranger says of itself is not passed on as true.
func TestForwardSaysWho(t *testing.T) {
	inCity(t, 3, func(_ int, c *relay.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, func(c *city) {
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		if status := c.nodes[1].reject(s, `{"code":"busy"}`); status != http.StatusNoContent {
			t.Fatalf("reject: %d", status)
		}
		<-done
		q := s.RejectURL[strings.Index(s.RejectURL, "?"):]
		for peer, want := range map[string]string{"192.0.2.1:4711": "from=203.0.113.9 ", "198.51.100.7:4711": "from=198.51.100.7 "} {
			c.nodes[2].end()
			c.start(2) // which has not seen this token yet
			r := httptest.NewRequest(http.MethodPost, "/front"+wire.PathReject+q, strings.NewReader(`{"code":"busy"}`))
			r.RemoteAddr = peer
			r.Header.Set("X-Forwarded-For", "203.0.113.9")
			r.Header.Set("Bridge-From", "203.0.113.66") // is for nodes to say
			w := httptest.NewRecorder()
			c.nodes[2].srv.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusGone {
				t.Errorf("%s: %d", peer, w.Code)
			}
			wantLog(t, c.nodes[0], want)
		}
		if log := c.nodes[0].log.String(); strings.Contains(log, "203.0.113.66") {
			t.Errorf("a stranger's word is believed:\n%s", log)
		}
	})
}

// A token opens one bridge, wherever it is brought, and where it is known to be used
// up it is not even asked about.
func TestReplayElsewhere(t *testing.T) {
	inCity(t, 3, nil, func(c *city) {
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		device, err := c.nodes[1].accept(s)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-done).conn
		for i, want := range []int32{1, 1, 2, 2} { // node 2 has to ask once
			_, err := c.nodes[1+i/2].accept(s)
			wantStatus(t, err, http.StatusGone, wire.BridgeGone)
			if n := c.dials(); n != want {
				t.Errorf("replay %d: %d dials, want %d", i, n, want)
			}
		}
		_, err = c.nodes[0].accept(s)
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		echo(t, requester, device) // undisturbed
		requester.Close()
		device.Close()
	})
}

func TestOwnerLost(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		// Nobody listens: it died.
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		c.places[0].set(down)
		_, err := c.nodes[1].accept(s)
		p := wantStatus(t, err, http.StatusBadGateway, wire.OwnerLost)
		if strings.Contains(p.Detail, "10.0.0.1") || p.BridgeID != s.BridgeID {
			t.Errorf("got %+v", p)
		}
		wantLog(t, c.nodes[1], "forward failed", "reason=owner_lost", "owner=10.0.0.1:7443", "connection refused")

		// It is cut off: nothing comes back.
		c.places[0].set(dark)
		began := time.Now()
		_, err = c.nodes[1].accept(s)
		wantStatus(t, err, http.StatusBadGateway, wire.OwnerLost)
		if took := time.Since(began); took != cluster.DefaultDialTimeout {
			t.Errorf("took %v", took)
		}
		wantStatus(t, (<-done).err, http.StatusGatewayTimeout, wire.DialBackTimeout)
	})
}

// A device that was told 502 may try again: the token is not used up.
func TestOwnerBack(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		c.places[0].set(dark)
		_, err := c.nodes[1].accept(s)
		wantStatus(t, err, http.StatusBadGateway, wire.OwnerLost)
		c.places[0].set(up)
		device, err := c.nodes[1].accept(s)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-done).conn
		echo(t, requester, device)
		requester.Close()
		device.Close()
	})
}

// A node that took a dead one's address knows nothing of its bridges, and says so.
func TestOwnerRestarted(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[0].signals
		c.nodes[0].srv.Kill()
		c.nodes[0].end()
		wantStatus(t, (<-done).err, http.StatusServiceUnavailable, wire.Draining)
		c.start(0)
		requester, device := c.open(0, 1, "deviceId=pump-7") // the new one has bridges of its own to this device
		for i := range 2 {
			_, err := c.nodes[i].accept(s)
			wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		}
		echo(t, requester, device)
		requester.Close()
		device.Close()
	})
}

// Whatever a token says, nothing is dialled but a listed peer, and that only for a
// token that opens, is alive, and was not used here.
func TestNoDialForBadTokens(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		claims := token.Claims{Owner: c.places[0].addr, Instance: token.NewID(), BridgeID: token.NewID(), DeviceID: "d", Expires: time.Now().Add(time.Minute)}
		seal := func(r *token.Ring, change func(*token.Claims)) string {
			cl := claims
			change(&cl)
			tok, err := r.Seal(cl)
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
		nothing := func(*token.Claims) {}
		good := seal(c.ring, nothing)
		bad := map[string]string{
			"forged":              seal(mustRing(t), nothing),
			"forged for honeypot": seal(mustRing(t), func(c *token.Claims) { c.Owner = honeypot }),
			"foreign peer":        seal(c.ring, func(c *token.Claims) { c.Owner = honeypot }),
			"other port":          seal(c.ring, func(c *token.Claims) { c.Owner = "10.0.0.1:22" }),
			"a name":              seal(c.ring, func(c *token.Claims) { c.Owner = "metadata.internal:7443" }),
			"no owner":            seal(c.ring, func(c *token.Claims) { c.Owner = "" }),
			"nonsense owner":      seal(c.ring, func(c *token.Claims) { c.Owner = "\x00://[" }),
			"expired":             seal(c.ring, func(c *token.Claims) { c.Expires = time.Now().Add(-time.Second) }),
			"own address":         seal(c.ring, func(cl *token.Claims) { cl.Owner = c.places[1].addr }),
			"empty":               "",
		}
		for i := range good {
			flipped := []byte(good)
			flipped[i] = "AB"[map[bool]int{true: 1}[flipped[i] == 'A']]
			bad[fmt.Sprintf("character %d changed", i)] = string(flipped)
			bad[fmt.Sprintf("cut to %d", i)] = good[:i]
		}
		for name, tok := range bad {
			s := &signaler.Signal{AcceptURL: "ws://relay.test/front/bridge/accept?bridgeToken=" + tok}
			_, err := c.nodes[1].accept(s)
			var h *ws.HandshakeError
			if !errors.As(err, &h) || h.Status != 400 && h.Status != 403 && h.Status != 410 {
				t.Errorf("%s: %v", name, err)
			}
			reject := &signaler.Signal{RejectURL: "http://relay.test/front/bridge/reject?bridgeToken=" + tok}
			if status := c.nodes[1].reject(reject, `{"code":"c"}`); status != 400 && status != 403 && status != 410 {
				t.Errorf("reject, %s: %d", name, status)
			}
		}
		if n := c.dials() + c.honeypot.Load(); n != 0 {
			t.Errorf("%d dials", n)
		}
		// The network works: a good one is asked about.
		_, err := c.nodes[1].accept(&signaler.Signal{AcceptURL: "ws://relay.test/front/bridge/accept?bridgeToken=" + good})
		wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		if n := c.dials(); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// What comes over the node port goes no further, whatever its token says.
func TestOneHop(t *testing.T) {
	inCity(t, 3, nil, func(c *city) {
		c.nodes[2].connecting(context.Background(), "deviceId=pump-7")
		s := <-c.nodes[2].signals
		peers, err := cluster.ParsePeers([]string{"10.0.0.0/24"}, 7443)
		if err != nil {
			t.Fatal(err)
		}
		other, err := cluster.New(cluster.Config{Address: "10.0.0.9:7443", Peers: peers, Keys: c.ring, Dial: c.dial})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(http.MethodGet, strings.TrimPrefix(s.AcceptURL, "ws://relay.test/front"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-Websocket-Version: 13", "Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="} {
			k, v, _ := strings.Cut(name, ": ")
			r.Header.Set(k, v)
		}
		a, err := other.Ask(context.Background(), c.places[0].addr, r)
		if err != nil || a.Status != http.StatusGone {
			t.Errorf("got %+v, %v", a, err)
		}
		if n := c.places[2].dials.Load(); n != 0 {
			t.Errorf("the owner was dialled %d times", n)
		}
	})
}

// The network between the nodes goes silent under an open bridge: both ends hear of
// it within the dead-peer timer.
func TestPartitionWhileOpen(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7")
		c.places[0].last.(*netfault.Conn).Mute() // what the forwarding node says is lost
		began := time.Now()
		atDevice := reading(device)
		_, err := io.Copy(io.Discard, requester)
		if err == nil || !strings.Contains(err.Error(), string(wire.PeerDead)) {
			t.Errorf("the requester heard %v", err)
		}
		if took := time.Since(began); took > ws.DefaultDead+second {
			t.Errorf("noticed after %v", took)
		}
		<-atDevice
		requester.Close()
		device.CloseNow()
	})
}

func TestForwardLimit(t *testing.T) {
	inCity(t, 2, func(i int, c *relay.Config) {
		if i == 1 {
			c.MaxBridges = 1
		}
	}, func(c *city) {
		requester, device := c.open(0, 1, "deviceId=first")
		done := c.nodes[0].connecting(context.Background(), "deviceId=second")
		s := <-c.nodes[0].signals
		_, err := c.nodes[1].accept(s)
		wantStatus(t, err, http.StatusTooManyRequests, wire.LimitReached)
		go requester.Close()
		wantClose(t, device, wire.CloseNormal, "")
		synctest.Wait()
		device, err = c.nodes[1].accept(s) // there is room again, and the token still good
		if err != nil {
			t.Fatal(err)
		}
		requester = (<-done).conn
		echo(t, requester, device)
		requester.Close()
		device.Close()
	})
}
