package pump

import (
	"encoding/binary"

	"websocketbridge/relay/ws"
)

// headroom is the room in front of fresh bytes for the header of a fragment
// that has none of its own: the rest of a frame whose header came earlier. A
// part is never longer than the buffer, so its length fits 16 bits.
const headroom = 4

// bufSize is one read's worth: it has room for a DATA frame of a session (56 KiB) and
// what is in front of the next one, and is written as one TCP segment, of at most 64 KiB
// with all headers. Two segments cost half as much CPU again. The length of a part always fits
// the 16 bits of a 4-byte header.
const bufSize = 60<<10 - headroom

// rewriter turns a client's frames into a server's, in place. It is the only
// thing that knows where in a message a direction stands.
type rewriter struct {
	left      int64 // bytes of the current data frame still to come
	key       [4]byte
	pos       int64 // bytes of it that have passed
	op        byte  // opcode for its next part: its own, then continuation
	fin       bool  // the current frame ends its message
	inMessage bool  // a message is open: the next data frame continues it
	payload   int64 // bytes of payload passed on so far
	announced int64 // bytes of a data frame whose header is here, and nothing else
}

// want is how many bytes a read is best limited to: to the rest of a frame that fits into a
// buffer, and the next one's header, so that this one comes whole and goes whole. A receiver
// that splits frames among streams writes each of these with one system call, too.
func (w *rewriter) want() int {
	const header = 8 // of such a frame
	if rest := max(w.left, w.announced); rest >= bufSize/2 && w.pos+rest <= bufSize-header {
		return int(rest) + header
	}
	return bufSize
}

// control is a whole control frame, unmasked.
type control struct {
	op      byte
	payload []byte
}

// rewrite consumes buf[r:n] up to and including the first control frame, or as
// far as whole headers go. What goes out is buf[from:to]; buf[next:n] is not
// consumed. Room for a header must be free in buf before r.
func (w *rewriter) rewrite(buf []byte, r, n int) (from, to, next int, c *control, err error) {
	from, to = -1, -1
	w.announced = 0
	// emit writes a part of the current frame: its header, then size bytes of
	// payload that are masked at buf[at:].
	emit := func(at, size int, fin bool) {
		h := ws.Header{Fin: fin, Opcode: w.op, Len: int64(size)}
		hs := ws.HeaderSize(h.Len, false)
		if to < 0 { // the first part decides where output starts: its payload stays in place
			from = at - hs
			to = from
		}
		ws.AppendHeader(buf[to:to:to+hs], h)
		to += hs
		ws.Mask(buf[to:], buf[at:at+size], w.key, w.pos)
		to += size
		w.pos += int64(size)
		w.left -= int64(size)
		w.payload += int64(size)
		w.op = ws.OpContinuation
	}
	for {
		if w.left > 0 {
			if r == n {
				break
			}
			size := int(min(w.left, int64(n-r)))
			emit(r, size, w.fin && int64(size) == w.left)
			r += size
			continue
		}
		if from, to, r = w.short(buf, from, to, r, n); r == n {
			break
		}
		h, hs, err := ws.ParseHeader(buf[r:n])
		if err != nil {
			return max(from, 0), max(to, 0), r, nil, err
		}
		if hs == 0 {
			break
		}
		if !h.Masked {
			return max(from, 0), max(to, 0), r, nil, ws.ErrMask
		}
		if h.Control() {
			if n-r < hs+int(h.Len) {
				break
			}
			p := buf[r+hs : r+hs+int(h.Len)]
			ws.Mask(p, p, h.Key, 0)
			return max(from, 0), max(to, 0), r + hs + int(h.Len), &control{h.Opcode, p}, nil
		}
		if (h.Opcode == ws.OpContinuation) != w.inMessage {
			return max(from, 0), max(to, 0), r, nil, ws.ErrContinuation
		}
		if h.Len > 0 && n-r == hs {
			w.announced, w.pos = h.Len, 0
			break // a header alone would be passed on as an empty fragment
		}
		w.inMessage = !h.Fin
		w.left, w.key, w.pos, w.op, w.fin = h.Len, h.Key, 0, h.Opcode, h.Fin
		r += hs
		if h.Len == 0 {
			emit(r, 0, h.Fin)
		}
	}
	return max(from, 0), max(to, 0), r, nil, nil
}

// short rewrites as many data frames as come whole and have a header of six bytes, which
// is all that a chatty peer sends: a third of the time that it takes frame by frame. What is
// anything else, or wrong, is left to rewrite.
func (w *rewriter) short(buf []byte, from, to, r, n int) (int, int, int) {
	const head, unmasked = 6, 2
	for n-r >= head {
		first, size := buf[r], int(buf[r+1]&^0x80)
		op := first & 0x0f
		switch {
		case buf[r+1]&0x80 == 0, size > 125, n-r < head+size: // no mask, a longer header, not whole
			return from, to, r
		case first&0x70 != 0, op > ws.OpBinary, (op == ws.OpContinuation) != w.inMessage:
			return from, to, r
		}
		if to < 0 {
			from = r + head - unmasked
			to = from
		}
		key := binary.LittleEndian.Uint32(buf[r+2:])
		buf[to], buf[to+1] = first, byte(size)
		src, dst := buf[r+head:r+head+size], buf[to+unmasked:to+unmasked+size]
		i := 0
		for wide := uint64(key)<<32 | uint64(key); size-i >= 8; i += 8 {
			binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:])^wide)
		}
		for ; i < size; i++ {
			dst[i] = src[i] ^ byte(key>>(i%4*8))
		}
		w.inMessage = first&0x80 == 0
		w.payload += int64(size)
		r += head + size
		to += unmasked + size
	}
	return from, to, r
}
