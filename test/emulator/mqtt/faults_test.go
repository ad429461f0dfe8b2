package mqtt

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"testing/iotest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

var errTorn = errors.New("torn")

// tornConn is a tape whose nth read or write fails.
type tornConn struct {
	tape
	reads, writes int // left; negative: for ever
}

func (c *tornConn) Read(b []byte) (int, error) {
	if c.reads == 0 {
		return 0, errTorn
	}
	c.reads--
	return iotest.OneByteReader(c.in).Read(b)
}

func (c *tornConn) Write(b []byte) (int, error) {
	if c.writes == 0 {
		return 0, errTorn
	}
	c.writes--
	return c.tape.Write(b)
}

// Wherever the connection tears, the handler hears of it once if it had let the
// client in, with the will, and Serve returns.
func TestTorn(t *testing.T) {
	hello := connectPacket("x")
	hello.WillFlag, hello.WillTopic = true, "last"
	script := bytes.Join([][]byte{
		encode(hello), encode(subscribePacket(1, 1, "a/#", "b")), encode(publishPacket(1, 1, "t", "body")), {0xc0, 0, 0xe0, 0},
	}, nil)
	run := func(reads, writes int) (*recorder, error) {
		h := newRecorder()
		h.publish = func(m Message, ack func()) error {
			ack()
			h.conn.Send(Message{Topic: "t", QoS: 1})
			return nil
		}
		return h, Serve(context.Background(), &tornConn{tape: tape{in: bytes.NewReader(script)}, reads: reads, writes: writes}, Config{}, h)
	}
	if h, err := run(-1, -1); err != nil || len(h.ends) != 1 || !(<-h.ends).Graceful {
		t.Fatalf("the whole script: %v", err)
	}
	for n := range script {
		h, err := run(n, -1)
		if !errors.Is(err, errTorn) {
			t.Fatalf("read %d: Serve returned %v", n, err)
		}
		opened := n >= len(encode(hello))
		if got := len(h.ends); got != map[bool]int{true: 1}[opened] {
			t.Fatalf("read %d: OnClose was called %d times", n, got)
		}
		if opened {
			if e := <-h.ends; e.Graceful || e.Will == nil || !errors.Is(e.Cause, errTorn) {
				t.Errorf("read %d: end %+v", n, e)
			}
		}
	}
	for n := range 2 { // the CONNACK; how the rest is batched is up to the scheduler
		h, err := run(-1, n)
		if len(h.ends) != 1 || n == 0 && !errors.Is(err, errTorn) {
			t.Errorf("write %d: Serve returned %v, OnClose was called %d times", n, err, len(h.ends))
		}
	}
}

// A real client over a real socket, with more than its windows hold.
func TestPaho(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newRecorder()
	served := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		ln.Close()
		if err == nil {
			err = Serve(context.Background(), nc, Config{}, h)
		}
		served <- err
	}()
	o := paho.NewClientOptions().SetClientID("x").SetAutoReconnect(false).SetConnectTimeout(10 * time.Second)
	o.Servers = []*url.URL{{Scheme: "tcp", Host: ln.Addr().String()}}
	c := paho.NewClient(o)
	wait := func(token paho.Token) {
		t.Helper()
		if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal("paho:", token.Error())
		}
	}
	wait(c.Connect())
	got := make(chan string, 100)
	wait(c.Subscribe("down/#", 1, func(_ paho.Client, m paho.Message) { got <- m.Topic() }))
	var tokens []paho.Token
	for range 100 {
		tokens = append(tokens, c.Publish("up", 1, false, bytes.Repeat([]byte("x"), 1000)))
	}
	for _, token := range tokens {
		wait(token)
	}
	for n := 0; n < 100; {
		switch _, err := h.conn.Send(Message{Topic: "down/" + string(rune('A'+n%26)), QoS: 1}); {
		case err == nil:
			n++
		case errors.Is(err, ErrWindow):
			<-h.acks // 16 are on their way
		default:
			t.Fatal(err)
		}
	}
	for n := range 100 {
		if want := "down/" + string(rune('A'+n%26)); <-got != want {
			t.Fatalf("message %d is out of order", n)
		}
	}
	c.Disconnect(1000)
	if err := <-served; err != nil {
		t.Error(err)
	}
}
