package mqtt

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A recorder is a Handler that takes everything, and tells what it was told.
type recorder struct {
	answer    func(Connect) (Code, bool)
	subscribe func(filter string, qos byte) (byte, error)
	publish   func(m Message, ack func()) error

	onReady func()
	muted   bool // no PINGRESP

	conn  *Conn
	mu    sync.Mutex
	ready int
	seen  Connect
	acks  chan uint16
	msgs  chan Message
	gone  []string
	ends  chan End
}

func newRecorder() *recorder {
	return &recorder{acks: make(chan uint16, 100), msgs: make(chan Message, 100), ends: make(chan End, 2)}
}

func (r *recorder) OnConnect(c *Conn, in Connect) (Code, bool) {
	r.conn, r.seen = c, in
	if r.answer != nil {
		return r.answer(in)
	}
	return Accepted, false
}

func (r *recorder) OnReady() {
	if r.onReady != nil {
		r.onReady()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready++
}

func (r *recorder) readies() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

func (r *recorder) OnSubscribe(filter string, qos byte) (byte, error) {
	if r.subscribe != nil {
		return r.subscribe(filter, qos)
	}
	return qos, nil
}

func (r *recorder) OnUnsubscribe(filter string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = append(r.gone, filter)
}

func (r *recorder) OnPublish(m Message, ack func()) error {
	r.msgs <- m
	if r.publish != nil {
		return r.publish(m, ack)
	}
	ack()
	return nil
}

func (r *recorder) OnPing() bool    { return !r.muted }
func (r *recorder) OnAck(id uint16) { r.acks <- id }
func (r *recorder) OnClose(e End)   { r.ends <- e }

// A rig is a client that speaks bytes, and the server of one connection.
type rig struct {
	t      *testing.T
	c      net.Conn // the client's end
	h      *recorder
	result chan error
	stop   context.CancelFunc
}

func start(t *testing.T, cfg Config, h *recorder) *rig {
	near, far := net.Pipe()
	return startOn(t, near, far, cfg, h)
}

func startOn(t *testing.T, near, far net.Conn, cfg Config, h *recorder) *rig {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{t: t, c: near, h: h, result: make(chan error, 1), stop: stop}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.result <- Serve(ctx, far, cfg, h)
	}()
	t.Cleanup(func() { stop(); near.Close(); <-done })
	return r
}

func (r *rig) write(b ...byte) {
	r.t.Helper()
	r.c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := r.c.Write(b); err != nil {
		r.t.Fatal("write:", err)
	}
}

func (r *rig) send(p packets.ControlPacket) { r.t.Helper(); r.write(encode(p)...) }

// read returns the server's next packet.
func (r *rig) read() packets.ControlPacket {
	r.t.Helper()
	r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	p, err := packets.ReadPacket(r.c)
	if err != nil {
		r.t.Fatal("read:", err)
	}
	return p
}

func (r *rig) publish() *packets.PublishPacket {
	r.t.Helper()
	p := r.read()
	out, ok := p.(*packets.PublishPacket)
	if !ok {
		r.t.Fatalf("got %v, want a PUBLISH", p)
	}
	return out
}

// eof wants the connection closed with nothing said before.
func (r *rig) eof() {
	r.t.Helper()
	r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(r.c)
	if len(b) > 0 || err != nil {
		r.t.Fatalf("got %x and %v, want the end of the connection without a word", b, err)
	}
}

func connectPacket(id string) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.ClientIdentifier, p.CleanSession, p.Keepalive = "MQTT", 4, id, true, 60
	return p
}

func (r *rig) connect(p *packets.ConnectPacket) *packets.ConnackPacket {
	r.t.Helper()
	r.send(p)
	ack, ok := r.read().(*packets.ConnackPacket)
	if !ok {
		r.t.Fatal("no CONNACK")
	}
	return ack
}

func (r *rig) open() *rig {
	r.t.Helper()
	if ack := r.connect(connectPacket("pump-7")); ack.ReturnCode != 0 {
		r.t.Fatalf("CONNACK %d", ack.ReturnCode)
	}
	r.ping() // OnReady has been called
	return r
}

// ping waits until the server has done everything before it.
func (r *rig) ping() {
	r.t.Helper()
	r.write(0xc0, 0)
	if p, ok := r.read().(*packets.PingrespPacket); !ok {
		r.t.Fatalf("got %v, want PINGRESP", p)
	}
}

func (r *rig) end(want error) End {
	r.t.Helper()
	select {
	case e := <-r.h.ends:
		if !errors.Is(e.Cause, want) {
			r.t.Fatalf("OnClose got %v, want %v", e.Cause, want)
		}
		if err := <-r.result; !errors.Is(err, want) {
			r.t.Fatalf("Serve returned %v, want %v", err, want)
		}
		return e
	case <-time.After(5 * time.Second):
		r.t.Fatal("the connection did not end")
		return End{}
	}
}

func subscribePacket(id uint16, qos byte, filters ...string) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics = id, filters
	for range filters {
		p.Qoss = append(p.Qoss, qos)
	}
	return p
}

func publishPacket(id uint16, qos byte, topic, body string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.MessageID, p.Qos, p.TopicName, p.Payload = id, qos, topic, []byte(body)
	return p
}
