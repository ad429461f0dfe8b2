package relay_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// signOnce gets a URL that works once from a node.
func (n *node) signOnce(query string) *url.URL {
	n.t.Helper()
	resp, text := n.askURL(http.MethodGet, query+"&once=true&expirationUtc="+in1h, "good")
	u, err := url.Parse(text)
	if resp.StatusCode != http.StatusOK || err != nil || u.Query().Get(wire.ParamOnce) == "" {
		n.t.Fatalf("%s %q, %v", resp.Status, text, err)
	}
	return u
}

// connectURL dials a signed URL in the background.
func (n *node) connectURL(u *url.URL, more string) <-chan dialed {
	done := make(chan dialed, 1)
	go func() {
		c, err := n.dialer().DialWebSocket(context.Background(), u.String()+more, nil)
		done <- dialed{c, err}
	}()
	return done
}

func withKey(t *testing.T) func(int, *relay.Config) {
	return func(_ int, c *relay.Config) {
		c.Auth, c.FailuresPerAddress, c.Drain = byKey(t, nil), -1, time.Hour
	}
}

// Whichever nodes are asked, the URL works once.
func TestOnce(t *testing.T) {
	inCity(t, 3, withKey(t), func(c *city) {
		for at := range 3 {
			u := c.nodes[0].signOnce("deviceId=pump-7&target=ssh")
			done := c.nodes[at].connectURL(u, "")
			device, err := c.nodes[2].accept(<-c.nodes[0].signals) // the one that made it owns it
			if err != nil {
				t.Fatal(err)
			}
			got := <-done
			if got.err != nil {
				t.Fatalf("at node %d: %v", at, got.err)
			}
			echo(t, got.conn, device)
			for again := range 3 {
				d := <-c.nodes[again].connectURL(u, "")
				p := wantStatus(t, d.err, http.StatusBadRequest, wire.BadSignature)
				if !strings.Contains(p.Detail, "works once") {
					t.Errorf("detail %q", p.Detail)
				}
			}
			go got.conn.Close()
			wantClose(t, device, wire.CloseNormal, "")
			d := <-c.nodes[0].connectURL(u, "")
			wantStatus(t, d.err, http.StatusBadRequest, wire.BadSignature) // also when the bridge has ended
		}
		wantLog(t, c.nodes[0], "principal=signed:ops")
	})
}

// What did not work has not worked once.
func TestOnceGivenBack(t *testing.T) {
	inCity(t, 2, withKey(t), func(c *city) {
		u := c.nodes[0].signOnce("deviceId=pump-7&target=ssh")
		for range 2 {
			done := c.nodes[1].connectURL(u, "")
			s := <-c.nodes[0].signals
			if status := c.nodes[1].reject(s, `{"code":"busy"}`); status != http.StatusNoContent {
				t.Fatalf("reject: %d", status)
			}
			wantStatus(t, (<-done).err, http.StatusConflict, wire.DeviceRefused)
		}
		done := c.nodes[1].connectURL(u, "&upgrade=early")
		s := <-c.nodes[0].signals
		second := <-c.nodes[0].connectURL(u, "") // while the first one waits
		wantStatus(t, second.err, http.StatusBadRequest, wire.BadSignature)
		device, err := c.nodes[0].accept(s)
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		echo(t, got.conn, device)
		got.conn.Close()
		device.Close()
	})
}

// The node that made the URL decides, and nobody else when it cannot.
func TestOnceWithoutItsNode(t *testing.T) {
	inCity(t, 2, withKey(t), func(c *city) {
		u := c.nodes[0].signOnce("deviceId=pump-7&target=ssh")
		c.places[0].set(down)
		d := <-c.nodes[1].connectURL(u, "")
		wantStatus(t, d.err, http.StatusBadGateway, wire.OwnerLost)
		c.places[0].set(up)
		c.nodes[0].srv.Kill()
		c.nodes[0].end()
		c.start(0)
		for i := range 2 {
			d := <-c.nodes[i].connectURL(u, "")
			p := wantStatus(t, d.err, http.StatusBadRequest, wire.BadSignature)
			if !strings.Contains(p.Detail, "is gone") {
				t.Errorf("node %d: detail %q", i, p.Detail)
			}
		}
	})
}

// wantBad checks that a handshake was refused for what is wrong with the URL.
func wantBad(t *testing.T, name string, err error) {
	t.Helper()
	var h *ws.HandshakeError
	if !errors.As(err, &h) || h.Status != http.StatusBadRequest {
		t.Errorf("%s: %v", name, err)
	}
}

// A ticket belongs to its URL.
func TestOnceChanged(t *testing.T) {
	inCity(t, 2, withKey(t), func(c *city) {
		u := c.nodes[0].signOnce("deviceId=pump-7&target=ssh")
		other := c.nodes[0].signOnce("deviceId=pump-8&target=ssh")
		sealed, err := c.ring.Seal(token.Claims{Owner: honeypot, Instance: token.NewID(), BridgeID: token.NewID(), DeviceID: "pump-7", Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string][]string{
			"none": nil, "another URL's": {other.Query().Get(wire.ParamOnce)}, "twice": {u.Query().Get(wire.ParamOnce), u.Query().Get(wire.ParamOnce)},
			"of a node unknown": {sealed}, "empty": {""}, "true": {"true"},
		} {
			q := u.Query()
			q[wire.ParamOnce] = value
			bad := *u
			bad.RawQuery = q.Encode()
			for i := range 2 {
				d := <-c.nodes[i].connectURL(&bad, "")
				wantBad(t, name, d.err)
			}
		}
		if n := c.dials() + c.honeypot.Load(); n != 0 {
			t.Errorf("%d dials", n)
		}
		resp, text := c.nodes[0].askURL(http.MethodGet, "deviceId=pump-7&target=ssh&once=maybe&expirationUtc="+in1h, "good")
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "once can only be true or false") {
			t.Errorf("%s %s", resp.Status, text)
		}
	})
}

// A requester that comes through a node which drains is asked to move.
func TestOnceDrains(t *testing.T) {
	inCity(t, 2, withKey(t), func(c *city) {
		u := c.nodes[0].signOnce("deviceId=pump-7&target=ssh")
		pings := make(chan string, 10)
		d := c.nodes[1].dialer()
		d.Config.OnPing = func(payload []byte) {
			if len(payload) > 0 {
				pings <- string(payload)
			}
		}
		done := make(chan dialed, 1)
		go func() {
			conn, err := d.DialWebSocket(context.Background(), u.String(), nil)
			done <- dialed{conn, err}
		}()
		device, err := c.nodes[0].accept(<-c.nodes[0].signals)
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		atRequester := reading(got.conn)
		synctest.Wait()
		c.nodes[1].stop()
		wantPings(t, pings, 1)
		device.Close()
		<-atRequester
		got.conn.Close()
	})
}
