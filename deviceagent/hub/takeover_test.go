package hub

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

func TestRivalry(t *testing.T) {
	lost := errors.New("lost")
	evicted := ending{stage: listening, err: lost, byPeer: true, lived: time.Second}
	late := ending{stage: listening, err: lost, byPeer: true, lived: rivalLife}
	network := ending{stage: listening, err: lost, lived: time.Second}
	renewed := ending{stage: listening}
	for _, tt := range []struct {
		name string
		ends []ending
		gap  time.Duration
		over bool
	}{
		{"three evictions", []ending{evicted, evicted, evicted}, time.Second, true},
		{"two", []ending{evicted, evicted}, time.Second, false},
		{"three that are far between", []ending{evicted, evicted, evicted, evicted}, rivalWindow / 2, false},
		{"three just within the window", []ending{evicted, evicted, evicted}, rivalWindow/2 - time.Second, true},
		{"connections that lived", []ending{late, late, late, late}, time.Minute, false},
		{"one that lived for long, then a rival", []ending{late, evicted, evicted, evicted}, time.Second, true},
		{"a network that fails", []ending{network, network, network, network}, time.Second, false},
		{"a network that fails in between", []ending{evicted, evicted, network, evicted, evicted}, time.Second, false},
		{"a hub that was down in between", []ending{evicted, evicted, {stage: dialling, err: lost}, evicted, evicted}, time.Second, false},
		{"a hub that refuses in between", []ending{evicted, evicted, {stage: connecting, err: lost, refused: true}, evicted}, time.Second, false},
		{"closed at the subscription", []ending{{stage: subscribing, err: lost}, {stage: subscribing, err: lost}, {stage: subscribing, err: lost}}, time.Second, false},
		{"renewals", []ending{renewed, renewed, renewed, renewed}, time.Second, false},
		{"a renewal in between", []ending{evicted, renewed, evicted, evicted}, time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r rivalry
			now, over := time.Now(), false
			for _, e := range tt.ends {
				now = now.Add(tt.gap)
				over = over || r.see(e, now)
			}
			if over != tt.over {
				t.Errorf("taken over: %t, want %t", over, tt.over)
			}
		})
	}
}

func TestClosedByPeer(t *testing.T) {
	for _, tt := range []struct {
		name      string
		err       error
		webSocket bool
		want      bool
	}{
		{"none", nil, false, false},
		{"FIN", io.EOF, false, true},
		{"FIN within a TLS record", io.ErrUnexpectedEOF, false, false},
		{"FIN within a packet", errCut, false, false},
		{"RST", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, false, false},
		{"ours", net.ErrClosed, false, false},
		{"not MQTT", errPacket, false, false},
		{"FIN without a close frame", io.ErrUnexpectedEOF, true, true},
		{"close frame 1000", io.EOF, true, true},
		{"close frame 1008", &ws.CloseError{Code: 1008}, true, true},
		{"close frame 1001", &ws.CloseError{Code: 1001}, true, false},
		{"close frame 1012", &ws.CloseError{Code: 1012}, true, false},
		{"cut by WebSocket", errCut, true, false},
	} {
		if got := closedByPeer(tt.err, tt.webSocket); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// Another client with the same identity, which is back a while after each eviction,
// is not fought for ever.
func TestTakenOver(t *testing.T) {
	for _, back := range []time.Duration{0, time.Second, 10 * time.Second, 29 * time.Second} {
		t.Run(back.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil).run()
				c := l.welcome()
				time.Sleep(30 * time.Minute) // all was well before the rival came
				c.close()
				for range rivalEnds {
					c = l.welcome()
					time.Sleep(back)
					synctest.Wait()
					c.close()
				}
				<-l.ended
				if !errors.Is(l.err, signaler.ErrTakenOver) {
					t.Errorf("got %v", l.err)
				}
				for _, want := range []string{"hub: pump-7: another connection took over this device's identity", "3 connections within 5m0s", "module identity of its own", "lend", "hand the signals over"} {
					if l.err == nil || !strings.Contains(l.err.Error(), want) {
						t.Errorf("%q is not in %v", want, l.err)
					}
				}
				l.tidy()
			})
		})
	}
}

// What else ends a connection is no rival, and the source goes on.
func TestNotTakenOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends func(l *lab, c *conn)
	}{
		{"resets", func(l *lab, c *conn) { l.reset.Store(true); c.close(); synctest.Wait(); l.reset.Store(false) }},
		{"cut in the middle of a packet", func(l *lab, c *conn) { c.sendBytes(0x30, 100, 0, 3, 'a'); c.close() }},
		{"cut in the middle of a header", func(l *lab, c *conn) { c.sendBytes(0x30, 0x80); c.close() }},
		{"pings not answered", func(l *lab, c *conn) { c.silent.Store(true); c.lost() }},
		{"after a while", func(l *lab, c *conn) { time.Sleep(rivalLife); c.close() }},
		{"a hub that restarts", func(l *lab, c *conn) {
			c.close()
			c = l.accept() // still starting
			c.close()
		}},
		{"throttled by CONNACK", func(l *lab, c *conn) {
			c.close()
			c = l.accept()
			c.connack(3)
			c.close()
		}},
		{"not MQTT", func(l *lab, c *conn) { c.sendBytes(0x30, 0xff, 0xff, 0xff, 0x7f); c.lost() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil).run()
				for range 6 {
					tt.ends(l, l.welcome())
				}
				c := l.welcome()
				c.call("1", "PAYLOAD")
				c.answer()
				l.stop()
			})
		})
	}
}

// A proxy that cuts connections which are idle for 20 s looks like a rival, once:
// after that the connection is not idle any more.
func TestIdleProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		c := l.welcome()
		time.Sleep(20 * time.Second)
		c.close()
		c = l.welcome()
		for range 100 {
			before := c.pings.Load()
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if c.pings.Load() == before {
				t.Fatal("it was idle for 20 s")
			}
		}
		// The next connection, long after, is as quiet as can be.
		c.close()
		c = l.welcome()
		time.Sleep(50 * time.Second)
		if n := c.pings.Load(); n > 0 {
			t.Errorf("%d pings", n)
		}
		l.stop()
	})
}
