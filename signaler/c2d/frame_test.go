package c2d

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/Azure/go-amqp"
)

// unhex reads hex with spaces and comments in parentheses.
func unhex(s string) []byte {
	for {
		before, rest, ok := strings.Cut(s, "(")
		if !ok {
			break
		}
		_, after, _ := strings.Cut(rest, ")")
		s = before + after
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// testRewriter maps the hub's channel 5 to our channel 1, where 7 transfers went.
func testRewriter(ends *[]string) *rewriter {
	return &rewriter{
		ours: map[uint16]uint16{5: 1},
		next: func(channel uint16) uint32 { return map[uint16]uint32{1: 7}[channel] },
		ended: func(code byte, channel uint16, err *amqp.Error) {
			if ends != nil {
				*ends = append(*ends, hex.EncodeToString([]byte{code, byte(channel)})+" "+linkError(err).Error())
			}
		},
	}
}

// short encodes a performative with its fields in hex, in a list's short form.
func short(t *testing.T, code byte, values string) []byte {
	t.Helper()
	b, count := unhex(values), 0
	for rest := b; len(rest) > 0; count++ {
		n := width(rest)
		if n == 0 {
			t.Fatalf("no value: %x", rest)
		}
		rest = rest[n:]
	}
	return frame(5, append([]byte{0, 0x53, code, 0xc0, byte(len(b) + 1), byte(count)}, b...))
}

// frame makes a frame on the hub's channel.
func frame(channel uint16, body []byte) []byte {
	b := append([]byte{0, 0, 0, 0, 2, 0, byte(channel >> 8), byte(channel)}, body...)
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	return b
}

// The state of a message, in hex.
const (
	stateReceived = "005323 c0030243 44"
	stateAccepted = "00532445"
	stateReleased = "00532645"
)

func TestRewrite(t *testing.T) {
	same := []byte("as it is")
	long := frame(5, unhex("005313 d000000009 00000004 40 52ff 43 43"))
	mended := unhex("0000001d 02000005 005313 d00000000d 00000004 7000000007 52ff 43 43")
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"protocol header", unhex("414d5150 00010000"), same},
		{"SASL header", unhex("414d5150 03010000"), same},
		{"heartbeat", unhex("00000008 02000000"), same},
		{"open", short(t, 0x10, "a10168"), same},
		{"transfer with a payload", frame(5, unhex("005314 c0030243 43 005375 a00161")), same},
		{"flow with next-incoming-id", short(t, codeFlow, "5209 52ff 43 43"), same},
		{"flow without", short(t, codeFlow, "40 52ff 43 43"), mended},
		{"flow without, long list", long, mended},
		{
			"flow without, of a link", short(t, codeFlow, "40 52ff 43 43 43 43 5264"),
			unhex("00000021 02000005 005313 d000000011 00000007 7000000007 52ff 43 43 43 43 5264"),
		},
		{"flow on a channel without a session", append(short(t, codeFlow, "40 52ff 43 43")[:7], append([]byte{6}, short(t, codeFlow, "40 52ff 43 43")[8:]...)...), same},
		{"accepted", short(t, codeDisposition, "41 43 43 41"+stateAccepted), same},
		{"accepted, not settled", short(t, codeDisposition, "41 43 43 42"+stateAccepted), same},
		{"accepted, long descriptor", short(t, codeDisposition, "41 43 43 41 00800000000000000024 45"), same},
		{"of what the hub sent", short(t, codeDisposition, "42 43 43 41"+stateReleased), same},
		{"received", short(t, codeDisposition, "41 43 43 42"+stateReceived), nil},
		{"nothing yet", short(t, codeDisposition, "41 43 43 42"), nil},
		{"rejected and settled", short(t, codeDisposition, "41 43 43 41 005325 c00b01 00531d c00501 a3026162"), same},
	} {
		if n, err := unit(tt.in); n != len(tt.in) || err != nil {
			t.Fatalf("%s: the test's unit is not one: %d of %d bytes, %v", tt.name, n, len(tt.in), err)
		}
		want := tt.want
		if bytes.Equal(want, same) {
			want = tt.in
		}
		if got, err := testRewriter(nil).rewrite(nil, tt.in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got  %x, %v\nwant %x", tt.name, got, err, want)
		}
	}
}

// TestOutcomes: every outcome but accepted becomes a settled rejection with an
// error.
func TestOutcomes(t *testing.T) {
	for _, tt := range []struct{ name, state, condition string }{
		{"released", "41" + stateReleased, condReleased},
		{"released, not settled", "42" + stateReleased, condReleased},
		{"modified", "41 005327 c0030241 40", condModified},
		{"modified, not settled", "42 00532745", condModified},
		{"rejected without an error", "41 00532545", condRejected},
		{"rejected with null", "41 005325 c0020140", condRejected},
		{"rejected, not settled", "42 005325 c00b01 00531d c00501 a3026162", "ab"},
		{"settled without an outcome", "41 40", condNoOutcome},
		{"settled, and the list ends", "41", condNoOutcome},
		{"settled, received", "41" + stateReceived, condNoOutcome},
		{"settled, an outcome nobody knows", "41 00533545", condNoOutcome},
		{"true in two bytes", "5601" + stateReleased, condReleased},
	} {
		got, err := testRewriter(nil).rewrite(nil, short(t, codeDisposition, "41 5203 5204"+tt.state))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		checkRejected(t, tt.name, got, tt.condition)
	}
}

