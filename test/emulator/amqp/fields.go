package amqp

import "fmt"

// fields reads the list of a composite type, field by field. The first fault stays
// in err, and later reads return zero.
type fields struct {
	of   string // type name, for errors
	list List
	next int
	err  error
}

// read returns the next field. ok is false if it is absent or null.
func read[T any](f *fields, name string) (v T, ok bool) {
	if f.err != nil || f.next >= len(f.list) || f.list[f.next] == nil {
		f.next++
		return v, false
	}
	v, ok = f.list[f.next].(T)
	if !ok {
		f.err = fmt.Errorf("field %s of %s is a %T", name, f.of, f.list[f.next])
	}
	f.next++
	return v, ok
}

// value reads a field that may be null, for zero.
func value[T any](f *fields, name string) T {
	v, _ := read[T](f, name)
	return v
}

// optional reads a field for which null is not zero.
func optional[T any](f *fields, name string) *T {
	if v, ok := read[T](f, name); ok {
		return &v
	}
	return nil
}

// needed reads a mandatory field.
func needed[T any](f *fields, name string) T {
	v, ok := read[T](f, name)
	if !ok && f.err == nil {
		f.err = fmt.Errorf("field %s of %s is missing", name, f.of)
	}
	return v
}

// symbols reads a field of many symbols, where one may stand alone.
func symbols(f *fields, name string) (out []Symbol) {
	v, ok := read[any](f, name)
	if !ok {
		return nil
	}
	switch v := v.(type) {
	case Symbol:
		return []Symbol{v}
	case Array:
		for _, item := range v.Items {
			s, ok := item.(Symbol)
			if !ok {
				f.err = fmt.Errorf("field %s of %s holds a %T", name, f.of, item)
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	f.err = fmt.Errorf("field %s of %s is a %T", name, f.of, v)
	return nil
}

// trim cuts the nulls at the end: clients count the fields of what they know.
func trim(l List) List {
	for len(l) > 0 && l[len(l)-1] == nil {
		l = l[:len(l)-1]
	}
	return l
}

// orNull writes the zero value as null.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// pointed writes nil as null.
func pointed[T any](v *T) any {
	if v == nil {
		return nil
	}
	return *v
}

// bytesOrNull writes nil, but not the empty slice, as null.
func bytesOrNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// mapOrNull writes the empty map as null.
func mapOrNull(m Map) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

// symbolsOrNull writes no symbols as null.
func symbolsOrNull(s []Symbol) any {
	if len(s) == 0 {
		return nil
	}
	return Symbols(s...)
}

// composite returns the fields of a described list, and which type it is.
func composite(v any) (code uint64, list List, err error) {
	d, ok := v.(Described)
	if !ok {
		return 0, nil, fmt.Errorf("a %T where a described list should be", v)
	}
	list, ok = d.Value.(List)
	if !ok {
		return 0, nil, fmt.Errorf("a described %T where a described list should be", d.Value)
	}
	code, err = descriptorCode(d.Descriptor)
	return code, list, err
}

// descriptorCode reads a descriptor, which may also be spelled out.
func descriptorCode(v any) (uint64, error) {
	switch v := v.(type) {
	case uint64:
		return v, nil
	case Symbol:
		if code, ok := descriptorNames[v]; ok {
			return code, nil
		}
		return 0, fmt.Errorf("unknown descriptor %q", v)
	}
	return 0, fmt.Errorf("a %T as descriptor", v)
}
