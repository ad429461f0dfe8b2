package mqtt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A tape plays bytes to a server and takes whatever it says.
type tape struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (p *tape) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p *tape) Write(b []byte) (int, error)      { return p.out.Write(b) }
func (p *tape) Close() error                     { return nil }
func (p *tape) LocalAddr() net.Addr              { return nil }
func (p *tape) RemoteAddr() net.Addr             { return nil }
func (p *tape) SetDeadline(time.Time) error      { return nil }
func (p *tape) SetReadDeadline(time.Time) error  { return nil }
func (p *tape) SetWriteDeadline(time.Time) error { return nil }

// strict is a Handler that fails on what Serve should not have let through.
type strict struct {
	t      *testing.T
	opened bool
	closed bool
}

func (s *strict) OnConnect(c *Conn, in Connect) (Code, bool) {
	s.opened = true
	return Accepted, false
}
func (s *strict) OnReady() {}
func (s *strict) OnSubscribe(filter string, qos byte) (byte, error) {
	if qos > 1 || !validFilter(filter) {
		s.t.Errorf("OnSubscribe(%q, %d)", filter, qos)
	}
	return qos, nil
}
func (s *strict) OnUnsubscribe(string) {}
func (s *strict) OnPublish(m Message, ack func()) error {
	if m.QoS > 1 || !validTopic(m.Topic) {
		s.t.Errorf("OnPublish(%+v)", m)
	}
	ack()
	return nil
}
func (s *strict) OnPing() bool { return true }
func (s *strict) OnAck(uint16) { s.t.Error("OnAck of a message that nobody sent") }
func (s *strict) OnClose(e End) {
	if s.closed || !s.opened {
		s.t.Error("OnClose twice, or without OnConnect")
	}
	s.closed = true
}

// FuzzConn plays arbitrary bytes as a client. The server must neither panic nor
// hang, tell its handler of nothing malformed, and say nothing but packets.
func FuzzConn(f *testing.F) {
	open := encode(connectPacket("x"))
	f.Add([]byte{})
	f.Add(open)
	for _, p := range [][]byte{
		encode(subscribePacket(1, 2, "a/#", "b/+")), encode(publishPacket(1, 1, "t", "body")), encode(publishPacket(0, 0, "t", "")),
		encode(publishPacket(1, 2, "t", "")), {0xc0, 0}, {0xe0, 0}, {0x40, 2, 0, 1}, {0xa2, 5, 0, 1, 0, 1, 'a'},
		{0x30, 0xff, 0xff, 0xff, 0x7f}, {0x82, 2, 0, 1},
	} {
		f.Add(append(bytes.Clone(open), p...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line, h := &tape{in: bytes.NewReader(b)}, &strict{t: t}
		err := Serve(context.Background(), line, Config{MaxPacket: 1 << 12, MaxConnect: 1 << 10}, h)
		if h.opened != h.closed {
			t.Errorf("opened %t, closed %t", h.opened, h.closed)
		}
		if err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrRefused) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Serve returned %v", err)
		}
		for line.out.Len() > 0 {
			if _, err := packets.ReadPacket(&line.out); err != nil {
				t.Fatalf("the server said what is no packet: %v", err)
			}
		}
	})
}

// FuzzParse holds the parsers against paho's encoder: what parses must encode to
// the same bytes.
func FuzzParse(f *testing.F) {
	for _, p := range []packets.ControlPacket{connectPacket("x"), subscribePacket(1, 1, "a/#"), publishPacket(1, 1, "t", "body")} {
		b := encode(p)
		f.Add(b[0], b[2:])
	}
	f.Fuzz(func(t *testing.T, first byte, body []byte) {
		p := packet{kind: first >> 4, flags: first & 15, body: body}
		if p.checkFlags() != nil {
			return
		}
		var again []byte
		switch p.kind {
		case packets.Publish:
			m, id, err := parsePublish(p)
			if err != nil {
				return
			}
			again = encodePublish(m, id)
		case packets.Subscribe:
			id, subs, err := parseFilters(p)
			if err != nil {
				return
			}
			out := subscribePacket(id, 0)
			for _, s := range subs {
				out.Topics, out.Qoss = append(out.Topics, s.filter), append(out.Qoss, s.qos)
			}
			again = encode(out)
		case packets.Connect:
			in, code, err := parseConnect(body)
			if err != nil || code != Accepted {
				return
			}
			again = encode(connectAgain(in, body[7]))
		default:
			return
		}
		var length cursor
		length.b = again[1:]
		for length.uint8() >= 128 {
		}
		if again[0] != first || !bytes.Equal(length.b, body) {
			t.Fatalf("%x %x encodes as %x", first, body, again)
		}
	})
}

func connectAgain(in Connect, flags byte) *packets.ConnectPacket {
	p := connectPacket(in.ClientID)
	p.Keepalive, p.CleanSession = uint16(in.KeepAlive/time.Second), in.Clean
	if in.Will != nil {
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, in.Will.Topic, in.Will.Payload, in.Will.QoS, in.Will.Retain
	}
	p.UsernameFlag, p.Username = flags&128 != 0, in.Username
	p.PasswordFlag, p.Password = flags&64 != 0, []byte(in.Password)
	return p
}
