package amqp

import (
	"encoding/binary"
	"fmt"
	"math"
)

var be = binary.BigEndian

// AppendValue appends v in its shortest encoding. It fails on a Go type that
// stands for no AMQP type, and on an array whose items do not fit its code.
func AppendValue(b []byte, v any) ([]byte, error) {
	code, err := codeOf(v)
	if err != nil {
		return nil, err
	}
	if d, ok := v.(Described); ok {
		if b, err = AppendValue(append(b, codeDescribed), d.Descriptor); err != nil {
			return nil, err
		}
		return AppendValue(b, d.Value)
	}
	switch v := v.(type) {
	case List:
		return appendCompound(b, codeList8, codeList32, len(v), func(b []byte) ([]byte, error) { return appendAll(b, v) })
	case Map:
		return appendCompound(b, codeMap8, codeMap32, 2*len(v), func(b []byte) ([]byte, error) { return appendEntries(b, v) })
	case Array:
		return appendCompound(b, codeArray8, codeArray32, len(v.Items), func(b []byte) ([]byte, error) { return appendItems(b, v) })
	}
	return appendBody(append(b, code), code, v)
}

// codeOf returns the code of v's shortest encoding.
func codeOf(v any) (byte, error) {
	short := func(ok bool, yes, no byte) (byte, error) {
		if ok {
			return yes, nil
		}
		return no, nil
	}
	switch v := v.(type) {
	case nil:
		return codeNull, nil
	case bool:
		return short(v, codeTrue, codeFalse)
	case uint8:
		return codeUbyte, nil
	case uint16:
		return codeUshort, nil
	case uint32:
		if v == 0 {
			return codeUint0, nil
		}
		return short(v < 256, codeSmallUint, codeUint)
	case uint64:
		if v == 0 {
			return codeUlong0, nil
		}
		return short(v < 256, codeSmallUlong, codeUlong)
	case int8:
		return codeByte, nil
	case int16:
		return codeShort, nil
	case int32:
		return short(v == int32(int8(v)), codeSmallInt, codeInt)
	case int64:
		return short(v == int64(int8(v)), codeSmallLong, codeLong)
	case float32:
		return codeFloat, nil
	case float64:
		return codeDouble, nil
	case Char:
		return codeChar, nil
	case Timestamp:
		return codeTimestamp, nil
	case UUID:
		return codeUUID, nil
	case Decimal:
		for _, code := range []byte{codeDecimal32, codeDecimal64, codeDecimal128} {
			if len(v) == fixedWidth(code) {
				return code, nil
			}
		}
	case []byte:
		return short(len(v) < 256, codeBin8, codeBin32)
	case string:
		return short(len(v) < 256, codeStr8, codeStr32)
	case Symbol:
		return short(len(v) < 256, codeSym8, codeSym32)
	case List:
		return codeList32, nil
	case Map:
		return codeMap32, nil
	case Array:
		return codeArray32, nil
	case Described:
		return codeDescribed, nil
	}
	return 0, fmt.Errorf("amqp: no encoding for a %T", v)
}

// appendBody appends what follows the constructor. The code may be a wide one for
// a small value, as the items of an array share theirs.
func appendBody(b []byte, code byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		if code == codeNull {
			return b, nil
		}
	case bool:
		switch {
		case code == codeBool && v:
			return append(b, 1), nil
		case code == codeBool:
			return append(b, 0), nil
		case code == codeTrue && v, code == codeFalse && !v:
			return b, nil
		}
	case uint8:
		return appendUint(b, code, uint64(v), codeUbyte)
	case uint16:
		return appendUint(b, code, uint64(v), codeUshort)
	case uint32:
		return appendUint(b, code, uint64(v), codeUint0, codeSmallUint, codeUint)
	case uint64:
		return appendUint(b, code, v, codeUlong0, codeSmallUlong, codeUlong)
	case int8:
		return appendInt(b, code, int64(v), codeByte)
	case int16:
		return appendInt(b, code, int64(v), codeShort)
	case int32:
		return appendInt(b, code, int64(v), codeSmallInt, codeInt)
	case int64:
		return appendInt(b, code, v, codeSmallLong, codeLong)
	case float32:
		return appendUint(b, code, uint64(math.Float32bits(v)), codeFloat)
	case float64:
		return appendUint(b, code, math.Float64bits(v), codeDouble)
	case Char:
		return appendUint(b, code, uint64(v), codeChar)
	case Timestamp:
		return appendInt(b, code, int64(v), codeTimestamp)
	case UUID:
		if code == codeUUID {
			return append(b, v[:]...), nil
		}
	case Decimal:
		if len(v) == fixedWidth(code) {
			return append(b, v...), nil
		}
	case []byte:
		return appendVariable(b, code, codeBin8, codeBin32, string(v))
	case string:
		return appendVariable(b, code, codeStr8, codeStr32, v)
	case Symbol:
		return appendVariable(b, code, codeSym8, codeSym32, string(v))
	case List:
		if code == codeList0 && len(v) == 0 {
			return b, nil
		}
		return appendSized(b, code, codeList8, codeList32, len(v), func(b []byte) ([]byte, error) { return appendAll(b, v) })
	case Map:
		return appendSized(b, code, codeMap8, codeMap32, 2*len(v), func(b []byte) ([]byte, error) { return appendEntries(b, v) })
	case Array:
		return appendSized(b, code, codeArray8, codeArray32, len(v.Items), func(b []byte) ([]byte, error) { return appendItems(b, v) })
	}
	return nil, fmt.Errorf("amqp: a %T does not fit format code 0x%02x", v, code)
}

