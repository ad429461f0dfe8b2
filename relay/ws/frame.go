package ws

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// Opcodes (RFC 6455 section 5.2).
const (
	OpContinuation = 0x0
	OpText         = 0x1
	OpBinary       = 0x2
	OpClose        = 0x8
	OpPing         = 0x9
	OpPong         = 0xA
)

const (
	// MaxHeader is the longest frame header: 2 bytes, 8 of length, 4 of mask.
	MaxHeader = 14
	// MaxControl is the longest payload of a control frame (RFC 6455 section 5.5).
	MaxControl = 125
)

// A ProtocolError is a way to break RFC 6455 section 5.
type ProtocolError string

func (e ProtocolError) Error() string { return "websocket: " + string(e) }

// IsProtocolError says whether the other end broke the protocol.
func IsProtocolError(err error) bool {
	var p ProtocolError
	return errors.As(err, &p)
}

// What can be broken.
const (
	ErrReserved     ProtocolError = "a reserved bit is set but no extension was agreed"
	ErrOpcode       ProtocolError = "unknown opcode"
	ErrControl      ProtocolError = "control frame is fragmented or longer than 125 bytes"
	ErrLength       ProtocolError = "length is negative or not in its shortest form"
	ErrMask         ProtocolError = "a client must mask and a server must not"
	ErrContinuation ProtocolError = "continuation without a message, or a message inside another"
	ErrClosePayload ProtocolError = "malformed close frame"
)

// A Header is a frame's header.
type Header struct {
	Fin    bool
	Opcode byte
	Masked bool
	Key    [4]byte
	Len    int64
}

// Control says whether the frame is close, ping or pong.
func (h Header) Control() bool { return h.Opcode&0x8 != 0 }

// ParseHeader reads the header at the start of b and returns its size; 0 means
// that b does not hold all of it yet.
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.Fin = b[0]&0x80 != 0
	h.Opcode = b[0] & 0xf
	h.Masked = b[1]&0x80 != 0
	if b[0]&0x70 != 0 {
		return h, 0, ErrReserved
	}
	if h.Opcode > OpBinary && h.Opcode < OpClose || h.Opcode > OpPong {
		return h, 0, ErrOpcode
	}
	n = 2
	switch l := b[1] & 0x7f; {
	case h.Control() && (!h.Fin || l > MaxControl):
		return h, 0, ErrControl
	case l < 126:
		h.Len = int64(l)
	case l == 126:
		if n += 2; len(b) < n {
			return h, 0, nil
		}
		if h.Len = int64(binary.BigEndian.Uint16(b[2:])); h.Len < 126 {
			return h, 0, ErrLength
		}
	default:
		if n += 8; len(b) < n {
			return h, 0, nil
		}
		if h.Len = int64(binary.BigEndian.Uint64(b[2:])); h.Len < 1<<16 {
			return h, 0, ErrLength
		}
	}
	if h.Masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		n += copy(h.Key[:], b[n:])
	}
	return h, n, nil
}

// AppendHeader appends the wire form of h, in its shortest form.
func AppendHeader(b []byte, h Header) []byte {
	c := h.Opcode
	if h.Fin {
		c |= 0x80
	}
	var m byte
	if h.Masked {
		m = 0x80
	}
	switch {
	case h.Len < 126:
		b = append(b, c, m|byte(h.Len))
	case h.Len < 1<<16:
		b = append(b, c, m|126, byte(h.Len>>8), byte(h.Len))
	default:
		b = append(b, c, m|127)
		b = binary.BigEndian.AppendUint64(b, uint64(h.Len))
	}
	if h.Masked {
		b = append(b, h.Key[:]...)
	}
	return b
}

// HeaderSize is the size AppendHeader would append.
func HeaderSize(n int64, masked bool) int {
	size := 2
	switch {
	case n >= 1<<16:
		size = 10
	case n >= 126:
		size = 4
	}
	if masked {
		size += 4
	}
	return size
}

// Mask writes src, masked by key as from byte pos of its payload, to dst, which
// has at least len(src) bytes (RFC 6455 section 5.3). dst may overlap src if it does
// not start after it.
func Mask(dst, src []byte, key [4]byte, pos int64) {
	k32 := binary.LittleEndian.Uint32(key[:])
	if s := uint(pos&3) * 8; s != 0 {
		k32 = k32>>s | k32<<(32-s)
	}
	if n := len(src) &^ (blockSize - 1); wide && n > 0 {
		maskBlocks(&dst[:n][0], &src[0], n, k32)
		dst, src = dst[n:], src[n:]
	}
	k := uint64(k32) | uint64(k32)<<32
	for len(src) >= 32 {
		d, s := dst[:32], src[:32]
		// Read before write: with overlap, a write may land on words read here.
		a0, a1 := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
		a2, a3 := binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint64(s[24:])
		binary.LittleEndian.PutUint64(d, a0^k)
		binary.LittleEndian.PutUint64(d[8:], a1^k)
		binary.LittleEndian.PutUint64(d[16:], a2^k)
		binary.LittleEndian.PutUint64(d[24:], a3^k)
		dst, src = dst[32:], src[32:]
	}
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k)
		dst, src = dst[8:], src[8:]
	}
	for i, c := range src {
		dst[i] = c ^ byte(k>>(8*uint(i)))
	}
}

// ParseClose reads the unmasked payload of a close frame. No payload is code
// 1005. What is malformed includes codes that must not be sent.
func ParseClose(p []byte) (code int, reason string, err error) {
	if len(p) == 0 {
		return 1005, "", nil
	}
	if len(p) == 1 {
		return 0, "", ErrClosePayload
	}
	code = int(binary.BigEndian.Uint16(p))
	if !SendableCode(code) || !utf8.Valid(p[2:]) {
		return 0, "", ErrClosePayload
	}
	return code, string(p[2:]), nil
}

// SendableCode says whether a close frame may carry code (RFC 6455 section 7.4,
// and the registry it opened: 1012 to 1014).
func SendableCode(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code >= 1000 && code <= 1014:
		return code != 1004 && code != 1005 && code != 1006
	}
	return false
}

// AppendClose appends the payload of a close frame. Code 1005 has none. A reason
// of more than 123 bytes is cut at a rune.
func AppendClose(b []byte, code int, reason string) []byte {
	if code == 1005 || code == 0 {
		return b
	}
	if n := MaxControl - 2; len(reason) > n {
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(code)), reason...)
}

// AppendControl appends a whole control frame.
func AppendControl(b []byte, opcode byte, payload []byte, masked bool, key [4]byte) []byte {
	b = AppendHeader(b, Header{Fin: true, Opcode: opcode, Masked: masked, Key: key, Len: int64(len(payload))})
	at := len(b)
	b = append(b, payload...)
	if masked {
		Mask(b[at:], b[at:], key, 0)
	}
	return b
}
