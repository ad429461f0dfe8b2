package session

import (
	"encoding/binary"
	"unicode/utf8"
)

// Sizes of the protocol. Both sides rely on them; a change is a new version.
const (
	// EarlyWindow is how many bytes an opener may send before OPENED arrives.
	// 16 KiB: a request with fat headers, times MaxStreams it still is only 4 MiB.
	EarlyWindow = 16 << 10
	// MaxPayload is the longest payload of any frame. Longer is a violation, so
	// that one frame never holds up the others for long.
	MaxPayload = 64 << 10
	// MaxCredit is the most a window can hold; fits an int on 32-bit devices.
	MaxCredit = 1<<31 - 1
	// MaxTarget is the longest target of an OPEN; its length is one byte.
	MaxTarget = 255
	// MaxMessage is the longest message of a RESET or GOAWAY.
	MaxMessage = 1 << 10

	headerSize  = 8
	maxStreamID = 1<<31 - 1
	maxCode     = 255                      // its length is one byte
	maxReason   = 1 + maxCode + MaxMessage // payload of RESET and GOAWAY
	maxOpen     = 2 << 10                  // 260 bytes are used; the rest is for later versions
)

type frameType uint8

const (
	typeOpen   frameType = 0x01
	typeOpened frameType = 0x02
	typeData   frameType = 0x03
	typeWindow frameType = 0x04
	typeFin    frameType = 0x05
	typeStop   frameType = 0x06
	typeReset  frameType = 0x07
	typePing   frameType = 0x08
	typePong   frameType = 0x09
	typeGoAway frameType = 0x0a

	typeExtension frameType = 0x80 // from here on unknown types are ignored

	typeReclaim frameType = 0x81
	typeReturn  frameType = 0x82
)

// A shape is what a frame looks like, before any state is asked.
type shape struct {
	name     string
	min, max uint32 // payload bytes
	stream   bool   // belongs to a stream, else to the session: stream 0
}

// shapes are those of all frames that are known.
var shapes = [1 << 8]shape{
	typeOpen:   {"OPEN", 5, maxOpen, true},
	typeOpened: {"OPENED", 4, 4, true},
	typeData:   {"DATA", 1, MaxPayload, true},
	typeWindow: {"WINDOW", 4, 4, true},
	typeFin:    {"FIN", 0, 0, true},
	typeStop:   {"STOP", 0, 0, true},
	typeReset:  {"RESET", 1, maxReason, true},
	typePing:   {"PING", 8, 8, false},
	typePong:   {"PONG", 8, 8, false},
	typeGoAway: {"GOAWAY", 1, maxReason, false},

	typeReclaim: {"RECLAIM", 4, 4, true},
	typeReturn:  {"RETURN", 4, 4, true},
}

// skipped: it means nothing to this version.
func (t frameType) skipped() bool { return t >= typeExtension && shapes[t].name == "" }

type header struct {
	typ    frameType
	length uint32 // of the payload, 24 bits
	stream uint32
}

// parseHeader reads the first 8 bytes of b.
func parseHeader(b []byte) header {
	w := binary.BigEndian.Uint32(b)
	return header{frameType(w >> 24), w & 0xffffff, binary.BigEndian.Uint32(b[4:])}
}

func putHeader(b []byte, t frameType, length int, stream uint32) {
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(length))
	binary.BigEndian.PutUint32(b[4:], stream)
}

func appendHeader(b []byte, t frameType, length int, stream uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(t)<<24|uint32(length))
	return binary.BigEndian.AppendUint32(b, stream)
}

// check finds every fault of a frame that shows without knowing any stream.
func (h header) check() error {
	if h.typ.skipped() {
		if h.length > MaxPayload {
			return violation("frame of type %#x has %d bytes; %d are allowed", uint8(h.typ), h.length, MaxPayload)
		}
		return nil
	}
	s := shapes[h.typ]
	if s.name == "" {
		return violation("frame type %#x is unknown", uint8(h.typ))
	}
	if h.length < s.min || h.length > s.max {
		return violation("%s has %d bytes; %d to %d are allowed", s.name, h.length, s.min, s.max)
	}
	if s.stream != (h.stream != 0) || h.stream > maxStreamID {
		return violation("%s on stream %d", s.name, h.stream)
	}
	return nil
}

type openPayload struct {
	window uint32
	target []byte
	rest   []byte // of a later version; ignored
}

func parseOpen(p []byte) (openPayload, error) {
	o := openPayload{window: binary.BigEndian.Uint32(p)}
	if o.window > MaxCredit {
		return o, violation("OPEN with a window of %d bytes", o.window)
	}
	n := int(p[4])
	if len(p) < 5+n {
		return o, violation("OPEN has %d bytes but a target of %d", len(p), n)
	}
	o.target, o.rest = p[5:5+n], p[5+n:]
	return o, nil
}

func appendOpen(b []byte, id uint32, o openPayload) []byte {
	b = appendHeader(b, typeOpen, 5+len(o.target)+len(o.rest), id)
	b = binary.BigEndian.AppendUint32(b, o.window)
	b = append(b, byte(len(o.target)))
	b = append(b, o.target...)
	return append(b, o.rest...)
}

// parseCredit reads the payload of OPENED, WINDOW and RECLAIM, and of RETURN, which alone
// may say 0.
func parseCredit(t frameType, p []byte) (uint32, error) {
	n := binary.BigEndian.Uint32(p)
	if n == 0 && t != typeReturn || n > MaxCredit {
		return 0, violation("credit of %d bytes", n)
	}
	return n, nil
}

func appendCredit(b []byte, t frameType, id, n uint32) []byte {
	b = appendHeader(b, t, 4, id)
	return binary.BigEndian.AppendUint32(b, n)
}

// A reason is the payload of RESET and GOAWAY.
type reason struct{ code, message string }

func parseReason(p []byte) (reason, error) {
	n := int(p[0])
	if len(p) < 1+n {
		return reason{}, violation("reason has %d bytes but a code of %d", len(p), n)
	}
	if len(p)-1-n > MaxMessage {
		return reason{}, violation("message has %d bytes; %d are allowed", len(p)-1-n, MaxMessage)
	}
	return reason{string(p[1 : 1+n]), string(p[1+n:])}, nil
}

func appendReason(b []byte, t frameType, id uint32, r reason) []byte {
	b = appendHeader(b, t, 1+len(r.code)+len(r.message), id)
	b = append(b, byte(len(r.code)))
	b = append(b, r.code...)
	return append(b, r.message...)
}

// makeReason cuts what an application said to what a frame can hold.
func makeReason(code, message string) reason {
	return reason{cut(code, maxCode), cut(message, MaxMessage)}
}

// cut shortens s to n bytes, at a rune boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func appendPing(b []byte, t frameType, opaque uint64) []byte {
	b = appendHeader(b, t, 8, 0)
	return binary.BigEndian.AppendUint64(b, opaque)
}
