package wire_test

import (
	"regexp"
	"strings"
	"testing"

	"websocketbridge/relay/wire"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" // the example of W3C Trace Context

func TestTraceID(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"the standard's example", traceparent, "4bf92f3577b34da6a3ce929d0e0e4736"},
		{"not sampled", strings.TrimSuffix(traceparent, "01") + "00", "4bf92f3577b34da6a3ce929d0e0e4736"},
		{"flags to come", strings.TrimSuffix(traceparent, "01") + "ff", "4bf92f3577b34da6a3ce929d0e0e4736"},
		{"empty", "", ""},
		{"a later version", "01" + traceparent[2:], ""},
		{"the forbidden version", "ff" + traceparent[2:], ""},
		{"more behind", traceparent + "-x", ""},
		{"a space", traceparent + " ", ""},
		{"upper case", strings.ToUpper(traceparent), ""},
		{"no trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", ""},
		{"no span", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", ""},
		{"cut", traceparent[:54], ""},
		{"not hex", strings.Replace(traceparent, "4b", "4g", 1), ""},
		{"a digit of another script", strings.Replace(traceparent, "4bf", "\u0664b", 1), ""},
		{"lines", strings.Replace(traceparent, "4b", "\r\n", 1), ""},
		{"one ID shorter, the other longer", "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := wire.TraceID(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzTraceID: what is taken is what the standard's grammar says, and is safe in a header.
func FuzzTraceID(f *testing.F) {
	f.Add(traceparent)
	f.Add("00-00000000000000000000000000000000-0000000000000000-00")
	f.Add("cc" + traceparent[2:] + "-what-the-future-brings")
	form := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	zeros := regexp.MustCompile(`^00-(0{32}-|[0-9a-f]{32}-0{16}-)`)
	f.Fuzz(func(t *testing.T, s string) {
		got := wire.TraceID(s)
		if good := form.MatchString(s) && !strings.Contains(s, "\n") && !zeros.MatchString(s); good != (got != "") {
			t.Fatalf("%q: got %q", s, got)
		}
		if got != "" && got != s[3:35] {
			t.Errorf("%q: got %q", s, got)
		}
	})
}
