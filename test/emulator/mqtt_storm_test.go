package emulator

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Many clients of one device come and go at any moment, some without a word,
// while messages and calls are on their way. In the end there is one connection
// or none, and no message was lost.
func TestMQTTStorm(t *testing.T) {
	mqttTest(t, Config{MessageQueue: 1000}, func(l *mqttLab) {
		const clients, visits, messages = 8, 20, 160
		var wg sync.WaitGroup
		for n := range clients {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(n)))
				for range visits {
					time.Sleep(time.Duration(random.IntN(20_000)) * time.Millisecond)
					l.visit(random)
				}
			})
			wg.Go(func() {
				for i := range messages / clients {
					l.queue(&c2dMessage{ID: fmt.Sprintf("%d-%d", n, i)})
					l.h.invokeMethod(l.ctx, pump, methodRequest{Name: "Bridge", Respond: 5 * time.Second, Connect: 5 * time.Second})
				}
			})
		}
		wg.Wait()
		p := l.connect(pump).subscribed(1, boundFilter)
		for l.h.Stats().MessagesCompleted < messages {
			p.ack(p.publication().MessageID)
			synctest.Wait()
		}
		p.c.Close()
		<-p.done
		if s := l.h.Stats(); s.Connections != 0 || s.MessagesAccepted != messages || s.MessagesCompleted != messages || s.Methods["answered"] == 0 || s.Takeovers == 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// visit is a client that does a few things, some of them, and is gone.
func (l *mqttLab) visit(random *rand.Rand) {
	hello := l.hello(pump)
	hello.CleanSession = random.IntN(2) == 0
	p := l.dial(nil)
	defer p.c.Close()
	p.c.SetDeadline(time.Now().Add(time.Duration(random.IntN(20_000)) * time.Millisecond))
	subscribe := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	subscribe.MessageID, subscribe.Topics, subscribe.Qoss = 1, []string{boundFilter, methodsFilter}, []byte{1, 0}
	if hello.Write(p.c) != nil {
		return
	}
	if _, err := packets.ReadPacket(p.c); err != nil || subscribe.Write(p.c) != nil {
		return
	}
	for range random.IntN(50) {
		packet, err := packets.ReadPacket(p.c)
		if err != nil {
			return
		}
		if m, ok := packet.(*packets.PublishPacket); ok && random.IntN(4) > 0 {
			var answer packets.ControlPacket
			if _, rid, call := strings.Cut(m.TopicName, "?$rid="); call {
				a := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				a.TopicName = "$iothub/methods/res/200/?$rid=" + rid
				answer = a
			} else {
				a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				a.MessageID = m.MessageID
				answer = a
			}
			if answer.Write(p.c) != nil {
				return
			}
		}
	}
	if random.IntN(2) == 0 {
		packets.NewControlPacket(packets.Disconnect).Write(p.c)
	}
}

// A mqttTape plays bytes to the hub and takes whatever it says.
type mqttTape struct {
	net.Conn // nil; what is not below is not called
	in       *bytes.Reader
}

func (p *mqttTape) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p *mqttTape) Write(b []byte) (int, error)      { return len(b), nil }
func (p *mqttTape) Close() error                     { return nil }
func (p *mqttTape) SetReadDeadline(time.Time) error  { return nil }
func (p *mqttTape) SetWriteDeadline(time.Time) error { return nil }

// FuzzMQTT plays arbitrary packets of a device that the hub has let in. It must
// neither panic nor hang, and let the device go.
func FuzzMQTT(f *testing.F) {
	h, err := newHub(Config{Devices: []Device{{ID: "pump-7"}}})
	if err != nil {
		f.Fatal(err)
	}
	var hello bytes.Buffer
	helloOf(f, h, pump).Write(&hello)
	bytesOf := func(p packets.ControlPacket) []byte {
		var b bytes.Buffer
		p.Write(&b)
		return b.Bytes()
	}
	for _, topic := range []string{
		"devices/pump-7/messages/events/a=b", "$iothub/methods/res/200/?$rid=1", "$iothub/twin/GET/?$rid=1", "$iothub/twin/PATCH/properties/reported/?$rid=1",
	} {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = topic, []byte(`{"a":1}`), 1, 7
		f.Add(bytesOf(p))
	}
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = 1, []string{boundFilter, methodsFilter, twinFilter, desiredFilter}, []byte{1, 1, 2, 0}
	f.Add(append(bytesOf(s), 0x40, 2, 0, 1, 0xc0, 0, 0xe0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := h.enqueueC2D(context.Background(), pump, &c2dMessage{Body: b[:min(len(b), 100)]}); err != nil && err.Code != 403004 {
			t.Fatal(err)
		}
		h.serveMQTT(context.Background(), &mqttTape{in: bytes.NewReader(append(bytes.Clone(hello.Bytes()), b...))}, nil)
		if n := h.Stats().Connections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}
