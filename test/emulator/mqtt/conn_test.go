package mqtt

import (
	"bytes"
	"context"
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

func TestConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		h.answer = func(Connect) (Code, bool) { return Accepted, true }
		r := start(t, Config{}, h)
		p := connectPacket("pump-7")
		p.CleanSession = false
		p.UsernameFlag, p.Username, p.PasswordFlag, p.Password = true, "hub/pump-7", true, []byte("secret\x00")
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, "last", []byte("words"), 1, true
		if ack := r.connect(p); ack.ReturnCode != 0 || !ack.SessionPresent {
			t.Fatalf("CONNACK %+v", ack)
		}
		got := h.seen
		if got.ClientID != "pump-7" || got.Username != "hub/pump-7" || got.Password != "secret\x00" || got.Clean || got.KeepAlive != time.Minute {
			t.Errorf("got %+v", got)
		}
		if w := got.Will; w == nil || w.Topic != "last" || string(w.Payload) != "words" || w.QoS != 1 || !w.Retain {
			t.Errorf("will %+v", w)
		}
		for _, s := range []string{fmt.Sprint(got), fmt.Sprintf("%+v %#v %q", got, got, got), got.LogValue().String()} {
			if strings.Contains(s, "secret") {
				t.Errorf("prints the password: %s", s)
			}
		}
		r.c.Close()
		if e := r.end(io.EOF); e.Graceful || e.Will == nil {
			t.Errorf("end %+v, want the will", e)
		}
	})
}

func TestDisconnectTakesTheWillAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder())
		p := connectPacket("pump-7")
		p.WillFlag, p.WillTopic = true, "last"
		r.connect(p)
		r.write(0xe0, 0)
		r.eof()
		if e := r.end(nil); !e.Graceful || e.Will != nil || e.Cause != nil {
			t.Errorf("end %+v", e)
		}
	})
}

func TestRefused(t *testing.T) {
	level5 := []byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 0}
	level3 := []byte{0x10, 14, 0, 6, 'M', 'Q', 'I', 's', 'd', 'p', 3, 2, 0, 60, 0, 0}
	anonymous := connectPacket("")
	anonymous.CleanSession = false
	for name, c := range map[string]struct {
		connect []byte
		answer  Code
		want    Code
	}{
		"MQTT 5":              {level5, Accepted, BadVersion},
		"MQTT 3.1":            {level3, Accepted, BadVersion},
		"session of nobody":   {encode(anonymous), Accepted, BadClientID},
		"refused by handler":  {encode(connectPacket("x")), NotAuthorized, NotAuthorized},
		"handler unavailable": {encode(connectPacket("x")), Unavailable, Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRecorder()
				h.answer = func(Connect) (Code, bool) { return c.answer, true }
				r := start(t, Config{}, h)
				r.write(c.connect...)
				ack := r.read().(*packets.ConnackPacket)
				if Code(ack.ReturnCode) != c.want || ack.SessionPresent {
					t.Errorf("CONNACK %+v, want code %d and no session", ack, c.want)
				}
				r.eof()
				if err := <-r.result; !errors.Is(err, ErrRefused) {
					t.Errorf("Serve returned %v", err)
				}
				if len(h.ends) > 0 || h.readies() > 0 {
					t.Error("the handler heard more of a client that it refused")
				}
			})
		})
	}
}

