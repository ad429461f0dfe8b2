package relay_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/wire"
)

// Connections that no limit counts end by themselves.
func TestNobodyStaysUncounted(t *testing.T) {
	for name, tt := range map[string]struct {
		send string // again and again, if it is a whole request
		most time.Duration
	}{
		"requests whose answers are never read": {"GET /x HTTP/1.1\r\nHost: relay.test\r\n\r\n", 3 * time.Minute},
		"a body that never comes":               {"POST /x HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 1000\r\n\r\n", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(n *node) {
				raw, err := n.ln.Dial(context.Background(), "tcp", "")
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				began := time.Now()
				if tt.most < time.Minute {
					io.WriteString(raw, tt.send)
					io.Copy(io.Discard, raw)
				} else {
					for err == nil {
						_, err = io.WriteString(raw, tt.send)
					}
				}
				if took := time.Since(began); took > tt.most {
					t.Errorf("it was there for %v", took)
				}
			})
		})
	}
}

// An early 101 costs an address a connect, and when it has none left it gets a status:
// a close frame could be kept waiting for its answer.
func TestEarlyOverLimit(t *testing.T) {
	inBubble(t, unknown(func(c *relay.Config) { c.ConnectsPerAddress = 2 }), func(n *node) {
		const path, here = "connect?deviceId=d&upgrade=early", "203.0.113.5:1"
		for range 2 {
			n.handshake(path, here, "ops") // without a network there is nothing to upgrade
		}
		if status, p, _ := n.handshake(path, here, "ops"); status != http.StatusTooManyRequests || p.Code != wire.LimitReached {
			t.Errorf("got %d %+v", status, p)
		}
		if status, _, _ := n.handshake(path, "203.0.113.6:1", "ops"); status == http.StatusTooManyRequests {
			t.Error("another address is limited, too")
		}
	})
}

// A node that has ended takes no forward, or it would wait for its end.
func TestNoForwardAfterStop(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		if err := c.nodes[0].srv.AddForwardAfterStop(); err == nil {
			t.Error("a forward was taken")
		}
	})
}

// A bridge that can move only once does not begin where it would have to.
func TestOnceWhereANodeDrains(t *testing.T) {
	inCity(t, 2, withKey(t), func(c *city) {
		keeps, keepsDevice := c.nodes[0].signOnce("deviceId=pump-7&target=ssh"), c.nodes[0].signOnce("deviceId=pump-8&target=ssh")
		first := c.nodes[1].connectURL(keeps, "")
		device, err := c.nodes[1].accept(<-c.nodes[0].signals)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-first).conn
		atRequester, atDevice := reading(requester), reading(device)
		c.nodes[1].stop()
		synctest.Wait()
		d := <-c.nodes[1].connectURL(keepsDevice, "")
		wantStatus(t, d.err, http.StatusServiceUnavailable, wire.Draining)
		second := c.nodes[0].connectURL(keepsDevice, "") // another node takes it
		other, err := c.nodes[0].accept(<-c.nodes[0].signals)
		if err != nil {
			t.Fatal(err)
		}
		got := <-second
		if got.err != nil {
			t.Fatal(got.err)
		}
		got.conn.Close()
		other.Close()
		requester.Close()
		device.Close()
		<-atRequester
		<-atDevice
	})
}

// A device that brings rubbish does not shut out the requesters behind its address.
func TestBadTokensAreTheDevicesOwn(t *testing.T) {
	inBubble(t, unknown(func(c *relay.Config) { c.FailuresPerAddress = 2 }), func(n *node) {
		const here = "203.0.113.5:1"
		for range 5 {
			n.handshake("accept?bridgeToken=rubbish", here, "")
		}
		if status, p, _ := n.handshake("connect?deviceId=d", here, "ops"); status != http.StatusNotFound {
			t.Errorf("got %d %+v", status, p)
		}
	})
}
