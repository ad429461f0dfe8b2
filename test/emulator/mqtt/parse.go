package mqtt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A packet as it came; body is what the remaining length counts.
type packet struct {
	kind, flags byte
	body        []byte
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// checkFlags: section 2.2.2 fixes them for every kind but PUBLISH.
func (p packet) checkFlags() error {
	want := byte(0)
	switch p.kind {
	case packets.Publish:
		return nil
	case packets.Subscribe, packets.Unsubscribe, packets.Pubrel:
		want = 2
	}
	if p.flags != want {
		return violation("%s with flags %#x", packets.PacketNames[p.kind], p.flags)
	}
	return nil
}

// A cursor reads fields. After one that was short all others are empty.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if c.short || n > len(c.b) {
		c.short = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) bytes() []byte { return c.take(int(c.uint16())) }

// text is a string by section 1.5.3: UTF-8 without U+0000.
func (c *cursor) text() string {
	s := string(c.bytes())
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		c.short = true
		return ""
	}
	return s
}

// done reports whether everything was there and nothing is left.
func (c *cursor) done() bool { return !c.short && len(c.b) == 0 }

// parseConnect returns a code other than Accepted for what has one.
func parseConnect(body []byte) (in Connect, code Code, err error) {
	c := cursor{b: body}
	name, level := c.text(), c.uint8()
	switch {
	case c.short || name != "MQTT" && name != "MQIsdp":
		return in, 0, violation("CONNECT of another protocol")
	case name == "MQIsdp" || level != 4:
		return in, BadVersion, nil // what follows has another form in other levels
	}
	flags := c.uint8()
	in.KeepAlive = time.Duration(c.uint16()) * time.Second
	in.ClientID = c.text()
	in.Clean = flags&2 != 0
	var will Message
	hasWill, willQoS := flags&4 != 0, flags>>3&3
	if hasWill {
		will = Message{Topic: c.text(), Payload: c.bytes(), QoS: willQoS, Retain: flags&32 != 0}
		in.Will = &will
	}
	if flags&128 != 0 {
		in.Username = c.text()
	}
	if flags&64 != 0 {
		in.Password = string(c.bytes())
	}
	switch {
	case !c.done():
		return in, 0, violation("CONNECT is cut short, or has bytes left")
	case flags&1 != 0:
		return in, 0, violation("CONNECT with its reserved flag")
	case !hasWill && flags&(32|16|8) != 0, willQoS == 3:
		return in, 0, violation("CONNECT with will flags and no will")
	case willQoS == 2:
		return in, 0, violation("CONNECT with a will at QoS 2")
	case hasWill && !validTopic(will.Topic):
		return in, 0, violation("CONNECT with a will that has no topic")
	case flags&64 != 0 && flags&128 == 0:
		return in, 0, violation("CONNECT with a password and no user name")
	case in.ClientID == "" && !in.Clean:
		return in, BadClientID, nil
	}
	return in, Accepted, nil
}

// validTopic: a name, not a filter.
func validTopic(s string) bool {
	return s != "" && len(s) <= 65535 && utf8.ValidString(s) && !strings.ContainsAny(s, "+#\x00")
}

// validFilter: # alone at the end, + alone between slashes (section 4.7.1).
func validFilter(s string) bool {
	if s == "" {
		return false
	}
	levels := strings.Split(s, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i < len(levels)-1) || strings.Contains(l, "+") && l != "+" {
			return false
		}
	}
	return true
}

func parsePublish(p packet) (m Message, id uint16, err error) {
	m = Message{QoS: p.flags >> 1 & 3, Dup: p.flags&8 != 0, Retain: p.flags&1 != 0}
	c := cursor{b: p.body}
	m.Topic = c.text()
	if m.QoS > 0 {
		id = c.uint16()
	}
	m.Payload = c.b
	switch {
	case c.short:
		return m, 0, violation("PUBLISH is cut short")
	case m.QoS > 1:
		return m, 0, violation("PUBLISH at QoS %d", m.QoS)
	case m.QoS == 0 && m.Dup:
		return m, 0, violation("PUBLISH at QoS 0 as a duplicate")
	case m.QoS == 1 && id == 0:
		return m, 0, violation("PUBLISH with packet id 0")
	case !validTopic(m.Topic):
		return m, 0, violation("PUBLISH to no topic, or to a filter")
	}
	return m, id, nil
}

type subscription struct {
	filter string
	qos    byte // 2 also
}

// parseFilters is for SUBSCRIBE and, without QoS, for UNSUBSCRIBE.
func parseFilters(p packet) (id uint16, subs []subscription, err error) {
	name := packets.PacketNames[p.kind]
	c := cursor{b: p.body}
	id = c.uint16()
	for !c.short && len(c.b) > 0 {
		s := subscription{filter: c.text()}
		if p.kind == packets.Subscribe {
			s.qos = c.uint8()
		}
		switch {
		case c.short:
		case s.qos > 2:
			return 0, nil, violation("%s at QoS %d", name, s.qos)
		case !validFilter(s.filter):
			return 0, nil, violation("%s with a filter that is none", name)
		}
		subs = append(subs, s)
	}
	switch {
	case c.short:
		return 0, nil, violation("%s is cut short", name)
	case id == 0:
		return 0, nil, violation("%s with packet id 0", name)
	case len(subs) == 0:
		return 0, nil, violation("%s without a filter", name)
	}
	return id, subs, nil
}

func parsePuback(body []byte) (id uint16, err error) {
	c := cursor{b: body}
	if id = c.uint16(); !c.done() || id == 0 {
		return 0, violation("PUBACK of %d bytes, or with packet id 0", len(body))
	}
	return id, nil
}
