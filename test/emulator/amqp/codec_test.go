package amqp

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		v    any
		want string // hex; "": only that it comes back
	}{
		{nil, "40"}, {true, "41"}, {false, "42"},
		{uint8(7), "5007"}, {uint16(0x102), "600102"},
		{uint32(0), "43"}, {uint32(255), "52ff"}, {uint32(256), "7000000100"},
		{uint64(0), "44"}, {uint64(1), "5301"}, {uint64(256), "800000000000000100"},
		{int8(-1), "51ff"}, {int16(-2), "61fffe"},
		{int32(200), "71000000c8"}, {int32(-1), "54ff"}, {int32(127), "547f"}, {int32(-129), "71ffffff7f"},
		{int64(-128), "5580"}, {int64(128), "810000000000000080"},
		{float32(1), "723f800000"}, {1.0, "823ff0000000000000"}, {math.Inf(-1), ""},
		{Char('é'), "73000000e9"}, {Timestamp(1), "830000000000000001"}, {Timestamp(-6795364578871), ""},
		{UUID{1, 15: 2}, "9801000000000000000000000000000002"},
		{Decimal("1234"), "7431323334"}, {Decimal("12345678"), ""}, {Decimal("1234567812345678"), ""},
		{[]byte{}, "a000"}, {[]byte("ab"), "a0026162"}, {[]byte(long), ""},
		{"", "a100"}, {"é", "a102c3a9"}, {long, ""},
		{Symbol("a"), "a30161"}, {Symbol(long), ""},
		{List{}, "45"}, {List{true, "x"}, "c0050241a10178"}, {List{long, List{List{}}}, ""},
		{Map{}, "c10100"}, {Map{{"k", uint32(0)}}, "c10502a1016b43"}, {Map{{Symbol(long), nil}}, ""},
		{Symbols("a", "bc"), "e00702a301610262 63"}, {Symbols(Symbol(long)), ""},
		{Array{Code: codeSmallUint, Items: []any{uint32(1), uint32(2)}}, "e00402520102"},
		{Array{Code: codeBool, Items: []any{true, false}}, "e00402560100"},
		{Array{Code: codeList8, Items: []any{List{"a"}, List{}}}, ""},
		{Array{Code: codeMap32, Items: []any{Map{{"a", "b"}}}}, ""},
		{Array{Code: codeArray8, Items: []any{Symbols("x")}}, ""},
		{Array{Code: codeSmallUint, Descriptor: uint64(5), Items: []any{uint32(9)}}, ""},
		{Described{uint64(0x24), List{}}, "00532445"}, {Described{Symbol("x"), Described{"y", "z"}}, ""},
	} {
		b, err := AppendValue(nil, tt.v)
		if err != nil {
			t.Errorf("%#v: %v", tt.v, err)
			continue
		}
		if want := strings.ReplaceAll(tt.want, " ", ""); want != "" && hex.EncodeToString(b) != want {
			t.Errorf("%#v is %x, want %s", tt.v, b, want)
		}
		got, rest, err := ReadValue(append(b, 0xff))
		if err != nil || len(rest) != 1 || !reflect.DeepEqual(got, tt.v) {
			t.Errorf("%#v comes back as %#v, %d bytes and %v", tt.v, got, len(rest), err)
		}
		for n := range b {
			if _, _, err := ReadValue(b[:n]); err == nil {
				t.Errorf("%#v: %d of its %d bytes are a value", tt.v, n, len(b))
			}
		}
	}
	// Encodings that are not the shortest.
	for in, want := range map[string]any{"5601": true, "5600": false, "7000000001": uint32(1), "800000000000000001": uint64(1), "b100000001": nil, "b10000000161": "a",
		"d00000000400000000": List{}, "d10000000400000000": Map{}, "71000000c8": int32(200), "810000000000000001": int64(1)} {
		b, _ := hex.DecodeString(in)
		if got, _, err := ReadValue(b); (err == nil) != (want != nil) || want != nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v", in, got, err)
		}
	}
}

