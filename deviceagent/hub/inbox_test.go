package hub

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler"
)

// Traps 1 to 3: a handler that does not return stops neither pings nor
// acknowledgements nor the answers to others, and what is too much is refused at
// once.
func TestHandlerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		hold := make(chan struct{})
		var at, most atomic.Int64
		l.handle = func(signaler.Delivery) *signaler.Refusal {
			most.Store(max(most.Load(), at.Add(1)))
			defer at.Add(-1)
			<-hold
			return nil
		}
		l.run()
		c := l.welcome()
		c.call("first", "PAYLOAD")
		<-l.seen
		for i := range maxWaiting {
			c.publish("$iothub/methods/POST/Bridge/?$rid="+fmt.Sprint(i), 1, uint16(i+1), "PAYLOAD")
			if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != uint16(i+1) {
				t.Fatalf("not acknowledged: %v", a)
			}
		}
		c.call("more", "PAYLOAD")
		if got := c.answer(); !strings.HasPrefix(got, `503 more {"code":"busy"`) {
			t.Errorf("answered %s", got)
		}
		c.publish(ours, 1, 500, "PAYLOAD") // acknowledged, or the hub would send nothing else some day
		if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != 500 {
			t.Errorf("not acknowledged: %v", a)
		}
		c.publish("$iothub/methods/POST/reboot/?$rid=x", 0, 0, "")
		if got := c.answer(); !strings.HasPrefix(got, "501 x") {
			t.Errorf("answered %s", got)
		}
		time.Sleep(10 * DefaultKeepAlive)
		if c.pings.Load() < 9 || l.src.Stats().Losses > 0 {
			t.Errorf("%d pings, %d losses", c.pings.Load(), l.src.Stats().Losses)
		}
		close(hold)
		want := []string{"200 first {}"}
		for i := range maxWaiting {
			want = append(want, fmt.Sprintf("200 %d {}", i))
		}
		for _, w := range want { // in the order in which they came
			if got := c.answer(); got != w {
				t.Fatalf("answered %s, want %s", got, w)
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d handlers at once", most.Load())
		}
		if got := l.src.Stats(); got.Dropped != 2 || got.Signals != maxWaiting+1 {
			t.Errorf("counted %+v", got)
		}
		l.wantLog(1, "a signal is refused: too many wait")
		l.stop()
	})
}

// A hub that sends but reads nothing is dead after a while, however many answers
// wait for it.
func TestHubReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		c := l.accept()
		c.connack(0)
		c.subscribed(2, 0)
		c.deaf.Store(true)
		for i := range 2000 {
			c.call(fmt.Sprint(i), "PAYLOAD")
		}
		start := time.Now()
		next := l.welcome()
		if took := time.Since(start); took > writeTimeout+enqueueTimeout+goodbyeTimeout+time.Second {
			t.Errorf("back after %v", took)
		}
		next.call("1", "PAYLOAD")
		next.answer()
		l.stop()
	})
}

// When a connection is lost, the messages that wait are handled: the hub may keep
// them longer than they live. The methods are not: their callers have been told.
func TestLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		hold := make(chan struct{})
		l.handle = func(signaler.Delivery) *signaler.Refusal { <-hold; return nil }
		l.run()
		c := l.welcome()
		c.call("1", "PAYLOAD first")
		c.call("2", "PAYLOAD method")
		c.publish(ours, 1, 1, "PAYLOAD message")
		c.call("3", "PAYLOAD method")
		synctest.Wait()
		c.close()
		synctest.Wait()
		close(hold)
		c = l.welcome()
		close(l.seen)
		var got []string
		for d := range l.seen {
			got = append(got, string(d.Payload))
		}
		if fmt.Sprint(got) != "[PAYLOAD first PAYLOAD message]" {
			t.Errorf("handled %q", got)
		}
		synctest.Wait()
		if len(c.got) > 0 {
			t.Errorf("the next connection got %v", c.next())
		}
		l.stop()
	})
}
