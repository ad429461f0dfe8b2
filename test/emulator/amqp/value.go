package amqp

import (
	"bytes"
	"time"
)

// An AMQP value is one of these Go types:
//
//	null nil          ubyte uint8       byte int8      float float32     char Char
//	boolean bool      ushort uint16     short int16    double float64    timestamp Timestamp
//	uuid UUID         uint uint32       int int32      string string     binary []byte
//	symbol Symbol     ulong uint64      long int64     decimal… Decimal  list List
//	map Map           array Array       described Described

// A Symbol is a string from a fixed vocabulary, such as an error condition.
type Symbol string

// A Timestamp is in milliseconds since 1970, in UTC.
type Timestamp int64

// TimestampOf returns t to the millisecond.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMilli()) }

// Time returns t in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// A UUID is in network byte order.
type UUID [16]byte

// String returns the form with four dashes, in lower case.
func (u UUID) String() string {
	const hex = "0123456789abcdef"
	s := make([]byte, 0, 36)
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			s = append(s, '-')
		}
		s = append(s, hex[b>>4], hex[b&15])
	}
	return string(s)
}

// A Char is one code point, valid or not.
type Char uint32

// A Decimal is the 4, 8 or 16 bytes of a decimal floating point number, unread.
type Decimal string

// A List holds values of any types.
type List []any

// A Map keeps the order of its entries. Keys may be of any type.
type Map []Entry

// An Entry is a key of a Map and its value.
type Entry struct{ Key, Value any }

// Get returns the value of the first entry whose key is the string or symbol key.
func (m Map) Get(key string) (value any, ok bool) {
	for _, e := range m {
		if s, isText := text(e.Key); isText && s == key {
			return e.Value, true
		}
	}
	return nil, false
}

// An Array holds values of one type.
type Array struct {
	Code       byte // of the elements, as on the wire
	Descriptor any  // nil: the elements are not described
	Items      []any
}

// Symbols returns an array of symbols.
func Symbols(names ...Symbol) Array {
	a := Array{Code: codeSym8}
	for _, n := range names {
		if len(n) > 255 {
			a.Code = codeSym32
		}
		a.Items = append(a.Items, n)
	}
	return a
}

// Described is a value whose type a descriptor names.
type Described struct{ Descriptor, Value any }

// text returns what a string or a symbol says.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Symbol:
		return string(v), true
	}
	return "", false
}

// Equal says whether two values have the same encoding.
func Equal(a, b any) bool {
	ab, aErr := AppendValue(nil, a)
	bb, bErr := AppendValue(nil, b)
	return aErr == nil && bErr == nil && bytes.Equal(ab, bb)
}

// Format codes of the standard, part 1, section 1.6.
const (
	codeDescribed  = 0x00
	codeNull       = 0x40
	codeTrue       = 0x41
	codeFalse      = 0x42
	codeUint0      = 0x43
	codeUlong0     = 0x44
	codeList0      = 0x45
	codeUbyte      = 0x50
	codeByte       = 0x51
	codeSmallUint  = 0x52
	codeSmallUlong = 0x53
	codeSmallInt   = 0x54
	codeSmallLong  = 0x55
	codeBool       = 0x56
	codeUshort     = 0x60
	codeShort      = 0x61
	codeUint       = 0x70
	codeInt        = 0x71
	codeFloat      = 0x72
	codeChar       = 0x73
	codeDecimal32  = 0x74
	codeUlong      = 0x80
	codeLong       = 0x81
	codeDouble     = 0x82
	codeTimestamp  = 0x83
	codeDecimal64  = 0x84
	codeDecimal128 = 0x94
	codeUUID       = 0x98
	codeBin8       = 0xa0
	codeStr8       = 0xa1
	codeSym8       = 0xa3
	codeBin32      = 0xb0
	codeStr32      = 0xb1
	codeSym32      = 0xb3
	codeList8      = 0xc0
	codeMap8       = 0xc1
	codeList32     = 0xd0
	codeMap32      = 0xd1
	codeArray8     = 0xe0
	codeArray32    = 0xf0
)