// fixedWidth returns how many bytes follow a constructor of fixed width; -1: of no
// fixed width.
func fixedWidth(code byte) int {
	switch code >> 4 {
	case 4:
		return 0
	case 5, 6, 7, 8, 9:
		return 1 << (code>>4 - 5)
	}
	return -1
}

func appendUint(b []byte, code byte, v uint64, allowed ...byte) ([]byte, error) {
	for _, a := range allowed {
		if width := fixedWidth(a); a == code && (width == 8 || v>>(8*width) == 0) {
			return appendWidth(b, width, v), nil
		}
	}
	return nil, fmt.Errorf("amqp: %d does not fit format code 0x%02x", v, code)
}

func appendInt(b []byte, code byte, v int64, allowed ...byte) ([]byte, error) {
	for _, a := range allowed {
		if width := fixedWidth(a); a == code && (width == 8 || v>>(8*width-1) == 0 || v>>(8*width-1) == -1) {
			return appendWidth(b, width, uint64(v)), nil
		}
	}
	return nil, fmt.Errorf("amqp: %d does not fit format code 0x%02x", v, code)
}

func appendWidth(b []byte, width int, v uint64) []byte {
	for i := width - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

func appendVariable(b []byte, code, narrow, wide byte, s string) ([]byte, error) {
	switch {
	case code == narrow && len(s) < 256:
		b = append(b, byte(len(s)))
	case code == wide:
		b = be.AppendUint32(b, uint32(len(s)))
	default:
		return nil, fmt.Errorf("amqp: %d bytes do not fit format code 0x%02x", len(s), code)
	}
	return append(b, s...), nil
}

// appendCompound appends constructor, size, count and what fill appends, with the
// narrow code if size and count fit.
func appendCompound(b []byte, narrow, wide byte, count int, fill func([]byte) ([]byte, error)) ([]byte, error) {
	if narrow == codeList8 && count == 0 {
		return append(b, codeList0), nil
	}
	start := len(b)
	b, err := fill(append(b, narrow, 0, 0))
	if err != nil {
		return nil, err
	}
	body := len(b) - start - 3
	if body+1 < 256 && count < 256 {
		b[start+1], b[start+2] = byte(body+1), byte(count)
		return b, nil
	}
	b = append(b, 0, 0, 0, 0, 0, 0)
	copy(b[start+9:], b[start+3:start+3+body])
	b[start] = wide
	be.PutUint32(b[start+1:], uint32(body+4))
	be.PutUint32(b[start+5:], uint32(count))
	return b, nil
}

// appendSized is appendCompound without a constructor, for the items of an array.
func appendSized(b []byte, code, narrow, wide byte, count int, fill func([]byte) ([]byte, error)) ([]byte, error) {
	body, err := fill(nil)
	if err != nil {
		return nil, err
	}
	switch {
	case code == narrow && len(body)+1 < 256 && count < 256:
		b = append(b, byte(len(body)+1), byte(count))
	case code == wide:
		b = be.AppendUint32(b, uint32(len(body)+4))
		b = be.AppendUint32(b, uint32(count))
	default:
		return nil, fmt.Errorf("amqp: %d items of %d bytes do not fit format code 0x%02x", count, len(body), code)
	}
	return append(b, body...), nil
}

func appendAll(b []byte, items []any) (_ []byte, err error) {
	for _, v := range items {
		if b, err = AppendValue(b, v); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendEntries(b []byte, m Map) (_ []byte, err error) {
	for _, e := range m {
		if b, err = AppendValue(b, e.Key); err != nil {
			return nil, err
		}
		if b, err = AppendValue(b, e.Value); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendItems appends the one constructor of an array, then its items.
func appendItems(b []byte, a Array) (_ []byte, err error) {
	if a.Descriptor != nil {
		if b, err = AppendValue(append(b, codeDescribed), a.Descriptor); err != nil {
			return nil, err
		}
	}
	b = append(b, a.Code)
	for _, v := range a.Items {
		if b, err = appendBody(b, a.Code, v); err != nil {
			return nil, err
		}
	}
	return b, nil
}
