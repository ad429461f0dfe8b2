package c2d

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Azure/go-amqp"
)

// What of AMQP 1.0 the shim has to know. Section numbers are of the transport
// part of the standard, OASIS amqp-core-transport-v1.0.
const (
	headerSize = 8       // of a frame, and of a protocol header (section 2.3)
	maxFrame   = 1 << 16 // bytes; what we tell the hub to keep to

	// Descriptors of performatives and of what they hold.
	codeBegin       = 0x11
	codeFlow        = 0x13
	codeTransfer    = 0x14
	codeDisposition = 0x15
	codeDetach      = 0x16
	codeEnd         = 0x17
	codeClose       = 0x18
	codeError       = 0x1d
	codeReceived    = 0x23
	codeAccepted    = 0x24
	codeRejected    = 0x25
	codeReleased    = 0x26
	codeModified    = 0x27
)

var errProtocol = errors.New("the hub broke the AMQP protocol")

// unit returns how long the first unit of a stream is, a frame or a protocol
// header; 0: b has only a part of it.
func unit(b []byte) (int, error) {
	switch {
	case len(b) < headerSize:
		return 0, nil
	case string(b[:4]) == "AMQP": // as a frame it would have a gigabyte
		return headerSize, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size < headerSize || size > maxFrame {
		return 0, fmt.Errorf("%w: a frame of %d bytes; %d to %d are allowed", errProtocol, size, headerSize, maxFrame)
	}
	if int(size) > len(b) {
		return 0, nil
	}
	return int(size), nil
}

// performative returns what go-amqp takes a unit for; 0: it will refuse it. Like
// go-amqp it looks neither at the frame's type nor at where its body starts, so
// that nothing slips past.
func performative(u []byte) byte {
	if len(u) < headerSize+3 || string(u[:4]) == "AMQP" || u[8] != 0 || u[9] != 0x53 {
		return 0
	}
	return u[10]
}

func channel(u []byte) uint16 { return binary.BigEndian.Uint16(u[6:]) }

// fields splits the list of a performative, or of another described list whose
// two or nine bytes of descriptor are cut off already. ok is false if b is
// anything else. What follows the list is a transfer's payload and left alone.
func fields(b []byte) (list [][]byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	var size, count int
	switch kind := b[0]; {
	case kind == 0x45:
		return nil, true
	case kind == 0xc0 && len(b) >= 3:
		size, count, b = int(b[1])-1, int(b[2]), b[3:]
	case kind == 0xd0 && len(b) >= 9:
		n, c := binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:])
		if n > maxFrame || c > n {
			return nil, false
		}
		size, count, b = int(n)-4, int(c), b[9:]
	default:
		return nil, false
	}
	if size < 0 || size > len(b) {
		return nil, false
	}
	b = b[:size]
	for range count {
		n := width(b)
		if n == 0 {
			return nil, false
		}
		list, b = append(list, b[:n]), b[n:]
	}
	return list, len(b) == 0
}

// width returns how long the first value in b is; 0: b does not hold it whole.
// The type's high digit says how a value's length is told (types, section 1.2).
func width(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	n := 1
	switch kind := b[0]; kind >> 4 {
	case 0x0: // described: a descriptor, then the value
		for range 2 {
			if n < len(b) && b[n] == 0 {
				return 0 // a descriptor or a value that is itself described: nobody sends it, and it would nest
			}
			w := width(b[n:])
			if kind != 0 || w == 0 {
				return 0
			}
			n += w
		}
	case 0x4:
	case 0x5:
		n += 1
	case 0x6:
		n += 2
	case 0x7:
		n += 4
	case 0x8:
		n += 8
	case 0x9:
		n += 16
	case 0xa, 0xc, 0xe:
		if len(b) < 2 {
			return 0
		}
		n += 1 + int(b[1])
	case 0xb, 0xd, 0xf:
		if len(b) < 5 || binary.BigEndian.Uint32(b[1:]) > maxFrame {
			return 0
		}
		n += 4 + int(binary.BigEndian.Uint32(b[1:]))
	default:
		return 0
	}
	if n > len(b) {
		return 0
	}
	return n
}

// field returns a list's field; nil: it is null or left out.
func field(list [][]byte, i int) []byte {
	if i >= len(list) || list[i][0] == 0x40 {
		return nil
	}
	return list[i]
}

// described splits a described list as 00 53 24 45.
func described(v []byte) (code byte, list [][]byte, ok bool) {
	switch {
	case len(v) > 3 && v[0] == 0 && v[1] == 0x53:
		code, v = v[2], v[3:]
	case len(v) > 10 && v[0] == 0 && v[1] == 0x80 && binary.BigEndian.Uint64(v[2:]) < 0x100:
		code, v = v[9], v[10:]
	default:
		return 0, nil, false
	}
	list, ok = fields(v)
	return code, list, ok
}

// number reads an unsigned integer.
func number(v []byte) (uint32, bool) {
	switch {
	case len(v) == 1 && (v[0] == 0x43 || v[0] == 0x44):
		return 0, true
	case len(v) == 2 && (v[0] == 0x52 || v[0] == 0x53):
		return uint32(v[1]), true
	case len(v) == 3 && v[0] == 0x60:
		return uint32(binary.BigEndian.Uint16(v[1:])), true
	case len(v) == 5 && v[0] == 0x70:
		return binary.BigEndian.Uint32(v[1:]), true
	}
	return 0, false
}

// isTrue reads a boolean in either of its forms; null is false.
func isTrue(v []byte) bool {
	return len(v) == 1 && v[0] == 0x41 || len(v) == 2 && v[0] == 0x56 && v[1] != 0
}

// text reads a string or a symbol.
func text(v []byte) string {
	switch {
	case len(v) >= 2 && (v[0] == 0xa1 || v[0] == 0xa3):
		return string(v[2:])
	case len(v) >= 5 && (v[0] == 0xb1 || v[0] == 0xb3):
		return string(v[5:])
	}
	return ""
}

// remoteError reads an error field; nil: there is none.
func remoteError(v []byte) *amqp.Error {
	code, list, ok := described(v)
	if !ok || code != codeError {
		return nil
	}
	return &amqp.Error{Condition: amqp.ErrCond(text(field(list, 0))), Description: text(field(list, 1))}
}

// appendList encodes a list in its long form, which holds whatever the fields
// have grown to.
func appendList(b []byte, list ...[]byte) []byte {
	size := 4
	for _, f := range list {
		size += len(f)
	}
	b = append(b, 0xd0)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, f := range list {
		b = append(b, f...)
	}
	return b
}

// appendText encodes a string (0xb1) or a symbol (0xb3).
func appendText(b []byte, kind byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, kind), uint32(len(s))), s...)
}

// appendFrame encodes an AMQP frame on the channel of u with another list.
func appendFrame(b, u []byte, list ...[]byte) []byte {
	at := len(b)
	b = appendList(append(b, u[:headerSize+3]...), list...)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}
