package hub

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler"
	"websocketbridge/signaler/sas"
)

// A token is renewed by a planned reconnect well ahead of its expiry, again and
// again, and the log says nothing.
func TestRenew(t *testing.T) {
	for _, life := range []time.Duration{time.Second, 5 * time.Minute, 0} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(c *Config) { c.TokenLife = life }).run()
				if life == 0 {
					life = DefaultTokenLife
				}
				for range 20 {
					start := time.Now()
					c := l.welcome()
					token, err := sas.ParseToken(string(c.connect.Password))
					if err != nil || token.Expiry.Sub(start) < life || token.Expiry.Sub(start) > life+time.Second {
						t.Errorf("%v, %v", token, err)
					}
					c.unsubscribed(2)
					if !c.lost() {
						t.Error("it left without DISCONNECT")
					}
					// Tokens count in whole seconds, which is much of a life of one.
					if took := time.Since(start); took < life*5/10 || took > (life+time.Second)*2/3 {
						t.Errorf("reconnected after %v", took)
					}
				}
				l.welcome()
				synctest.Wait()
				if got := l.src.Stats(); got.Renewals != 20 || got.Losses != 0 || got.Connects != 21 {
					t.Errorf("counted %+v", got)
				}
				l.wantLog(1, "level=INFO")
				l.wantLog(0, "level=WARN")
				l.stop()
			})
		})
	}
}

// What the hub has sent before it took the subscriptions back is handled and
// answered on the old connection.
func TestRenewFinishesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		hold := make(chan struct{})
		l.handle = func(d signaler.Delivery) *signaler.Refusal {
			if string(d.Payload) == "PAYLOAD slow" {
				<-hold
			}
			return nil
		}
		l.run()
		c := l.welcome()
		first := c.next().(*packets.UnsubscribePacket)
		c.call("1", "PAYLOAD slow")
		c.publish(ours, 1, 7, "PAYLOAD message")
		c.unsuback(first)
		c.unsubscribed(1)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(c.got) > 0 {
			t.Errorf("it did not wait: %v", c.next())
		}
		close(hold)
		if got := c.answer(); got != "200 1 {}" {
			t.Errorf("answered %s", got)
		}
		if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != 7 {
			t.Errorf("not acknowledged: %v", a)
		}
		if !c.lost() {
			t.Error("it left without DISCONNECT")
		}
		l.welcome()
		l.stop()
	})
}

// A token does not wait for a hub that does not answer, nor for a handler that
// does not return. But a connection that is lost meanwhile is lost.
func TestRenewIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		during func(*lab, *conn)
		losses uint64
	}{
		{"no UNSUBACK", func(l *lab, c *conn) { c.lost() }, 0},
		{"a handler that hangs", func(l *lab, c *conn) { l.hangs(c); c.lost() }, 0},
		{"lost before UNSUBACK", func(l *lab, c *conn) { c.next(); c.close() }, 1},
		{"lost while a handler hangs", func(l *lab, c *conn) {
			l.hangs(c)
			synctest.Wait()
			c.close()
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil)
				l.handle = func(d signaler.Delivery) *signaler.Refusal {
					if string(d.Payload) == "PAYLOAD hang" {
						time.Sleep(time.Minute)
					}
					return nil
				}
				l.run()
				start := time.Now()
				c := l.welcome()
				tt.during(l, c)
				if took := time.Since(start); took > 45*time.Minute {
					t.Errorf("reconnected after %v", took)
				}
				c = l.welcome()
				c.call("2", "PAYLOAD")
				c.answer()
				if got := l.src.Stats().Losses; got != tt.losses {
					t.Errorf("%d losses, want %d", got, tt.losses)
				}
				l.stop()
			})
		})
	}
}

// hangs makes the handler hang while the connection is renewed.
func (l *lab) hangs(c *conn) {
	l.t.Helper()
	first, ok := c.next().(*packets.UnsubscribePacket)
	if !ok {
		l.t.Fatal("no UNSUBSCRIBE came")
	}
	c.call("1", "PAYLOAD hang")
	c.unsuback(first)
	c.unsubscribed(1)
}
