package amqp

import (
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

func TestHeartbeats(t *testing.T) {
	idle := uint32(10_000)
	wire(t, Config{}, func(p *wirePeer) {
		p.write(protocolHeader(protocolAMQP))
		p.send(0, &open{containerID: "peer", idleTimeOut: &idle})
		p.header(protocolAMQP)
		if o := next[*open](p); *o.idleTimeOut != 240_000 || *o.maxFrameSize != 65535 || *o.channelMax != 1024 || o.hostname != "" {
			t.Errorf("got %+v", o)
		}
		start := time.Now()
		for range 20 {
			if f := <-p.frames; f.body != nil {
				t.Fatalf("got %+v", f)
			}
		}
		if d := time.Since(start); d != 100*time.Second {
			t.Errorf("20 empty frames took %v", d)
		}
		p.write([]byte{0, 0, 0, 8, 2, 0, 0, 0}) // we live
		beats := 0
		for f := range p.frames {
			if f.body != nil {
				p.wantError(f.body.(*closing).err, CondResourceLimit)
				break
			}
			beats++
		}
		if d := time.Since(start); d != 340*time.Second || beats < 47 {
			t.Errorf("closed after %v and %d empty frames", d, beats)
		}
		p.end() // without an answer, after a while
		if d := time.Since(start); d != 345*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

func TestSlowHandshake(t *testing.T) {
	wire(t, Config{}, func(p *wirePeer) {
		start := time.Now()
		p.write([]byte("AMQ"))
		p.end()
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("cut after %v", d)
		}
		if len(p.hub.closed) != 0 {
			t.Error("Closed was called, although nothing was asked")
		}
	})
}

func TestSASLOnTheWire(t *testing.T) {
	wire(t, Config{}, func(p *wirePeer) {
		p.write(protocolHeader(protocolSASL))
		p.header(protocolSASL)
		if m := next[*saslMechanisms](p); !reflect.DeepEqual(m.names, []Symbol{"PLAIN", "ANONYMOUS", "MSSBCBS", "EXTERNAL"}) {
			t.Errorf("got %v", m.names)
		}
		b, _ := appendFrame(nil, frame{kind: frameTypeSASL, body: &saslInit{mechanism: "PLAIN", response: []byte("\x00user\x00secret")}})
		p.write(b)
		if o := next[*saslOutcome](p); o.result != 0 || p.hub.login != (Login{"PLAIN", "user", "secret"}) {
			t.Errorf("got %+v, %+v", o, p.hub.login)
		}
		p.write(protocolHeader(protocolAMQP))
		p.header(protocolAMQP)
		p.send(0, &open{containerID: "x"})
		next[*open](p)
	})
	for name, init := range map[string]*saslInit{
		"not offered": {mechanism: "GSSAPI"}, "two parts": {mechanism: "PLAIN", response: []byte("\x00user")},
	} {
		t.Run(name, func(t *testing.T) {
			wire(t, Config{}, func(p *wirePeer) {
				p.write(protocolHeader(protocolSASL))
				p.header(protocolSASL)
				next[*saslMechanisms](p)
				b, _ := appendFrame(nil, frame{kind: frameTypeSASL, body: init})
				p.write(b)
				if o := next[*saslOutcome](p); o.result != 1 {
					t.Errorf("got %+v", o)
				}
				p.end()
			})
		})
	}
	for name, head := range map[string]string{"TLS": "AMQP\x02\x01\x00\x00", "0.9.1": "AMQP\x00\x00\x09\x01", "HTTP": "GET / HT"} {
		t.Run(name, func(t *testing.T) {
			wire(t, Config{}, func(p *wirePeer) {
				p.write([]byte(head))
				p.header(protocolAMQP)
				p.end()
			})
		})
	}
}

func TestFreezeAndTear(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		start := time.Now()
		p.hub.conn.Freeze()
		synctest.Wait()
		p.nc.SetWriteDeadline(time.Now().Add(time.Minute))
		for range 3 { // one may still be on its way in
			p.message(0, "x")
		}
		p.end()
		if d := time.Since(start); d != 240*time.Second || len(p.hub.got) != 0 {
			t.Errorf("ended after %v, got %q", d, p.hub.got)
		}
	})
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.conn.Tear()
		p.message(0, "x")
		p.end()
		if p.err == nil {
			t.Error("no error")
		}
	})
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.conn.Cut()
		p.end()
		p.hub.senders[0].Detach(nil) // after the end nothing does anything
		p.hub.receivers[0].SetCredit(5)
		p.hub.conn.CloseWith(nil)
		if err := p.hub.senders[0].Push(&Message{}, nil); err != ErrDetached {
			t.Errorf("got %v", err)
		}
	})
}

// TestPeerThatDoesNotRead is held up, and cut in the end.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- NewServer(Config{}).ServeConn(t.Context(), far, new(wireHub)) }()
		near.Write(protocolHeader(protocolAMQP))
		b, _ := appendFrame(nil, frame{body: &open{containerID: "x"}})
		near.Write(b)
		b, _ = appendFrame(nil, frame{body: &begin{incomingWindow: 1}})
		near.Write(b)
		echo, _ := appendFrame(nil, frame{body: &flow{echo: true}})
		start, n := time.Now(), 0
		for {
			if _, err := near.Write(echo); err != nil {
				break
			}
			n++
		}
		if n*len(echo) > 4*highWater {
			t.Errorf("%d frames were taken", n)
		}
		if err := <-done; err == nil || time.Since(start) > 10*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		near.Close()
	})
}
