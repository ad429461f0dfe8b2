package relay_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"websocketbridge/relay"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// ask is a request on a node's admin listener.
func (n *node) ask(method, path string) (int, string) {
	w := httptest.NewRecorder()
	n.srv.AdminHandler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

type listed struct {
	Bridges []struct {
		BridgeID, State, DeviceID, Principal, Target, Node, Via string
	}
	Missing    map[string]string
	Incomplete bool
}

func (n *node) list(path string) (l listed) {
	n.t.Helper()
	status, body := n.ask(http.MethodGet, path)
	if err := json.Unmarshal([]byte(body), &l); err != nil || status != http.StatusOK {
		n.t.Fatalf("%d %s: %v", status, body, err)
	}
	return l
}

func (l listed) devices() (out []string) {
	for _, b := range l.Bridges {
		out = append(out, b.DeviceID+" "+b.State+" "+b.Node+" "+b.Via)
	}
	slices.Sort(out)
	return out
}

// named makes the nodes of a city list each other by address, so that all can be asked.
func named(c *city, i int, cfg *relay.Config) {
	var addrs []string
	for _, p := range c.places {
		addrs = append(addrs, p.addr)
	}
	peers, err := cluster.ParsePeers(addrs, 1)
	if err == nil {
		cfg.Cluster, err = cluster.New(cluster.Config{Address: c.places[i].addr, Peers: peers, Keys: c.ring, Dial: c.dial})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func inNamedCity(t *testing.T, nodes int, f func(c *city)) {
	var town *city
	inCity(t, 0, nil, func(c *city) {
		town = c
		c.change = func(i int, cfg *relay.Config) { named(town, i, cfg) }
		for i := range nodes {
			c.add(i)
		}
		for i := range nodes {
			c.start(i)
		}
		f(c)
	})
}

func TestListAnywhere(t *testing.T) {
	inNamedCity(t, 3, func(c *city) {
		requester, device := c.open(0, 1, "deviceId=open&target=ssh")
		defer device.Close()
		defer requester.Close()
		ctx, leave := context.WithCancel(context.Background())
		defer leave()
		c.nodes[1].connecting(ctx, "deviceId=waits")
		<-c.nodes[1].signals
		synctest.Wait() // a requester has its 101 a moment before the bridge counts as open
		want := []string{"open open 10.0.0.1:7443 10.0.0.2:7443", "waits waiting 10.0.0.2:7443 "}
		for i, n := range c.nodes {
			l := n.list("/bridges")
			if got := l.devices(); !slices.Equal(got, want) || l.Incomplete || len(l.Missing) > 0 {
				t.Errorf("node %d: %+v", i, l)
			}
		}
		if got := c.nodes[2].list("/bridges?local").devices(); len(got) != 0 {
			t.Errorf("node 2 has %v", got)
		}
		l := c.nodes[0].list("/bridges?local")
		if got := l.devices(); !slices.Equal(got, want[:1]) {
			t.Errorf("node 0 has %v", got)
		}
		if b := l.Bridges[0]; b.Target != "ssh" || b.Principal != "anonymous" || b.BridgeID != requester.Header().Get(wire.HeaderBridgeID) {
			t.Errorf("got %+v", b)
		}
		c.places[1].set(down)
		l = c.nodes[2].list("/bridges")
		if got := l.devices(); !slices.Equal(got, want[:1]) || !strings.Contains(l.Missing["10.0.0.2:7443"], "refused") {
			t.Errorf("with a node down: %+v", l)
		}
	})
}

// With a range there may be nodes that nobody can name.
func TestListIncomplete(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		if l := c.nodes[0].list("/bridges"); !l.Incomplete {
			t.Errorf("got %+v", l)
		}
		status, body := c.nodes[0].ask(http.MethodDelete, "/bridges/"+token.NewID().String())
		if status != http.StatusNotFound || !strings.Contains(body, "ask its owner") {
			t.Errorf("%d %s", status, body)
		}
	})
}

func TestKillAnywhere(t *testing.T) {
	inNamedCity(t, 3, func(c *city) {
		for at := range 3 { // whichever node is asked
			requester, device := c.open(0, 1, "deviceId=open")
			id := requester.Header().Get(wire.HeaderBridgeID)
			atDevice := reading(device)
			if status, body := c.nodes[at].ask(http.MethodDelete, "/bridges/"+id); status != http.StatusNoContent {
				t.Fatalf("%d %s", status, body)
			}
			wantClose(t, requester, wire.ClosePolicy, wire.Killed)
			if err := <-atDevice; !strings.Contains(err.Error(), string(wire.Killed)) {
				t.Errorf("the device heard %v", err)
			}
			device.Close()
			synctest.Wait()
			if status, body := c.nodes[at].ask(http.MethodDelete, "/bridges/"+id); status != http.StatusNotFound || !strings.Contains(body, "no such bridge") {
				t.Errorf("again: %d %s", status, body)
			}

			waits := c.nodes[0].connecting(context.Background(), "deviceId=waits")
			s := <-c.nodes[0].signals
			if status, body := c.nodes[at].ask(http.MethodDelete, "/bridges/"+s.BridgeID); status != http.StatusNoContent {
				t.Fatalf("%d %s", status, body)
			}
			wantStatus(t, (<-waits).err, http.StatusForbidden, wire.Killed)
			_, err := c.nodes[1].accept(s)
			wantStatus(t, err, http.StatusGone, wire.BridgeGone)
		}
		wantLog(t, c.nodes[0], "reason=killed by=relay")
		wantLog(t, c.nodes[2], "bridge killed")
		c.places[1].set(down)
		status, body := c.nodes[2].ask(http.MethodDelete, "/bridges/"+token.NewID().String())
		if status != http.StatusNotFound || !strings.Contains(body, "10.0.0.2:7443") {
			t.Errorf("with a node down: %d %s", status, body)
		}
		for _, bad := range []string{"/bridges/x", "/bridges/" + strings.Repeat("a", 27)} {
			if status, _ := c.nodes[0].ask(http.MethodDelete, bad); status != http.StatusBadRequest {
				t.Errorf("%s: %d", bad, status)
			}
		}
	})
}
