package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"websocketbridge/signaler"
)

// errGarbage: what came is no JSON object. The text is for whoever sent it.
type errGarbage string

func (e errGarbage) Error() string { return string(e) }

// A reader splits a stream into JSON objects, by their braces: whether they are
// JSON is for signaler.Parse.
type reader struct {
	b *bufio.Reader
	// lines: no object spans lines. Only then may next be called after garbage.
	lines bool
	skip  bool // the rest of the line is part of the garbage
	buf   []byte
}

func newReader(r io.Reader, lines bool) *reader {
	return &reader{b: bufio.NewReaderSize(r, signaler.MaxSize), lines: lines}
}

// next returns the next object, or errGarbage, or why the stream ended: io.EOF
// where an object could have begun. It calls began after an object's first byte.
// The object is valid until the next call.
func (r *reader) next(began func()) ([]byte, error) {
	c, err := r.first()
	if err != nil {
		return nil, err
	}
	began()
	if c != '{' {
		return nil, r.garbage(c, "is not a JSON object")
	}
	r.buf = r.buf[:0]
	depth, quoted, escaped := 0, false, false
	for {
		if len(r.buf) == signaler.MaxSize {
			return nil, r.garbage(c, fmt.Sprintf("has more than %d bytes", signaler.MaxSize))
		}
		r.buf = append(r.buf, c)
		switch {
		case quoted && c < ' ':
			return nil, r.garbage(c, "has a string that does not end")
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return r.buf, nil
			}
		case c == '\n' && r.lines:
			return nil, r.garbage(c, "does not end on its line")
		}
		if c, err = r.b.ReadByte(); err != nil {
			if errors.Is(err, io.EOF) {
				err = errGarbage("ends in the middle")
			}
			return nil, err
		}
	}
}

// first returns the first byte that is no space.
func (r *reader) first() (byte, error) {
	for {
		c, err := r.b.ReadByte()
		if err != nil {
			return 0, err
		}
		if r.skip {
			r.skip = c != '\n'
			continue
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c, nil
		}
	}
}

// garbage is the error for what ended with c.
func (r *reader) garbage(c byte, text string) error {
	r.skip = c != '\n'
	return errGarbage(text)
}
