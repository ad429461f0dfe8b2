package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
)

func TestParseForward(t *testing.T) {
	for _, tt := range []struct {
		spec, local, target string
		free                bool
		fault               string // part of it
	}{
		{spec: "web", local: "127.0.0.1:0", target: "web", free: true},
		{spec: "8080:web", local: "127.0.0.1:8080", target: "web"},
		{spec: "0:web", local: "127.0.0.1:0", target: "web", free: true},
		{spec: "65535:web", local: "127.0.0.1:65535", target: "web"},
		{spec: "localhost:8080:web", local: "localhost:8080", target: "web"},
		{spec: "0.0.0.0:8080:web", local: "0.0.0.0:8080", target: "web"},
		{spec: "[::1]:8080:web", local: "[::1]:8080", target: "web"},
		{spec: "[::1]:0:web", local: "[::1]:0", target: "web", free: true},
		{spec: "[fe80::1%eth0]:8080:web", local: "[fe80::1%eth0]:8080", target: "web"},
		// Targets that are HOST:PORT themselves.
		{spec: "10.0.0.5:80", local: "127.0.0.1:0", target: "10.0.0.5:80", free: true},
		{spec: "printer.plant:631", local: "127.0.0.1:0", target: "printer.plant:631", free: true},
		{spec: "8080:10.0.0.5:80", local: "127.0.0.1:8080", target: "10.0.0.5:80"},
		{spec: "[fd00::5]:80", local: "127.0.0.1:0", target: "[fd00::5]:80", free: true},
		{spec: "8080:[fd00::5]:80", local: "127.0.0.1:8080", target: "[fd00::5]:80"},
		{spec: "127.0.0.1:8080:10.0.0.5:80", local: "127.0.0.1:8080", target: "10.0.0.5:80"},
		{spec: "[::1]:8080:[fd00::5]:80", local: "[::1]:8080", target: "[fd00::5]:80"},
		// A name in front of a port is never a local address: it is a target.
		{spec: "plc:8080:web", local: "127.0.0.1:0", target: "plc:8080:web", free: true},

		{spec: "", fault: "is empty"},
		{spec: "8080:", fault: "no target"},
		{spec: "127.0.0.1:8080:", fault: "no target"},
		{spec: ":web", fault: "starts its target with a colon"},
		{spec: "8080::80", fault: "starts its target with a colon"},
		{spec: "web:", fault: "ends with a colon"},
		{spec: "65536:web", fault: "65535"},
		{spec: "127.0.0.1:99999:web", fault: "65535"},
		{spec: "99999999999999999999:web", fault: "65535"},
		{spec: "a b", fault: "a space"},
		{spec: "web,ssh", fault: "a comma"},
		{spec: strings.Repeat("x", 129), fault: "129 bytes"},
	} {
		got, err := parseForward(tt.spec)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%q: got %v, want %q", tt.spec, err, tt.fault)
			}
			continue
		}
		if want := (forward{tt.local, tt.free, tt.target}); err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", tt.spec, got, err, want)
		}
	}
}

// Every code that can refuse a requester has an exit code of its class.
func TestEveryCodeHasAnExit(t *testing.T) {
	for _, o := range wire.Outcomes() {
		device := o.Code == wire.BadToken || o.Code == wire.TokenProof || o.Code == wire.BridgeGone
		if o.Status != 0 && !device && codeExits[o.Code] == 0 {
			t.Errorf("%s has no exit code", o.Code)
		}
	}
}

func TestExplain(t *testing.T) {
	if f := explain(nil); f != (failure{}) {
		t.Errorf("nil: %+v", f)
	}
	for _, tt := range []struct {
		name string
		err  error
		exit int
		code string
	}{
		{"interrupted", fmt.Errorf("dial: %w", errInterrupted), exitInterrupted, ""},
		{"anything", errors.New("disk full"), exitOther, ""},
		{"usage", usagef("no"), exitUsage, "usage"},
		{"a newer relay's code", dialError{&client.Error{Code: "too_new", Detail: "x"}, false, false}, exitOther, "too_new"},
		{"an open bridge's code", lostError{&client.Error{Code: wire.Draining, Close: 1012, Detail: "x"}, "id"}, exitLost, "draining"},
		{"a device's own close", lostError{&client.Error{Close: 4000, Detail: "x"}, "id"}, exitLost, ""},
		{"lost", lostError{io.ErrUnexpectedEOF, "id"}, exitLost, "lost"},
		// The library's own time-out must not pass for the user's Ctrl-C.
		{"cancelled elsewhere", lostError{context.Canceled, "id"}, exitLost, "lost"},
	} {
		if f := explain(tt.err); f.Exit != tt.exit || f.Code != tt.code {
			t.Errorf("%s: got %+v, want exit %d, code %q", tt.name, f, tt.exit, tt.code)
		}
	}
}

// Words from elsewhere neither steer the terminal nor pass for lines of ours.
func TestWordsFromElsewhere(t *testing.T) {
	var out strings.Builder
	u := &ui{err: &out}
	u.exit(dialError{&client.Error{Code: wire.DeviceRefused, Detail: "no\nhint: \x1b]0;x\x07run this\rnow", BridgeID: "a\nb"}, false, false})
	if got, want := out.String(), "bridge: no hint: ]0;xrun this now\nbridge ID: a b\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCutRune(t *testing.T) {
	const text = "aé€𝄞z"
	for i := range len(text) + 1 {
		p := []byte(text[:i])
		cut := cutRune(p)
		if !utf8.Valid(p[:i-cut]) || cut > 0 && utf8.FullRune(p[i-cut:]) {
			t.Errorf("%q: cut %d", p, cut)
		}
	}
	if cut := cutRune([]byte("caf\xe9 ")); cut != 0 {
		t.Errorf("bytes that are no text: cut %d", cut)
	}
}
