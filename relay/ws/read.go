package ws

import "io"

const (
	// readSize is the buffer for readers whose own is smaller than directSize.
	readSize = 4 << 10
	// directSize is the least that frames are read into straight away.
	directSize = 1 << 10
	// maxRest is the longest part of a frame that is kept because it has not come
	// whole: a data frame's header, or a control frame of a server's.
	maxRest = MaxHeader + MaxControl
)

// read is Read for whoever holds rmu.
func (c *Conn) read(p []byte) (n int, err error) {
	if c.rerr != nil {
		return 0, c.rerr
	}
	if len(p) >= directSize && len(c.in) <= len(p)/2 {
		n, err = c.readDirect(p)
	} else {
		n, err = c.readBuffered(p)
	}
	if err != nil && !isTimeout(err) {
		c.fail(err)
	}
	return n, err
}

// fail notes why nothing can be read any more.
func (c *Conn) fail(err error) {
	c.rerr = err
	if IsProtocolError(err) {
		c.post(OpClose, AppendClose(nil, 1002, "protocol"))
	}
}

// readDirect reads whatever has come, headers and all, into p, and takes the headers
// out there: one system call for as many frames as p holds. It returns bytes or an error,
// not both.
func (c *Conn) readDirect(p []byte) (n int, err error) {
	have := copy(p, c.in)
	c.in = nil
	for {
		n, used, err := c.strip(p[:have])
		if n > 0 {
			if err != nil { // the bytes before it count; it is the next read's
				c.fail(err)
				return n, nil
			}
			c.in = c.rest[:copy(c.rest[:], p[used:have])]
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		have = copy(p, p[used:have])
		m, err := c.readConn(p[have:])
		if have += m; m == 0 && err != nil {
			c.in = c.rest[:copy(c.rest[:], p[:have])]
			return 0, noEOF(err)
		}
	}
}

// strip moves the payload of the frames in p to its front, and handles control frames.
// What is not used is the beginning of a header or of a control frame.
func (c *Conn) strip(p []byte) (n, used int, err error) {
	for used < len(p) {
		if c.left > 0 {
			m := copy(p[n:], p[used:used+int(min(c.left, int64(len(p)-used)))])
			n += m
			used += m
			c.left -= int64(m)
			continue
		}
		h, size, err := ParseHeader(p[used:])
		switch {
		case err != nil:
			return n, used, err
		case size == 0:
			return n, used, nil
		case h.Masked:
			return n, used, ErrMask
		case h.Control():
			end := used + size + int(h.Len)
			if end > len(p) {
				return n, used, nil
			}
			if err := c.control(h.Opcode, p[used+size:end]); err != nil {
				return n, used, err
			}
			used = end
		default:
			used += size
			if err := c.begin(h); err != nil {
				return n, used, err
			}
		}
	}
	return n, used, nil
}

// begin starts a data frame.
func (c *Conn) begin(h Header) error {
	if (h.Opcode == OpContinuation) != c.inMessage {
		return ErrContinuation
	}
	c.inMessage = !h.Fin
	c.left = h.Len
	return nil
}

// readBuffered reads ahead, for callers with small buffers.
func (c *Conn) readBuffered(p []byte) (n int, err error) {
	for c.left == 0 && err == nil {
		err = c.nextFrame()
	}
	if err == nil {
		err = noEOF(c.fill(1))
	}
	if err != nil {
		return 0, err
	}
	n = copy(p[:min(int64(len(p)), c.left)], c.in)
	c.in = c.in[n:]
	c.left -= int64(n)
	return n, nil
}

// nextFrame reads a frame's header, and all of a control frame. When it times
// out, nothing is consumed.
func (c *Conn) nextFrame() error {
	var (
		h   Header
		n   int
		err error
	)
	for {
		if h, n, err = ParseHeader(c.in); err != nil {
			return err
		}
		if n > 0 {
			break
		}
		if err := c.fill(len(c.in) + 1); err != nil {
			return noEOF(err)
		}
	}
	if h.Masked {
		return ErrMask
	}
	if h.Control() {
		n += int(h.Len)
		if err := c.fill(n); err != nil {
			return noEOF(err)
		}
		payload := c.in[n-int(h.Len) : n]
		c.in = c.in[n:]
		return c.control(h.Opcode, payload)
	}
	c.in = c.in[n:]
	return c.begin(h)
}

func (c *Conn) control(op byte, payload []byte) error {
	switch op {
	case OpPing:
		c.post(OpPong, payload)
		if c.cfg.OnPing != nil {
			c.cfg.OnPing(payload)
		}
	case OpClose:
		code, reason, err := ParseClose(payload)
		if err != nil {
			return err
		}
		c.post(OpClose, payload[:min(2, len(payload))])
		if code == 1000 || code == 1005 {
			return io.EOF
		}
		return &CloseError{code, reason}
	}
	return nil
}

// fill reads until n bytes are buffered.
func (c *Conn) fill(n int) error {
	if len(c.in) >= n {
		return nil
	}
	if c.buf == nil {
		c.buf = make([]byte, readSize)
	}
	have := copy(c.buf, c.in)
	c.in = c.buf[:have]
	for have < n {
		m, err := c.readConn(c.buf[have:])
		have += m
		c.in = c.buf[:have]
		if err != nil && have < n {
			return err
		}
	}
	return nil
}
