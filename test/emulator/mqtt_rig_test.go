package emulator

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler/sas"
)

// A mqttLab is a hub without sockets, inside a bubble: clients of it speak packets
// over pipes.
type mqttLab struct {
	*testing.T
	h   *Hub
	ctx context.Context
	wg  sync.WaitGroup
}

// mqttTest runs a test on a hub with the device pump-7, which has the module m1.
func mqttTest(t *testing.T, cfg Config, test func(*mqttLab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Devices = append(cfg.Devices, Device{ID: "pump-7", Modules: []Module{{ID: "m1"}}})
		h, err := newHub(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		l := &mqttLab{T: t, h: h, ctx: ctx}
		l.wg.Go(func() { h.keepTime(ctx) })
		defer l.wg.Wait()
		defer cancel()
		test(l)
	})
}

// tokenOf signs in as an identity for an hour.
func tokenOf(t testing.TB, h *Hub, id identity) string {
	t.Helper()
	h.mu.Lock()
	r, missing := h.find(id)
	h.mu.Unlock()
	if missing != nil {
		t.Fatal(missing)
	}
	s, err := sas.Sign(sas.Resource("localhost", id.Device, id.Module), "", r.primary, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A mqttPeer is a client.
type mqttPeer struct {
	*mqttLab
	c    net.Conn
	done chan struct{} // the hub is through with it
}

func (l *mqttLab) dial(state *tls.ConnectionState) *mqttPeer {
	near, far := net.Pipe()
	p := &mqttPeer{mqttLab: l, c: near, done: make(chan struct{})}
	l.wg.Go(func() {
		defer close(p.done)
		defer far.Close()
		l.h.serveMQTT(l.ctx, far, state)
	})
	l.Cleanup(func() { near.Close() })
	return p
}

// helloOf is a CONNECT that the hub takes.
func helloOf(t testing.TB, h *Hub, id identity) *packets.ConnectPacket {
	t.Helper()
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession, p.Keepalive = "MQTT", 4, true, 1177
	p.ClientIdentifier = id.String()
	p.UsernameFlag, p.Username = true, "localhost/"+id.String()+"/?api-version=2021-04-12"
	p.PasswordFlag, p.Password = true, []byte(tokenOf(t, h, id))
	return p
}

func (l *mqttLab) hello(id identity) *packets.ConnectPacket {
	l.Helper()
	return helloOf(l.T, l.h, id)
}

// connect is a client of an identity.
func (l *mqttLab) connect(id identity) *mqttPeer {
	l.Helper()
	return l.connectAs(l.hello(id))
}

func (l *mqttLab) connectAs(hello *packets.ConnectPacket) *mqttPeer {
	l.Helper()
	p := l.dial(nil)
	p.send(hello)
	if ack, ok := p.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
		l.Fatalf("CONNACK %v", ack)
	}
	return p
}

func (p *mqttPeer) send(packet packets.ControlPacket) {
	p.Helper()
	p.c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if err := packet.Write(p.c); err != nil {
		p.Fatal("write:", err)
	}
}

func (p *mqttPeer) read() packets.ControlPacket {
	p.Helper()
	p.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	packet, err := packets.ReadPacket(p.c)
	if err != nil {
		p.Fatal("read:", err)
	}
	return packet
}

// publication wants a PUBLISH next.
func (p *mqttPeer) publication() *packets.PublishPacket {
	p.Helper()
	packet, ok := p.read().(*packets.PublishPacket)
	if !ok {
		p.Fatalf("got %v, want a PUBLISH", packet)
	}
	return packet
}

// quiet wants nothing for d.
func (p *mqttPeer) quiet(d time.Duration) {
	p.Helper()
	p.c.SetReadDeadline(time.Now().Add(d))
	if packet, err := packets.ReadPacket(p.c); err == nil {
		p.Fatalf("got %v, want nothing", packet)
	} else if err == io.EOF {
		p.Fatal("the hub closed the connection")
	}
}

// eof wants the connection closed without a word, and the hub through with it.
func (p *mqttPeer) eof() {
	p.Helper()
	p.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(p.c); len(b) > 0 || err != nil {
		p.Fatalf("got %x and %v, want the end of the connection", b, err)
	}
	<-p.done
}

func (p *mqttPeer) subscribe(qos byte, filters ...string) {
	p.Helper()
	packet := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	packet.MessageID, packet.Topics = 1, filters
	for range filters {
		packet.Qoss = append(packet.Qoss, qos)
	}
	p.send(packet)
}

// subscribed is subscribe with the SUBACK that it wants.
func (p *mqttPeer) subscribed(qos byte, filters ...string) *mqttPeer {
	p.Helper()
	p.subscribe(qos, filters...)
	ack, ok := p.read().(*packets.SubackPacket)
	if !ok || ack.ReturnCodes[0] != min(qos, 1) {
		p.Fatalf("SUBACK %v", ack)
	}
	return p
}

func (p *mqttPeer) publish(qos byte, topic, body string) {
	p.Helper()
	packet := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	packet.Qos, packet.TopicName, packet.Payload = qos, topic, []byte(body)
	if qos > 0 {
		packet.MessageID = 7
	}
	p.send(packet)
}

// puback wants the PUBACK of publish.
func (p *mqttPeer) puback() {
	p.Helper()
	if ack, ok := p.read().(*packets.PubackPacket); !ok || ack.MessageID != 7 {
		p.Fatalf("got %v, want a PUBACK", ack)
	}
}

func (p *mqttPeer) ack(id uint16) {
	p.Helper()
	packet := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	packet.MessageID = id
	p.send(packet)
}

// ping waits until the hub has done what was sent before.
func (p *mqttPeer) ping() {
	p.Helper()
	p.send(packets.NewControlPacket(packets.Pingreq))
	if packet, ok := p.read().(*packets.PingrespPacket); !ok {
		p.Fatalf("got %v, want PINGRESP", packet)
	}
}

var pump = identity{Device: "pump-7"}

const boundFilter = "devices/pump-7/messages/devicebound/#"

// queue sends a message to pump-7.
func (l *mqttLab) queue(m *c2dMessage) {
	l.Helper()
	if err := l.h.enqueueC2D(l.ctx, pump, m); err != nil {
		l.Fatal(err)
	}
}
