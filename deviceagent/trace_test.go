package deviceagent_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// What the agent sends is part of the signal's trace, if that has one.
func TestTraceParent(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, tt := range []struct{ in, want string }{{parent, parent}, {"", ""}, {"00-SECRET", ""}, {parent + "\r\nX-More: 1", ""}} {
		for _, refuses := range []bool{false, true} {
			var got []string
			d := &desk{answer: func(w http.ResponseWriter, r *http.Request) {
				got = append(got, strings.Join(r.Header.Values(wire.HeaderTraceParent), "+")+r.Header.Get("X-More"))
				w.WriteHeader(http.StatusGone)
			}}
			log := rejecting(t, d, nil, func(h func(*signaler.Signal, bool) *signaler.Refusal) {
				s := bad()
				if !refuses {
					s.Target = "echo"
				}
				s.TraceParent = tt.in
				if no := h(s, false); (no != nil) != refuses {
					t.Errorf("answered %v", no)
				}
			})
			if !slices.Equal(got, []string{tt.want}) {
				t.Errorf("%q, refuses %v: sent %q", tt.in, refuses, got)
			}
			if strings.Contains(log, "SECRET") || strings.Contains(log, "X-More") {
				t.Errorf("log:\n%s", log)
			}
		}
	}
}