func TestValuesThatAreNone(t *testing.T) {
	for name, in := range map[string]string{
		"unknown code": "46", "unknown code of one byte": "5700", "unknown code of 16 bytes": "9900000000000000000000000000000000", "unknown variable": "a20161", "reserved": "10",
		"boolean": "5602", "not UTF-8": "a101ff", "list too long": "c0030540", "list too short": "c003014040", "map of one": "c1020140",
		"a billion items": "d00000000440000000", "a billion nulls": "f0000000054000000040", "array without a type": "e00100", "array of twice described": "e0040000420042",
		"size beyond the end": "d0ffffffff00000000", "string beyond the end": "b1ffffffff", "described nothing": "0040", "null descriptor in an array": "e004010040 52 01",
		"deep": strings.Repeat("c0ff01", 200), "deeply described": strings.Repeat("00", 100),
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(in, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if v, rest, err := ReadValue(b); err == nil {
			t.Errorf("%s: got %#v and %d bytes", name, v, len(rest))
		}
	}
	for name, v := range map[string]any{
		"int": 1, "struct": struct{}{}, "decimal": Decimal("12345"), "in a list": List{1}, "in a map": Map{{"a", 1}}, "as a key": Map{{1, "a"}}, "in an array": Array{Code: codeInt, Items: []any{1}},
		"array of mixed types": Array{Code: codeInt, Items: []any{"x"}}, "too large for the code": Array{Code: codeSmallInt, Items: []any{int32(200)}},
		"too long for the code": Array{Code: codeSym8, Items: []any{Symbol(strings.Repeat("x", 256))}}, "as a descriptor": Described{1, nil},
	} {
		if b, err := AppendValue(nil, v); err == nil {
			t.Errorf("%s: got %x", name, b)
		}
	}
}

// TestAllocation: what a stranger sends decides, in proportion, what is allocated.
func TestAllocation(t *testing.T) {
	in := []byte{codeArray32, 0, 1, 0, 0, 0, 0, 0xff, 0xf0, codeArray32}
	in = append(in, bytes.Repeat([]byte{0, 0, 0x10, 0, 0, 0, 0xf, 0, codeList0}, 1<<16/9)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ReadValue(in)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64*uint64(len(in)) {
		t.Errorf("%d bytes in made %d bytes", len(in), n)
	}
}

func TestMessages(t *testing.T) {
	n, ttl, priority := uint32(5), uint32(1000), uint8(4)
	for _, m := range []*Message{
		{},
		{Value: "token"},
		{Data: [][]byte{{}, []byte("x")}},
		{Sequences: []List{{"a"}, {}}},
		{
			Header:              &Header{Durable: true, Priority: &priority, TTL: &ttl, FirstAcquirer: true, DeliveryCount: 2},
			DeliveryAnnotations: Map{{Symbol("x-opt"), "a"}}, Annotations: Map{{Symbol("iothub-enqueuedtime"), Timestamp(5)}},
			Properties: &Properties{MessageID: UUID{1}, UserID: []byte("u"), To: "t", Subject: "s", ReplyTo: "r", CorrelationID: uint64(7), ContentType: "ct", ContentEncoding: "ce",
				AbsoluteExpiryTime: 9, CreationTime: 8, GroupID: "g", GroupSequence: &n, ReplyToGroupID: "rg"},
			ApplicationProperties: Map{{"a", "b"}, {"n", nil}}, Data: [][]byte{[]byte("body")}, Footer: Map{{Symbol("f"), int32(1)}},
		},
	} {
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got := new(Message)
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v comes back as %+v, %v", m, got, err)
		}
	}
	for name, in := range map[string]string{
		"no section": "40", "unknown section": "00537940", "data that is a string": "005375a10178", "properties that are a map": "005373c10100", "two values": "00537740 00537740",
		"data and value": "005375a000 005377a100", "out of order": "005375a000 00537345", "message-id that is a list": "005373c0020145", "by an unknown name": "00a3017840",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(in, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := new(Message).UnmarshalBinary(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got := TimestampOf(time.Unix(1, 5e6)).Time(); !got.Equal(time.Unix(1, 5e6)) {
		t.Errorf("got %v", got)
	}
	if got := (UUID{0xab, 4: 1, 15: 2}).String(); got != "ab000000-0100-0000-0000-000000000002" {
		t.Errorf("got %s", got)
	}
}

// The golden frames are what goes over the wire, byte by byte.
func TestGoldenFrames(t *testing.T) {
	tests := []struct {
		name string
		f    frame
		want string
	}{
		{"empty", frame{}, "00000008 02000000"},
		{"open", frame{body: &open{containerID: "DeviceGateway", maxFrameSize: u32(65535), channelMax: ptr(uint16(1024)), idleTimeOut: u32(240000)}},
			"0000002b 02000000 005310 c01e05 a10d44657669636547617465776179 40 70 0000ffff 600400 70 0003a980"},
		{"begin", frame{channel: 5, body: &begin{remoteChannel: ptr(uint16(5)), incomingWindow: 5000, outgoingWindow: outgoingWindow, handleMax: u32(255)}},
			"0000001e 02000005 005311 c01105 600005 43 7000001388 70ffffffff 52ff"},
		{"attach, refused", frame{body: &attach{name: "l", handle: 1, role: roleReceiver, sndSettleMode: ptr(uint8(2)), rcvSettleMode: ptr(uint8(0))}},
			"00000018 02000000 005312 c00b05 a1016c 5201 41 5002 5000"},
		{"detach", frame{body: &detach{handle: 1, closed: true, err: &Error{Condition: "amqp:not-found"}}},
			"00000027 02000000 005316 c01a03 5201 41 00531d c01101 a30e616d71703a6e6f742d666f756e64"},
		{"flow", frame{body: &flow{nextIncomingID: u32(1), incomingWindow: 5000, outgoingWindow: outgoingWindow, handle: u32(0), deliveryCount: u32(0), linkCredit: u32(100)}},
			"0000001f 02000000 005313 c01207 5201 7000001388 43 70ffffffff 43 43 5264"},
		{"flow without next-incoming-id", frame{body: &flow{incomingWindow: 5000, outgoingWindow: outgoingWindow, handle: u32(0), deliveryCount: u32(0), linkCredit: u32(100)}},
			"0000001e 02000000 005313 c01107 40 7000001388 43 70ffffffff 43 43 5264"},
		{"transfer", frame{body: &transfer{handle: 1, deliveryID: u32(2), deliveryTag: []byte{3}, messageFormat: u32(0), settled: ptr(false)}, payload: []byte{0, 0x53, 0x75, 0xa0, 1, 'x'}},
			"0000001d 02000000 005314 c00a05 5201 5202 a00103 43 42 005375a00178"},
		{"disposition", frame{body: &disposition{role: roleReceiver, first: 2, last: u32(2), settled: true, state: Accepted{}.state()}},
			"00000018 02000000 005315 c00b05 41 5202 5202 41 00532445"},
		{"end", frame{body: &end{}}, "0000000c 02000000 00531745"},
		{"close", frame{body: &closing{}}, "0000000c 02000000 00531845"},
		{"sasl-mechanisms", frame{kind: frameTypeSASL, body: &saslMechanisms{[]Symbol{"PLAIN", "ANONYMOUS"}}},
			"00000022 02010000 005340 c01501 e01202a3 05504c41494e 09414e4f4e594d4f5553"},
		{"sasl-outcome", frame{kind: frameTypeSASL, body: &saslOutcome{result: 1}}, "00000010 02010000 005344 c00301 5001"},
	}
	for _, tt := range tests {
		got, err := appendFrame(nil, tt.f)
		want := strings.ReplaceAll(tt.want, " ", "")
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s is\n%x, want\n%s; %v", tt.name, got, want, err)
			continue
		}
		back, err := readFrame(bytes.NewReader(got), 1<<16)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if again, err := appendFrame(nil, back); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s comes back as %x, %v", tt.name, again, err)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{"x:y": {Condition: "x:y"}, "x:y: why": {Condition: "x:y", Description: "why"}} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
