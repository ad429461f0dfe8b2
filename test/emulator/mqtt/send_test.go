package mqtt

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		c := r.h.conn
		if id, err := c.Send(Message{Topic: "zero", Payload: []byte("x")}); id != 0 || err != nil {
			t.Fatal(id, err)
		}
		first, err := c.Send(Message{Topic: "one", QoS: 1})
		if err != nil {
			t.Fatal(err)
		}
		second, _ := c.Send(Message{Topic: "two", QoS: 1, Retain: true})
		if p := r.publish(); p.TopicName != "zero" || p.Qos != 0 || string(p.Payload) != "x" {
			t.Errorf("got %v", p)
		}
		if p := r.publish(); p.TopicName != "one" || p.Qos != 1 || p.MessageID != first || p.Dup {
			t.Errorf("got %v", p)
		}
		if p := r.publish(); p.TopicName != "two" || p.MessageID != second || !p.Retain {
			t.Errorf("got %v", p)
		}
		if first == second || first == 0 {
			t.Errorf("packet ids %d and %d", first, second)
		}

		if err := c.Resend(first); err != nil {
			t.Fatal(err)
		}
		if p := r.publish(); p.TopicName != "one" || !p.Dup || p.MessageID != first {
			t.Errorf("got %v", p)
		}
		puback := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		for _, id := range []uint16{first, first, 999, second} { // doubles and strangers are passed over
			puback.MessageID = id
			r.send(puback)
		}
		r.ping()
		if a, b := <-r.h.acks, <-r.h.acks; a != first || b != second || len(r.h.acks) > 0 {
			t.Errorf("acks %d and %d, and %d more", a, b, len(r.h.acks))
		}
		if err := c.Resend(first); err == nil {
			t.Error("Resend of an acknowledged message")
		}
		for _, m := range []Message{{}, {Topic: "a/#"}, {Topic: strings.Repeat("x", 65536)}, {Topic: "a", QoS: 2}, {Topic: "\xff"}} {
			if _, err := c.Send(m); err == nil {
				t.Errorf("Send took topic %.10q at QoS %d", m.Topic, m.QoS)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Window: 2}, newRecorder()).open()
		c := r.h.conn
		c.lastID = 65534
		for _, want := range []uint16{65535, 1} { // 0 is no packet id
			if id, err := c.Send(Message{Topic: "t", QoS: 1}); id != want || err != nil {
				t.Fatalf("got id %d and %v, want %d", id, err, want)
			}
			r.publish()
		}
		if _, err := c.Send(Message{Topic: "t", QoS: 1}); !errors.Is(err, ErrWindow) {
			t.Errorf("got %v, want a full window", err)
		}
		if _, err := c.Send(Message{Topic: "t"}); err != nil {
			t.Errorf("QoS 0 has no window: %v", err)
		}
		r.publish()
		r.write(0x40, 2, 0xff, 0xff)
		<-r.h.acks
		c.lastID = 65534
		c.flights[65535] = nil
		c.cfg.Window = 3
		if id, err := c.Send(Message{Topic: "t", QoS: 1}); id != 2 || err != nil {
			t.Errorf("got id %d and %v; 65535 and 1 are taken", id, err)
		}
		r.publish()
	})
}

// One client does not read: its Sends fail, its writes time out, and nobody waits.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Backlog: 1000}, newRecorder()).open()
		began := time.Now()
		var err error
		for n := 0; err == nil && n < 100; n++ {
			_, err = r.h.conn.Send(Message{Topic: "t", Payload: make([]byte, 100)})
		}
		if !errors.Is(err, ErrBacklog) || time.Since(began) != 0 {
			t.Errorf("Send: %v after %v", err, time.Since(began))
		}
		r.write(0xc0, 0) // whose answer has to wait, and the reading with it
		time.Sleep(29 * time.Second)
		synctest.Wait()
		select {
		case e := <-r.h.ends:
			t.Fatalf("ended early: %v", e.Cause)
		default:
		}
		time.Sleep(time.Second)
		e := <-r.h.ends
		var timeout net.Error
		if !errors.As(e.Cause, &timeout) || !timeout.Timeout() || !strings.Contains(e.Cause.Error(), "write") {
			t.Errorf("ended by %v, want the write's deadline", e.Cause)
		}
	})
}

// What many goroutines send arrives whole, and each one's in order.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		const senders, each = 8, 200
		for s := range senders {
			go func() {
				for n := range each {
					if _, err := r.h.conn.Send(Message{Topic: fmt.Sprint(s), Payload: fmt.Append(nil, n)}); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		next := make(map[string]int)
		for range senders * each {
			p := r.publish()
			if want := fmt.Sprint(next[p.TopicName]); string(p.Payload) != want {
				t.Fatalf("sender %s: got %s, want %s", p.TopicName, p.Payload, want)
			}
			next[p.TopicName]++
		}
	})
}

func TestSendHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		r.h.conn.Send(Message{Topic: "whole"})
		m := Message{Topic: "topic", Payload: []byte("0123456789"), QoS: 1}
		if err := r.h.conn.SendHalf(m); err != nil {
			t.Fatal(err)
		}
		r.publish()
		b, _ := io.ReadAll(r.c)
		if want := encodePublish(m, 1); string(b) != string(want[:len(want)/2]) {
			t.Errorf("got %x", b)
		}
		r.end(ErrCut)
	})
}

// A half-open connection: nothing passes, either way, and only the client's
// silence shows it.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		began := time.Now()
		r.h.conn.Freeze()
		if _, err := r.h.conn.Send(Message{Topic: "t", QoS: 1}); err != nil {
			t.Errorf("Send: %v, but the server cannot know", err)
		}
		r.write(0xc0, 0)
		r.send(publishPacket(1, 1, "t", ""))
		e := <-r.h.ends
		if !errors.Is(e.Cause, ErrSilent) || time.Since(began) != 90*time.Second {
			t.Errorf("ended by %v after %v", e.Cause, time.Since(began))
		}
		r.write(0xc0, 0) // still open
		r.c.SetReadDeadline(time.Now().Add(time.Hour))
		if n, err := r.c.Read(make([]byte, 1)); n > 0 || err == io.EOF {
			t.Errorf("read %d bytes and %v from a frozen connection", n, err)
		}
		if len(r.result) > 0 {
			t.Error("Serve returned while the client holds the socket")
		}
		r.c.Close()
		if err := <-r.result; !errors.Is(err, ErrSilent) {
			t.Errorf("Serve returned %v", err)
		}
		if len(r.h.msgs) > 0 {
			t.Error("a message came through")
		}
	})
	synctest.Test(t, func(t *testing.T) { // closed by the server, as at a takeover
		r := start(t, Config{}, newRecorder()).open()
		r.h.conn.Freeze()
		r.h.conn.Close(ErrClosed)
		<-r.h.ends
		r.write(0xc0, 0)
		if len(r.result) > 0 {
			t.Error("Serve returned while the client holds the socket")
		}
		r.stop()
		r.eof()
		<-r.result
	})
}
