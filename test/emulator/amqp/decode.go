package amqp

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// maxDepth of values inside values. The hub's own messages need four; the standard
// sets no bound, and the decoder recurses.
const maxDepth = 16

var errShort = errors.New("the value ends before its time")

// ReadValue decodes the value at the start of b and returns what follows it. It
// keeps no reference to b. Counts are checked against the bytes that are there, so
// that what it allocates stays in proportion to b.
func ReadValue(b []byte) (v any, rest []byte, err error) {
	d := decoder{b: b}
	v, err = d.value(0)
	return v, d.b, err
}

// A decoder eats its bytes from the front.
type decoder struct{ b []byte }

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.b)) {
		return nil, errShort
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken, nil
}

func (d *decoder) number(width int) (v uint64, err error) {
	b, err := d.take(uint64(width))
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, err
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values nest deeper than %d", maxDepth)
	}
	code, err := d.number(1)
	if err != nil {
		return nil, err
	}
	if code != codeDescribed {
		return d.body(byte(code), depth)
	}
	descriptor, err := d.value(depth + 1)
	if err != nil {
		return nil, err
	}
	v, err := d.value(depth + 1)
	return Described{descriptor, v}, err
}

// body decodes what follows a constructor.
func (d *decoder) body(code byte, depth int) (any, error) {
	switch code >> 4 {
	case 0xa, 0xb:
		return d.variable(code)
	case 0xc, 0xd, 0xe, 0xf:
		return d.compound(code, depth)
	}
	width := fixedWidth(code)
	if width < 0 {
		return nil, fmt.Errorf("unknown format code 0x%02x", code)
	}
	if width == 16 || code == codeDecimal32 || code == codeDecimal64 {
		b, err := d.take(uint64(width))
		switch {
		case err != nil:
			return nil, err
		case code == codeUUID:
			return UUID(b), nil
		case code == codeDecimal32, code == codeDecimal64, code == codeDecimal128:
			return Decimal(b), nil
		}
		return nil, fmt.Errorf("unknown format code 0x%02x", code)
	}
	n, err := d.number(width)
	if err != nil {
		return nil, err
	}
	return scalar(code, n)
}

// scalar makes the value of a fixed width of at most 8 bytes.
func scalar(code byte, n uint64) (any, error) {
	switch code {
	case codeNull:
		return nil, nil
	case codeTrue:
		return true, nil
	case codeFalse:
		return false, nil
	case codeBool:
		if n > 1 {
			return nil, fmt.Errorf("boolean with value %d", n)
		}
		return n == 1, nil
	case codeUint0, codeSmallUint, codeUint:
		return uint32(n), nil
	case codeUlong0, codeSmallUlong, codeUlong:
		return n, nil
	case codeList0:
		return List{}, nil
	case codeUbyte:
		return uint8(n), nil
	case codeUshort:
		return uint16(n), nil
	case codeByte:
		return int8(n), nil
	case codeShort:
		return int16(n), nil
	case codeSmallInt:
		return int32(int8(n)), nil
	case codeInt:
		return int32(n), nil
	case codeSmallLong:
		return int64(int8(n)), nil
	case codeLong:
		return int64(n), nil
	case codeFloat:
		return math.Float32frombits(uint32(n)), nil
	case codeDouble:
		return math.Float64frombits(n), nil
	case codeChar:
		return Char(n), nil
	case codeTimestamp:
		return Timestamp(n), nil
	}
	return nil, fmt.Errorf("unknown format code 0x%02x", code)
}

func (d *decoder) variable(code byte) (any, error) {
	width := 1
	if code>>4 == 0xb {
		width = 4
	}
	n, err := d.number(width)
	if err != nil {
		return nil, err
	}
	b, err := d.take(n)
	if err != nil {
		return nil, err
	}
	switch code {
	case codeBin8, codeBin32:
		return append([]byte{}, b...), nil
	case codeStr8, codeStr32:
		if !utf8.Valid(b) {
			return nil, errors.New("string that is not UTF-8")
		}
		return string(b), nil
	case codeSym8, codeSym32:
		return Symbol(b), nil
	}
	return nil, fmt.Errorf("unknown format code 0x%02x", code)
}

// compound decodes a list, map or array. The items must fill its size exactly.
func (d *decoder) compound(code byte, depth int) (any, error) {
	width := 1
	if code>>4 == 0xd || code>>4 == 0xf {
		width = 4
	}
	size, err := d.number(width)
	if err != nil {
		return nil, err
	}
	b, err := d.take(size)
	if err != nil {
		return nil, err
	}
	in := decoder{b: b}
	count, err := in.number(width)
	if err != nil {
		return nil, err
	}
	// An item of a list takes a byte or more. Those of an array may take none;
	// as nothing needs an array of a million nulls, the same bound serves.
	if count > uint64(len(in.b)) {
		return nil, fmt.Errorf("%d items in %d bytes", count, len(in.b))
	}
	var v any
	switch code {
	case codeList8, codeList32:
		v, err = in.list(int(count), depth+1)
	case codeMap8, codeMap32:
		v, err = in.entries(int(count), depth+1)
	case codeArray8, codeArray32:
		v, err = in.items(int(count), depth+1)
	default:
		return nil, fmt.Errorf("unknown format code 0x%02x", code)
	}
	if err == nil && len(in.b) > 0 {
		err = fmt.Errorf("%d bytes are left in a list, map or array", len(in.b))
	}
	return v, err
}

func (d *decoder) list(count, depth int) (any, error) {
	l := make(List, 0, count)
	for range count {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, nil
}

func (d *decoder) entries(count, depth int) (any, error) {
	if count%2 != 0 {
		return nil, fmt.Errorf("map of %d items", count)
	}
	m := make(Map, 0, count/2)
	for range count / 2 {
		key, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		m = append(m, Entry{key, v})
	}
	return m, nil
}

func (d *decoder) items(count, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values nest deeper than %d", maxDepth)
	}
	code, err := d.number(1)
	if err != nil {
		return nil, err
	}
	a := Array{Code: byte(code), Items: make([]any, 0, count)}
	if code == codeDescribed {
		if a.Descriptor, err = d.value(depth); err != nil {
			return nil, err
		}
		if a.Descriptor == nil {
			return nil, errors.New("null as a descriptor")
		}
		if code, err = d.number(1); err != nil {
			return nil, err
		}
		if code == codeDescribed {
			return nil, errors.New("array of twice described values")
		}
		a.Code = byte(code)
	}
	for range count {
		v, err := d.body(a.Code, depth)
		if err != nil {
			return nil, err
		}
		a.Items = append(a.Items, v)
	}
	return a, nil
}
