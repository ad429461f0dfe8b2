package handoff_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
)

func TestReader(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", signaler.MaxSize) + `"}`
	full := `{"a":"` + strings.Repeat("x", signaler.MaxSize-8) + `"}`
	for _, tt := range []struct {
		name, in      string
		socket, lines []string // nil: the same
	}{
		{"nothing", "", []string{}, nil},
		{"space", " \r\n\t\n", []string{}, nil},
		{"one", `{"a":1}`, []string{`{"a":1}`}, nil},
		{"one and its newline", "{\"a\":1}\r\n", []string{`{"a":1}`}, nil},
		{"two lines", "{\"a\":1}\n\n{\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}, nil},
		{"two on a line", `{"a":1}{"b":2}`, []string{`{"a":1}`, `{"b":2}`}, nil},
		{"braces in strings", `{"a":"}{\"}\\"}{"b":{"c":[{}]}}`, []string{`{"a":"}{\"}\\"}`, `{"b":{"c":[{}]}}`}, nil},
		{"as long as may be", full + "\n", []string{full}, nil},
		{"over several lines", "{\n  \"a\": 1\n}\n", []string{"{\n  \"a\": 1\n}"}, []string{"!does not end on its line", "!is not a JSON object", "!is not a JSON object"}},
		{"a word", "hello\n{\"a\":1}\n", []string{"!is not a JSON object"}, []string{"!is not a JSON object", `{"a":1}`}},
		{"a list", `[{"a":1}]` + "\n", []string{"!is not a JSON object"}, nil},
		{"too long", long + "\n{\"a\":1}\n", []string{"!has more than 4096 bytes"}, []string{"!has more than 4096 bytes", `{"a":1}`}},
		{"no end", `{"a":`, []string{"!ends in the middle"}, nil},
		{"a string without an end", "{\"a\":\"\n{\"a\":1}\n", []string{"!has a string that does not end"}, []string{"!has a string that does not end", `{"a":1}`}},
		{"garbage behind", "{\"a\":1} x {\"b\":2}\n{\"c\":3}\n", []string{`{"a":1}`, "!is not a JSON object"}, []string{`{"a":1}`, "!is not a JSON object", `{"c":3}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.lines == nil {
				tt.lines = tt.socket
			}
			for lines, want := range map[bool][]string{false: tt.socket, true: tt.lines} {
				for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
					got, err := handoff.Split(r, lines)
					if !slices.Equal(got, want) {
						t.Errorf("lines %t: got %q, want %q", lines, got, want)
					}
					if err != nil && !errors.Is(err, io.EOF) {
						t.Error(err)
					}
				}
			}
		})
	}
	broken := errors.New("broken")
	if got, err := handoff.Split(io.MultiReader(strings.NewReader(`{"a":1}{"b"`), iotest.ErrReader(broken)), true); len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("a stream that breaks: %q, %v", got, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"", "\n", `{"acceptUrl":"wss://r/a"}`, "{\"a\":1}\n{\"b\":2}\n", "{\"a\":\"\n", `{"a":"\"}"}`, "x\n{}", "{{]}", `{"a":[1,{"b":"\\"}]}`, "\xef\xbb\xbf{}", "{\x00}",
	} {
		f.Add(s)
	}
	const good = `{"acceptUrl":"wss://r/a"}`
	f.Fuzz(func(t *testing.T, s string) {
		for _, lines := range []bool{false, true} {
			got, err := handoff.Split(strings.NewReader(s), lines)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("the stream ends well, and the reader says %v", err)
			}
			slow, _ := handoff.Split(iotest.OneByteReader(strings.NewReader(s)), lines)
			if !slices.Equal(got, slow) {
				t.Fatalf("it depends on how the bytes come: %q, %q", got, slow)
			}
			for _, object := range got {
				if object[0] != '!' && (object[0] != '{' || len(object) > signaler.MaxSize || lines && strings.Contains(object, "\n") || !strings.Contains(s, object)) {
					t.Fatalf("%q is no part of %q", object, s)
				}
			}
		}
		// Whatever came before, a line of its own is read.
		got, _ := handoff.Split(strings.NewReader(s+"\n"+good), true)
		if len(got) == 0 || got[len(got)-1] != good {
			t.Fatalf("after %q a good line is not read: %q", s, got)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"accepted":true}`))
	f.Add([]byte(`{"code":"busy","message":"<later>"}`))
	f.Add([]byte(`{"accepted":true,"code":"busy"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		no, err := handoff.ParseAnswer(b)
		if err != nil {
			if len(b) > 60 && strings.Contains(err.Error(), string(b)) {
				t.Fatal("the error quotes the answer")
			}
			return
		}
		again, err := handoff.ParseAnswer(handoff.Answer(no))
		if err != nil || (no == nil) != (again == nil) || no != nil && *no != *again {
			t.Fatalf("%q: %v, and written and read again %v, %v", b, no, again, err)
		}
	})
}