// checkRejected checks that u settles deliveries 3 and 4 as rejected.
func checkRejected(t *testing.T, name string, u []byte, condition string) {
	t.Helper()
	if n, err := unit(u); n != len(u) || err != nil || performative(u) != codeDisposition || channel(u) != 5 {
		t.Errorf("%s: got %x, %v", name, u, err)
		return
	}
	list, ok := fields(u[headerSize+3:])
	if !ok || len(list) != 5 || !isTrue(list[0]) || !bytes.Equal(list[1], []byte{0x52, 3}) || !bytes.Equal(list[2], []byte{0x52, 4}) || !isTrue(list[3]) {
		t.Errorf("%s: got %x", name, list)
		return
	}
	code, state, ok := described(list[4])
	if e := remoteError(field(state, 0)); !ok || code != codeRejected || e == nil || e.Condition != amqp.ErrCond(condition) {
		t.Errorf("%s: got %x, want a rejection with %s", name, list[4], condition)
	}
}

func TestRewriteErrors(t *testing.T) {
	for name, in := range map[string][]byte{
		"flow of a link without credit":     short(t, codeFlow, "43 43 43 43 43"),
		"flow of a link with null credit":   short(t, codeFlow, "43 43 43 43 43 43 40"),
		"flow that is no list":              frame(5, unhex("005313 40")),
		"flow that is cut":                  frame(5, unhex("005313 c00704 5209 52ff 43")),
		"disposition of no delivery":        short(t, codeDisposition, "41 40"),
		"disposition of an empty list":      frame(5, unhex("005315 45")),
		"disposition of everything":         short(t, codeDisposition, "41 43 70ffffffff"),
		"disposition in an extended header": unhex("0000000c 03000005 005315 40"),
		"disposition that says it is SASL":  unhex("0000000c 02010005 005315 40"),
		"disposition that counts wrong":     frame(5, unhex("005315 c00906 41 43 43 41"+stateAccepted)),
		"disposition with a nested type":    frame(5, unhex("005315 c00a05 41 43 43 41 00 005326 45")),
	} {
		got, err := testRewriter(nil).rewrite(nil, in)
		if !errors.Is(err, errProtocol) || got != nil {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

// TestEnds: the hub's goodbyes pass, and are told.
func TestEnds(t *testing.T) {
	e := append([]byte{0, 0x53, codeError}, appendList(nil, appendText(nil, 0xb3, "amqp:link:detach-forced"), appendText(nil, 0xb1, "Server Busy"))...)
	var ends []string
	r := testRewriter(&ends)
	for _, body := range [][]byte{
		appendList([]byte{0, 0x53, codeDetach}, []byte{0x43}, []byte{0x41}, e),
		appendList([]byte{0, 0x53, codeDetach}, []byte{0x43}, []byte{0x41}),
		appendList([]byte{0, 0x53, codeEnd}, e),
		appendList([]byte{0, 0x53, codeClose}),
	} {
		in := frame(5, body)
		if got, err := r.rewrite(nil, in); err != nil || !bytes.Equal(got, in) {
			t.Errorf("got %x, %v", got, err)
		}
	}
	want := []string{
		"1601 hub is unavailable: amqp:link:detach-forced: Server Busy", "1601 hub is unavailable: no reason given",
		"1701 hub is unavailable: amqp:link:detach-forced: Server Busy", "1801 hub is unavailable: no reason given",
	}
	if strings.Join(ends, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q\nwant %q", ends, want)
	}
}

func TestBeginMapsChannels(t *testing.T) {
	r := testRewriter(nil)
	in := frame(9, appendList([]byte{0, 0x53, codeBegin}, []byte{0x60, 0, 3}, []byte{0x43}, []byte{0x52, 9}, []byte{0x52, 9}))
	if got, err := r.rewrite(nil, in); err != nil || !bytes.Equal(got, in) || r.ours[9] != 3 {
		t.Errorf("got %x, %v, channel %d", got, err, r.ours[9])
	}
}

func TestUnit(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int
		bad  bool
	}{
		{"", 0, false}, {"00000008 020000", 0, false}, {"00000008 02000000", 8, false}, {"00000008 02000000 ff", 8, false},
		{"00000009 02000000", 0, false}, {"00010000 02000000", 0, false},
		{"00010001 02000000", 0, true}, {"00000007 02000000", 0, true}, {"ffffffff 02000000", 0, true}, {"00000000 02000000", 0, true},
		{"414d5150 00010000 00", 8, false}, {"414d51", 0, false},
	} {
		if got, err := unit(unhex(tt.in)); got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%s: got %d, %v", tt.in, got, err)
		}
	}
}

func TestTally(t *testing.T) {
	stream := bytes.Join([][]byte{
		unhex("414d5150 03010000"), unhex("414d5150 00010000"),
		frame(0, unhex("005310 45")), frame(1, unhex("005311 45")), frame(1, append(unhex("005314 45"), make([]byte, 5000)...)),
		unhex("00000008 02000000"), frame(2, unhex("005311 45")), frame(1, unhex("005314 45")), unhex("00000009 02000000 00"),
		frame(2, unhex("005314 45")), frame(1, unhex("005317 45")), frame(1, unhex("005311 45")), frame(1, unhex("005314 45")),
	}, nil)
	const want = "100 111 141 112 141 142 171 111 141 "
	for _, size := range []int{1, 2, 3, 7, 8, 11, 12, 4096, len(stream)} {
		var got strings.Builder
		w := tally{each: func(code byte, channel uint16) {
			got.WriteString(hex.EncodeToString([]byte{code}) + string(rune('0'+channel)) + " ")
		}}
		for p := stream; len(p) > 0; {
			n := min(size, len(p))
			w.write(p[:n])
			p = p[n:]
		}
		if got.String() != want {
			t.Errorf("in pieces of %d: got %q, want %q", size, got.String(), want)
		}
	}
}
