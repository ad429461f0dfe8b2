package mqtt

import (
	"fmt"
	"time"
)

// Send publishes to the client. At QoS 1, id is what OnAck will be called with;
// until then the message takes part of the window. It fails with ErrClosed,
// ErrWindow or ErrBacklog, and then nothing was sent.
func (c *Conn) Send(m Message) (id uint16, err error) { return c.send(m, false) }

// SendHalf sends the first half of a PUBLISH and then cuts the connection.
func (c *Conn) SendHalf(m Message) error {
	_, err := c.send(m, true)
	return err
}

func (c *Conn) send(m Message, half bool) (id uint16, err error) {
	if !validTopic(m.Topic) || m.QoS > 1 {
		return 0, fmt.Errorf("mqtt: send: no topic name of at most 65535 bytes, or QoS %d", m.QoS)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready || c.over {
		return 0, ErrClosed
	}
	if m.QoS == 1 {
		if len(c.flights) >= c.cfg.Window {
			return 0, ErrWindow
		}
		id = c.freeID()
	}
	b := encodePublish(m, id)
	it := item{data: b}
	if half {
		it = item{data: b[:len(b)/2], cut: true}
	}
	if err := c.out.put(it, false); err != nil {
		return 0, err
	}
	if m.QoS == 1 {
		c.flights[id] = b
		c.lastID = id
	}
	return id, nil
}

// freeID returns the packet id after the last one that no message has. The caller
// holds mu and has seen that the window is open.
func (c *Conn) freeID() uint16 {
	id := c.lastID
	for {
		if id++; id == 0 {
			continue
		}
		if _, taken := c.flights[id]; !taken {
			return id
		}
	}
}

// Resend sends a message that waits for its PUBACK again: the same packet, now
// with DUP. It fails with ErrClosed or ErrBacklog; or when the message has landed.
func (c *Conn) Resend(id uint16) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return ErrClosed
	}
	b, ok := c.flights[id]
	if !ok {
		return fmt.Errorf("mqtt: resend: no message has packet id %d", id)
	}
	again := append([]byte{b[0] | dupFlag}, b[1:]...)
	return c.out.put(item{data: again}, false)
}

// landed frees a packet id. One that is free, as after a PUBACK for a message
// and one for its duplicate, is nobody's fault.
func (c *Conn) landed(id uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.flights[id]
	delete(c.flights, id)
	return ok
}

// writePackets writes until the connection ends.
func (c *Conn) writePackets() {
	var buf []byte
	for {
		batch := c.out.take()
		if batch == nil {
			return
		}
		buf = buf[:0]
		for _, it := range batch {
			buf = append(buf, it.data...)
		}
		if !c.isFrozen() {
			c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
			if _, err := c.nc.Write(buf); err != nil {
				c.end(fmt.Errorf("mqtt: write: %w", err))
				return
			}
		}
		if batch[len(batch)-1].cut {
			c.mu.Lock()
			c.hard = true
			c.mu.Unlock()
			c.end(ErrCut)
			return
		}
		if c.out.written(batch); cap(buf) > batchBytes {
			buf = nil
		}
	}
}
