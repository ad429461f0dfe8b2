//go:build linux

package main

import (
	"encoding/binary"
	"errors"
)

// What a minimal hop has to know of RFC 6455: a header's size, length and mask key. It
// believes its peers, as nothing that faces a network may. It is written apart from
// relay/ws on purpose: a reference that shares the code it is held against would get
// slower with it.

// maxHeader is 2 bytes, 8 of length, 4 of mask.
const maxHeader = 14

const (
	opBinary = 0x2
	opClose  = 0x8
	finBit   = 0x80
	maskBit  = 0x80
)

var errFrame = errors.New("a frame's length has its first bit set")

// header is the start of a frame.
type header struct {
	first  byte // FIN and opcode
	masked bool
	key    uint32 // little endian: the first byte of the payload meets the lowest
	size   int    // of the header itself
	length int64
}

// parse reads the header at the start of b; size 0 means that there is more to it.
func parse(b []byte) (h header, err error) {
	if len(b) < 2 {
		return header{}, nil
	}
	n := 2
	h.first, h.masked = b[0], b[1]&maskBit != 0
	switch l := b[1] &^ maskBit; {
	case l < 126:
		h.length = int64(l)
	case l == 126:
		if n += 2; len(b) < n {
			return header{}, nil
		}
		h.length = int64(binary.BigEndian.Uint16(b[2:]))
	default:
		if n += 8; len(b) < n {
			return header{}, nil
		}
		if h.length = int64(binary.BigEndian.Uint64(b[2:])); h.length < 0 {
			return header{}, errFrame
		}
	}
	if h.masked {
		if len(b) < n+4 {
			return header{}, nil
		}
		h.key = binary.LittleEndian.Uint32(b[n:])
		n += 4
	}
	h.size = n
	return h, nil
}

// headerSize is what put writes.
func headerSize(length int64, masked bool) int {
	n := 2
	switch {
	case length >= 1<<16:
		n = 10
	case length >= 126:
		n = 4
	}
	if masked {
		n += 4
	}
	return n
}

// put writes a header to the start of b.
func (h header) put(b []byte) {
	mask := byte(0)
	if h.masked {
		mask = maskBit
	}
	b[0] = h.first
	n := 2
	switch {
	case h.length >= 1<<16:
		b[1] = mask | 127 // #nosec G602 -- the caller has made room, as headerSize says
		binary.BigEndian.PutUint64(b[2:], uint64(h.length))
		n = 10
	case h.length >= 126:
		b[1] = mask | 126
		binary.BigEndian.PutUint16(b[2:], uint16(h.length))
		n = 4
	default:
		b[1] = mask | byte(h.length)
	}
	if h.masked {
		binary.LittleEndian.PutUint32(b[n:], h.key)
	}
}

// xor masks or unmasks src into dst, which may start before it in the same memory, and
// returns the key for what follows.
func xor(dst, src []byte, key uint32) uint32 {
	rest := uint(len(src)%4) * 8
	k := uint64(key) | uint64(key)<<32
	for len(src) >= 64 {
		d, s := dst[:64], src[:64]
		// All of it is read first: dst may lie on words of src that come next.
		a0, a1 := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
		a2, a3 := binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint64(s[24:])
		a4, a5 := binary.LittleEndian.Uint64(s[32:]), binary.LittleEndian.Uint64(s[40:])
		a6, a7 := binary.LittleEndian.Uint64(s[48:]), binary.LittleEndian.Uint64(s[56:])
		binary.LittleEndian.PutUint64(d, a0^k)
		binary.LittleEndian.PutUint64(d[8:], a1^k)
		binary.LittleEndian.PutUint64(d[16:], a2^k)
		binary.LittleEndian.PutUint64(d[24:], a3^k)
		binary.LittleEndian.PutUint64(d[32:], a4^k)
		binary.LittleEndian.PutUint64(d[40:], a5^k)
		binary.LittleEndian.PutUint64(d[48:], a6^k)
		binary.LittleEndian.PutUint64(d[56:], a7^k)
		dst, src = dst[64:], src[64:]
	}
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k)
		dst, src = dst[8:], src[8:]
	}
	for i, c := range src {
		dst[i] = c ^ byte(k>>(8*uint(i)))
	}
	return key>>rest | key<<(32-rest)
}

// xorShort is xor for what fits into few words, and needs no key for what follows.
func xorShort(dst, src []byte, key uint32) {
	k := uint64(key) | uint64(key)<<32
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k)
		dst, src = dst[8:], src[8:]
	}
	for i, c := range src {
		dst[i] = c ^ byte(k>>(8*uint(i)))
	}
}

// A rewriter takes frames off a stream of bytes, and unmasks them: with headers, as a
// relay passes them on, or without, as a target wants to have them. A frame's parts go
// on as they come, so nothing waits for its end.
type rewriter struct {
	headers bool
	left    int64 // of the frame under way
	masked  bool
	key     uint32
}

// rewrite changes b in place. out is a part of b; rest, at its end, is the beginning of
// a header that has to come first the next time.
func (f *rewriter) rewrite(b []byte) (out, rest []byte, err error) {
	start, w, r := -1, 0, 0
	for r < len(b) {
		if f.left == 0 {
			// Most messages are short and here as a whole: these need no more than this.
			if f.headers && start >= 0 && len(b)-r >= 6 && b[r+1] > maskBit && b[r+1] < maskBit+126 && len(b)-r >= 6+int(b[r+1]-maskBit) {
				n := int(b[r+1] - maskBit)
				key := binary.LittleEndian.Uint32(b[r+2:])
				b[w], b[w+1] = b[r], byte(n)
				xorShort(b[w+2:w+2+n], b[r+6:r+6+n], key)
				w += 2 + n
				r += 6 + n
				continue
			}
			h, err := parse(b[r:])
			if err != nil {
				return nil, nil, err
			}
			if h.size == 0 {
				break
			}
			f.left, f.masked, f.key = h.length, h.masked, h.key
			size := 0
			if f.headers {
				size = headerSize(h.length, false)
			}
			if start < 0 { // the first payload stays where it is
				start = r + h.size - size
				w = start
			}
			if f.headers {
				header{first: h.first, length: h.length}.put(b[w:])
			}
			w += size
			r += h.size
		}
		if start < 0 {
			start, w = r, r
		}
		n := int(min(f.left, int64(len(b)-r)))
		switch {
		case f.masked:
			f.key = xor(b[w:w+n], b[r:r+n], f.key)
		case w != r:
			copy(b[w:], b[r:r+n])
		}
		f.left -= int64(n)
		w += n
		r += n
	}
	if start < 0 {
		return nil, b[r:], nil
	}
	return b[start:w], b[r:], nil
}
