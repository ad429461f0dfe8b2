package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// next reads a packet of at most limit bytes.
func (c *Conn) next(limit int) (packet, error) {
	first, err := c.in.ReadByte()
	if err != nil {
		return packet{}, silent(err)
	}
	p := packet{kind: first >> 4, flags: first & 15}
	if err := p.checkFlags(); err != nil {
		return p, err // before its length: an HTTP request has no good one
	}
	length, err := c.length()
	if err != nil {
		return packet{}, silent(err)
	}
	if length > limit {
		return packet{}, violation("packet of %d bytes; %d are allowed", length, limit)
	}
	p.body = make([]byte, length)
	if _, err := io.ReadFull(c.in, p.body); err != nil {
		return packet{}, silent(err)
	}
	return p, nil
}

// length reads the remaining length: seven bits a byte, lowest first, at most four.
func (c *Conn) length() (int, error) {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := c.in.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int(b&127) << shift
		if b < 128 {
			return n, nil
		}
	}
	return 0, violation("remaining length of more than four bytes")
}

func silent(err error) error {
	switch {
	case timedOut(err):
		return ErrSilent
	case errors.Is(err, ErrProtocol):
		return err
	}
	return fmt.Errorf("mqtt: read: %w", err)
}

// timedOut knows a deadline that has passed, also a WebSocket's: gorilla's hides
// that it was os.ErrDeadlineExceeded.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// handshake answers the CONNECT.
func (c *Conn) handshake(h Handler) (Connect, error) {
	c.deadline(c.cfg.ConnectTimeout)
	p, err := c.next(c.cfg.MaxConnect)
	if err != nil {
		return Connect{}, err
	}
	if p.kind != packets.Connect {
		return Connect{}, violation("the first packet is no CONNECT")
	}
	in, code, err := parseConnect(p.body)
	if err != nil {
		return in, err
	}
	present := false
	if code == Accepted {
		code, present = h.OnConnect(c, in)
	}
	c.silence = c.cfg.silence(in.KeepAlive)
	c.deadline(c.silence)
	switch code {
	case HangUp:
		return in, ErrRefused
	case Mute:
		c.Freeze()
		return in, fmt.Errorf("%w: not answered", ErrRefused)
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
	_, err = c.nc.Write(encodeConnack(code, present))
	switch {
	case code != Accepted:
		return in, fmt.Errorf("%w with code %d", ErrRefused, code)
	case err != nil:
		err = fmt.Errorf("mqtt: write: %w", err)
		c.end(err)
		h.OnClose(End{Cause: c.reason(), Will: in.Will})
		return in, err
	}
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	return in, nil
}

// readPackets returns nil at DISCONNECT.
func (c *Conn) readPackets(h Handler) error {
	for {
		c.deadline(c.silence)
		p, err := c.next(c.cfg.MaxPacket)
		if err != nil {
			return err
		}
		switch frozen, over := c.state(); {
		case over:
			return ErrClosed // what it says after the end, nobody hears
		case frozen:
			continue // swallowed
		}
		if p.kind == packets.Disconnect {
			if len(p.body) > 0 {
				return violation("DISCONNECT of %d bytes", len(p.body))
			}
			return nil
		}
		if err := c.dispatch(h, p); err != nil {
			return err
		}
	}
}

func (c *Conn) dispatch(h Handler, p packet) error {
	switch p.kind {
	case packets.Publish:
		return c.published(h, p)
	case packets.Puback:
		id, err := parsePuback(p.body)
		if err != nil {
			return err
		}
		if c.landed(id) {
			h.OnAck(id)
		}
		return nil
	case packets.Subscribe:
		return c.subscribe(h, p)
	case packets.Unsubscribe:
		id, subs, err := parseFilters(p)
		if err != nil {
			return err
		}
		for _, s := range subs {
			h.OnUnsubscribe(s.filter)
		}
		return c.answer(encodeUnsuback(id))
	case packets.Pingreq:
		if len(p.body) > 0 {
			return violation("PINGREQ of %d bytes", len(p.body))
		}
		if !h.OnPing() {
			return nil
		}
		return c.answer(encode(packets.NewControlPacket(packets.Pingresp)))
	}
	return violation("%s from a client", packetName(p.kind))
}

func packetName(kind byte) string {
	if name := packets.PacketNames[kind]; name != "" && kind != packets.Connect {
		return name
	} else if name != "" {
		return "second " + name
	}
	return fmt.Sprintf("packet kind %d", kind)
}

func (c *Conn) published(h Handler, p packet) error {
	m, id, err := parsePublish(p)
	if err != nil {
		return err
	}
	ack := func() {}
	if m.QoS == 1 {
		ack = sync.OnceFunc(func() { c.answer(encodePuback(id)) })
	}
	return h.OnPublish(m, ack)
}

func (c *Conn) subscribe(h Handler, p packet) error {
	id, subs, err := parseFilters(p)
	if err != nil {
		return err
	}
	granted := make([]byte, len(subs))
	for i, s := range subs {
		if granted[i], err = h.OnSubscribe(s.filter, min(s.qos, 1)); err != nil {
			return err
		}
	}
	if bytes.IndexByte(granted, Unanswered) >= 0 {
		return nil
	}
	if err := c.out.put(item{data: encodeSuback(id, granted), hold: true}, true); err != nil {
		return err
	}
	h.OnReady()
	c.out.release() // so that who has read the SUBACK finds everything ready
	return nil
}

// answer waits until a slow reader has made room, and so slows who asks.
func (c *Conn) answer(b []byte) error { return c.out.put(item{data: b}, true) }