// What is forbidden ends the connection, and nothing is said.
func TestViolations(t *testing.T) {
	str := func(s string) []byte { return append([]byte{0, byte(len(s))}, s...) }
	packet := func(first byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append([]byte{first, byte(len(body))}, body...)
	}
	connect := func(flags byte, rest ...[]byte) []byte {
		return packet(0x10, append([][]byte{str("MQTT"), {4, flags, 0, 60}}, rest...)...)
	}
	for name, b := range map[string][]byte{
		"no CONNECT":              {0xc0, 0},
		"other protocol":          packet(0x10, str("HTTP"), []byte{4, 2, 0, 60}, str("x")),
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"),
		"CONNECT flags":           packet(0x11, str("MQTT"), []byte{4, 2, 0, 60}, str("x")),
		"CONNECT reserved":        connect(3, str("x")),
		"CONNECT short":           connect(2),
		"CONNECT long":            connect(2, str("x"), str("y")),
		"CONNECT NUL":             connect(2, str("x\x00")),
		"CONNECT not UTF-8":       connect(2, str("\xff")),
		"CONNECT surrogate":       connect(2, str("\xed\xa0\x80")),
		"will QoS 2":              connect(2|4|16, str("x"), str("t"), str("m")),
		"will QoS 3":              connect(2|4|24, str("x"), str("t"), str("m")),
		"will topic":              connect(2|4, str("x"), str("a/#"), str("m")),
		"will flags without":      connect(2|32, str("x")),
		"password without user":   connect(2|64, str("x"), str("p")),
		"CONNECT too long":        {0x10, 0xff, 0xff, 0x7f},
		"CONNECT of 5 bytes size": {0x10, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		t.Run(name, func(t *testing.T) { testViolation(t, nil, b) })
	}
	for name, b := range map[string][]byte{
		"second CONNECT":      encode(connectPacket("x")),
		"kind 0":              {0, 0},
		"kind 15":             {0xf0, 0},
		"CONNACK":             {0x20, 2, 0, 0},
		"PUBREL":              {0x62, 2, 0, 1},
		"PINGRESP":            {0xd0, 0},
		"PINGREQ long":        {0xc0, 1, 0},
		"PINGREQ flags":       {0xc1, 0},
		"DISCONNECT long":     {0xe0, 1, 0},
		"PUBACK short":        {0x40, 1, 0},
		"PUBACK long":         {0x40, 3, 0, 1, 0},
		"PUBACK 0":            {0x40, 2, 0, 0},
		"PUBLISH QoS 2":       encode(publishPacket(1, 2, "a", "")),
		"PUBLISH QoS 3":       encode(publishPacket(1, 3, "a", "")),
		"PUBLISH id 0":        encode(publishPacket(0, 1, "a", "")),
		"PUBLISH filter":      encode(publishPacket(1, 1, "a/+", "")),
		"PUBLISH no topic":    encode(publishPacket(1, 1, "", "")),
		"PUBLISH DUP QoS 0":   packet(0x38, str("a")),
		"PUBLISH short topic": {0x30, 3, 0, 2, 'a'},
		"PUBLISH short id":    {0x32, 4, 0, 1, 'a', 0},
		"PUBLISH empty":       {0x30, 0},
		"PUBLISH too long":    {0x30, 0x80, 0x80, 0x80, 1},
		"SUBSCRIBE flags":     packet(0x80, []byte{0, 1}, str("a"), []byte{0}),
		"SUBSCRIBE id 0":      packet(0x82, []byte{0, 0}, str("a"), []byte{0}),
		"SUBSCRIBE none":      packet(0x82, []byte{0, 1}),
		"SUBSCRIBE QoS 3":     packet(0x82, []byte{0, 1}, str("a"), []byte{3}),
		"SUBSCRIBE no QoS":    packet(0x82, []byte{0, 1}, str("a")),
		"SUBSCRIBE #":         packet(0x82, []byte{0, 1}, str("a/#/b"), []byte{0}),
		"SUBSCRIBE a+":        packet(0x82, []byte{0, 1}, str("a+"), []byte{0}),
		"SUBSCRIBE empty":     packet(0x82, []byte{0, 1}, str(""), []byte{0}),
		"UNSUBSCRIBE none":    packet(0xa2, []byte{0, 1}),
		"UNSUBSCRIBE short":   {0xa2, 1, 0},
	} {
		t.Run(name, func(t *testing.T) { testViolation(t, connectPacket("x"), b) })
	}
}

func testViolation(t *testing.T, connect *packets.ConnectPacket, b []byte) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder())
		if connect != nil {
			r.connect(connect)
		}
		go r.c.Write(b) // the server may hang up before it has read all
		r.eof()
		if err := <-r.result; !errors.Is(err, ErrProtocol) {
			t.Fatalf("Serve returned %v, want a protocol violation", err)
		}
		if got, want := len(r.h.ends), map[bool]int{true: 1}[connect != nil]; got != want {
			t.Errorf("OnClose was called %d times, want %d", got, want)
		}
	})
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		h.subscribe = func(filter string, qos byte) (byte, error) {
			switch filter {
			case "no":
				return Refused, nil
			case "end":
				return 0, errors.New("unknown filter")
			}
			return qos, nil
		}
		r := start(t, Config{}, h).open()
		before := h.readies()
		p := subscribePacket(7, 2, "a/#", "no", "b/+/c")
		p.Qoss[2] = 0
		r.send(p)
		ack := r.read().(*packets.SubackPacket)
		if ack.MessageID != 7 || !bytes.Equal(ack.ReturnCodes, []byte{1, Refused, 0}) {
			t.Errorf("SUBACK %d %x", ack.MessageID, ack.ReturnCodes)
		}
		u := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		u.MessageID, u.Topics = 8, []string{"a/#", "x"}
		r.send(u)
		if ack := r.read().(*packets.UnsubackPacket); ack.MessageID != 8 {
			t.Errorf("UNSUBACK %d", ack.MessageID)
		}
		r.ping()
		if fmt.Sprint(h.gone) != "[a/# x]" || h.readies() != before+1 {
			t.Errorf("unsubscribed %q, %d times ready", h.gone, h.readies()-before)
		}
		r.send(subscribePacket(9, 1, "end"))
		r.eof()
	})
}

func TestPublishIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		var later func()
		h.publish = func(m Message, ack func()) error {
			switch m.Topic {
			case "later":
				later = ack
			case "end":
				return errors.New("unknown topic")
			default:
				ack()
				ack() // once is sent
			}
			return nil
		}
		r := start(t, Config{}, h).open()
		r.send(publishPacket(0, 0, "zero", "body"))
		r.send(publishPacket(5, 1, "later", ""))
		p := publishPacket(6, 1, "now", "x")
		p.Dup, p.Retain = true, true
		r.send(p)
		if ack := r.read().(*packets.PubackPacket); ack.MessageID != 6 {
			t.Errorf("PUBACK %d, want 6", ack.MessageID)
		}
		go later()
		if ack := r.read().(*packets.PubackPacket); ack.MessageID != 5 {
			t.Errorf("PUBACK %d, want 5", ack.MessageID)
		}
		if m := <-h.msgs; m.Topic != "zero" || string(m.Payload) != "body" || m.QoS != 0 {
			t.Errorf("got %+v", m)
		}
		<-h.msgs
		if m := <-h.msgs; m.Topic != "now" || !m.Dup || !m.Retain || m.QoS != 1 {
			t.Errorf("got %+v", m)
		}
		r.send(publishPacket(7, 1, "end", ""))
		r.eof()
	})
}

func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		keepAlive uint16
		cfg       Config
		want      time.Duration
	}{
		{60, Config{}, 90 * time.Second},
		{1, Config{}, 1500 * time.Millisecond},
		{1177, Config{}, 1765500 * time.Millisecond},
		{1500, Config{}, 1767 * time.Second},
		{65535, Config{}, 1767 * time.Second},
		{0, Config{}, 1767 * time.Second},
		{0, Config{MaxSilence: time.Minute}, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, c.cfg, newRecorder())
			p := connectPacket("x")
			p.Keepalive = c.keepAlive
			r.connect(p)
			time.Sleep(c.want - time.Millisecond)
			r.ping() // any packet counts
			began := time.Now()
			r.c.SetReadDeadline(time.Time{})
			if _, err := r.c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
			if took := time.Since(began); took != c.want {
				t.Errorf("keep-alive %d: closed after %v, want %v", c.keepAlive, took, c.want)
			}
			if err := <-r.result; !errors.Is(err, ErrSilent) {
				t.Errorf("Serve returned %v", err)
			}
		})
	}
}

func TestNoConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder())
		r.write(0x10, 20, 0) // and no more
		began := time.Now()
		if _, err := r.c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestClose(t *testing.T) {
	taken := errors.New("taken over")
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		r.h.conn.Close(taken)
		r.h.conn.Close(io.EOF) // the first cause stays
		r.eof()
		r.end(taken)
		if _, err := r.h.conn.Send(Message{Topic: "t"}); !errors.Is(err, ErrClosed) {
			t.Errorf("Send: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{}, newRecorder()).open()
		r.stop()
		r.eof()
		r.end(context.Canceled)
	})
}

// A socket that dies while the CONNACK is on its way still gives OnClose.
func TestConnackNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		r := startOn(t, near, far, Config{}, newRecorder())
		r.send(connectPacket("x"))
		r.c.Close()
		r.end(io.ErrClosedPipe)
	})
}

// Answers that do not come.
func TestMute(t *testing.T) {
	quiet := func(t *testing.T, r *rig) {
		t.Helper()
		r.c.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := r.c.Read(make([]byte, 1)); n > 0 || err == io.EOF {
			t.Errorf("read %d bytes and %v, want silence", n, err)
		}
	}
	t.Run("CONNACK", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newRecorder()
			h.answer = func(Connect) (Code, bool) { return Mute, false }
			r := start(t, Config{}, h)
			r.send(connectPacket("x"))
			quiet(t, r)
			r.c.Close()
			if err := <-r.result; !errors.Is(err, ErrRefused) || len(h.ends) > 0 {
				t.Errorf("Serve returned %v, OnClose was called %d times", err, len(h.ends))
			}
		})
	})
	t.Run("hang up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newRecorder()
			h.answer = func(Connect) (Code, bool) { return HangUp, false }
			r := start(t, Config{}, h)
			r.send(connectPacket("x"))
			r.eof()
		})
	})
	t.Run("SUBACK and PINGRESP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newRecorder()
			h.subscribe = func(string, byte) (byte, error) { return Unanswered, nil }
			r := start(t, Config{}, h).open()
			r.send(subscribePacket(1, 1, "a"))
			quiet(t, r)
			r.ping()
			h.muted = true
			r.write(0xc0, 0)
			quiet(t, r)
		})
	})
}

// The SUBACK waits for OnReady: who has read it finds the subscription at work.
// What OnReady sends comes after it.
func TestSubackAfterReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		r := start(t, Config{}, h).open()
		h.onReady = func() {
			h.conn.Send(Message{Topic: "t"})
			time.Sleep(time.Second)
		}
		began := time.Now()
		r.send(subscribePacket(1, 1, "t"))
		if ack, ok := r.read().(*packets.SubackPacket); !ok || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", ack, time.Since(began))
		}
		r.publish()
	})
}
