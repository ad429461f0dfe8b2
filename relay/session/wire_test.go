package session

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

const goldenFile = "testdata/frames.txt"

// goldenFrames is one of every frame, with every field at a telling value.
var goldenFrames = []struct {
	name  string
	frame []byte
}{
	{"OPEN", appendOpen(nil, 1, openPayload{window: 256 << 10, target: []byte("ssh")})},
	{"OPEN_no_target", appendOpen(nil, 2, openPayload{})},
	{"OPEN_reserved", appendOpen(nil, 3, openPayload{window: 1, target: []byte("127.0.0.1:22"), rest: []byte{0xca, 0xfe}})},
	{"OPENED", appendCredit(nil, typeOpened, 1, 256<<10)},
	{"DATA", append(appendHeader(nil, typeData, 5, 1), "hello"...)},
	{"WINDOW", appendCredit(nil, typeWindow, 0x01020304, MaxCredit)},
	{"FIN", appendHeader(nil, typeFin, 0, 1)},
	{"STOP", appendHeader(nil, typeStop, 0, 1)},
	{"RESET", appendReason(nil, typeReset, 1, reason{"target_failed", "127.0.0.1:22 connection refused"})},
	{"RESET_empty", appendReason(nil, typeReset, 1, reason{})},
	{"PING", appendPing(nil, typePing, 0x0102030405060708)},
	{"PONG", appendPing(nil, typePong, 0x0102030405060708)},
	{"GOAWAY", appendReason(nil, typeGoAway, 0, reason{"draining", "restart at noon"})},
	{"RECLAIM", appendCredit(nil, typeReclaim, 1, 768<<10)},
	{"RETURN", appendCredit(nil, typeReturn, 1, 0)},
	{"EXTENSION", append(appendHeader(nil, 0x80, 3, 0xffffffff), 1, 2, 3)},
}

// What is on the wire does not change by accident.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, g := range goldenFrames {
		fmt.Fprintf(&got, "%s %s\n", g.name, hex.EncodeToString(g.frame))
	}
	if *update {
		if err := os.WriteFile(goldenFile, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	for _, g := range goldenFrames {
		again, rest, err := recode(g.frame)
		if err != nil || len(rest) != 0 || !bytes.Equal(again, g.frame) {
			t.Errorf("%s: re-encoded as %x, rest %x, %v", g.name, again, rest, err)
		}
	}
}

var errShort = errors.New("short")

// recode parses the first frame of b and encodes it again.
func recode(b []byte) (again, rest []byte, err error) {
	if len(b) < headerSize {
		return nil, nil, errShort
	}
	h := parseHeader(b)
	if err := h.check(); err != nil {
		return nil, nil, err
	}
	b = b[headerSize:]
	if len(b) < int(h.length) {
		return nil, nil, errShort
	}
	p, rest := b[:h.length], b[h.length:]
	switch h.typ {
	case typeOpen:
		o, err := parseOpen(p)
		return appendOpen(nil, h.stream, o), rest, err
	case typeOpened, typeWindow, typeReclaim, typeReturn:
		n, err := parseCredit(h.typ, p)
		return appendCredit(nil, h.typ, h.stream, n), rest, err
	case typeReset, typeGoAway:
		r, err := parseReason(p)
		return appendReason(nil, h.typ, h.stream, r), rest, err
	}
	again = make([]byte, headerSize)
	putHeader(again, h.typ, int(h.length), h.stream)
	return append(again, p...), rest, nil
}

func TestMakeReason(t *testing.T) {
	r := makeReason(strings.Repeat("c", 300), strings.Repeat("é", 600))
	if len(r.code) != maxCode || r.message != strings.Repeat("é", 512) {
		t.Errorf("got a code of %d and a message of %d bytes", len(r.code), len(r.message))
	}
	if r = makeReason("", "a"+strings.Repeat("é", 600)); len(r.message) != MaxMessage-1 {
		t.Errorf("got %d bytes; a rune was cut", len(r.message))
	}
	if r = makeReason("", strings.Repeat("\x80", 2000)); r.message != "" {
		t.Errorf("got %q", r.message)
	}
	if _, _, err := recode(appendReason(nil, typeReset, 1, makeReason(strings.Repeat("c", 300), strings.Repeat("m", 2000)))); err != nil {
		t.Errorf("the longest reason does not parse: %v", err)
	}
}
