package ws

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHeaderGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/headers.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var (
			key, wire string
			fin, mask int
			want      Header
		)
		name, rest, _ := strings.Cut(strings.Join(strings.Fields(line), " "), " ")
		if _, err := fmt.Sscanf(rest, "%d %x %d %s %d %s", &fin, &want.Opcode, &mask, &key, &want.Len, &wire); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want.Fin, want.Masked = fin == 1, mask == 1
		if want.Masked {
			hex.Decode(want.Key[:], []byte(key))
		}
		b, err := hex.DecodeString(wire)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			if got := AppendHeader(nil, want); !bytes.Equal(got, b) {
				t.Errorf("AppendHeader(%+v) = %x, want %x", want, got, b)
			}
			if got := HeaderSize(want.Len, want.Masked); got != len(b) {
				t.Errorf("HeaderSize = %d, want %d", got, len(b))
			}
			got, n, err := ParseHeader(append(bytes.Clone(b), "more"...))
			if got != want || n != len(b) || err != nil {
				t.Errorf("ParseHeader(%x) = %+v, %d, %v, want %+v", b, got, n, err, want)
			}
			for i := range b {
				if _, n, err := ParseHeader(b[:i]); n != 0 || err != nil {
					t.Errorf("ParseHeader(%x) = %d, %v, want 0, nil", b[:i], n, err)
				}
			}
		})
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		wire string
		want error
	}{
		{"RSV1", "c105", ErrReserved},
		{"RSV2", "a105", ErrReserved},
		{"RSV3", "9105", ErrReserved},
		{"RSV1 on a control frame", "c900", ErrReserved},
		{"opcode 3", "8300", ErrOpcode},
		{"opcode 7", "8700", ErrOpcode},
		{"opcode 11", "8b00", ErrOpcode},
		{"opcode 15", "8f00", ErrOpcode},
		{"fragmented ping", "0900", ErrControl},
		{"fragmented close", "0800", ErrControl},
		{"ping of 126", "897e007e", ErrControl},
		{"ping with 64 bits", "897f0000000000000001", ErrControl},
		{"125 in 16 bits", "827e007d", ErrLength},
		{"0 in 16 bits", "827e0000", ErrLength},
		{"65535 in 64 bits", "827f000000000000ffff", ErrLength},
		{"negative", "827f8000000000000000", ErrLength},
		{"all ones", "827fffffffffffffffff", ErrLength},
		{"masked, not shortest", "82fe007d00000000", ErrLength},
	} {
		b, _ := hex.DecodeString(test.wire)
		if _, n, err := ParseHeader(b); n != 0 || err != test.want {
			t.Errorf("%s: ParseHeader(%s) = %d, %v, want 0, %v", test.name, test.wire, n, err, test.want)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	golden, err := os.ReadFile("testdata/headers.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		if w := strings.Fields(line); w[0] != "#" {
			b, _ := hex.DecodeString(w[len(w)-1])
			f.Add(b)
		}
	}
	f.Add([]byte{0x82, 0x7e, 0, 125})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil {
			if !IsProtocolError(err) || n != 0 {
				t.Fatalf("ParseHeader(%x) = %d, %v", b, n, err)
			}
			return
		}
		if n == 0 {
			if len(b) >= MaxHeader {
				t.Fatalf("ParseHeader(%x) wants more", b)
			}
			return
		}
		if got := AppendHeader(nil, h); !bytes.Equal(got, b[:n]) {
			t.Fatalf("ParseHeader(%x) = %+v, which is %x", b, h, got)
		}
		if got := HeaderSize(h.Len, h.Masked); got != n || n > MaxHeader {
			t.Fatalf("HeaderSize of %+v is %d, and its size %d", h, got, n)
		}
		for i := range n {
			if _, n, err := ParseHeader(b[:i]); n != 0 || err != nil {
				t.Fatalf("ParseHeader(%x) = %d, %v before the end of a good header", b[:i], n, err)
			}
		}
	})
}

func TestMask(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for size := range 300 {
		for pos := range int64(5) {
			for before := range MaxHeader + 1 { // how far dst starts before src
				for align := range 4 {
					var key [4]byte
					copy(key[:], random(4))
					src := random(size)
					want := make([]byte, size)
					for i, c := range src {
						want[i] = c ^ key[(int64(i)+pos+1<<40)%4]
					}
					buf := random(align + before + size + 8)
					copy(buf[align+before:], src)
					tail := bytes.Clone(buf[align+before+size:])
					Mask(buf[align:], buf[align+before:align+before+size], key, pos+1<<40)
					if !bytes.Equal(buf[align:align+size], want) {
						t.Fatalf("size %d, pos %d, dst %d before src, alignment %d: wrong", size, pos, before, align)
					}
					if !bytes.Equal(buf[align+before+size:], tail) {
						t.Fatalf("size %d, pos %d, dst %d before src, alignment %d: wrote past the end", size, pos, before, align)
					}
				}
			}
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("some payload that is longer than thirty-two bytes, and then some"), uint32(0x37fa213d), int64(3), uint8(14))
	f.Fuzz(func(t *testing.T, src []byte, k uint32, pos int64, before uint8) {
		if pos < 0 {
			return
		}
		key := [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}
		want := bytes.Clone(src)
		for i := range want {
			want[i] ^= key[(int64(i)+pos%4)%4]
		}
		buf := append(make([]byte, before), src...)
		Mask(buf, buf[before:], key, pos)
		if !bytes.Equal(buf[:len(src)], want) {
			t.Fatalf("Mask(%x, %x, %d) = %x, want %x", src, key, pos, buf[:len(src)], want)
		}
	})
}

func TestParseClose(t *testing.T) {
	for _, test := range []struct {
		payload string
		code    int
		reason  string
		err     error
	}{
		{"", 1005, "", nil},
		{"\x03", 0, "", ErrClosePayload},
		{"\x03\xe8", 1000, "", nil},
		{"\x03\xe9bye", 1001, "bye", nil},
		{"\x03\xeb", 1003, "", nil},
		{"\x03\xec", 0, "", ErrClosePayload}, // 1004
		{"\x03\xed", 0, "", ErrClosePayload}, // 1005
		{"\x03\xee", 0, "", ErrClosePayload}, // 1006
		{"\x03\xef", 1007, "", nil},
		{"\x03\xf4", 1012, "", nil},
		{"\x03\xf6", 1014, "", nil},
		{"\x03\xf7", 0, "", ErrClosePayload}, // 1015
		{"\x03\xe7", 0, "", ErrClosePayload}, // 999
		{"\x00\x00", 0, "", ErrClosePayload},
		{"\x07\xd0", 0, "", ErrClosePayload}, // 2000
		{"\x0b\xb7", 0, "", ErrClosePayload}, // 2999
		{"\x0b\xb8", 3000, "", nil},
		{"\x0f\xa0\xe2\x82\xac", 4000, "€", nil},
		{"\x13\x87", 4999, "", nil},
		{"\x13\x88", 0, "", ErrClosePayload}, // 5000
		{"\x03\xe8\xff", 0, "", ErrClosePayload},
		{"\x03\xe8\xe2\x82", 0, "", ErrClosePayload}, // half a rune
	} {
		code, reason, err := ParseClose([]byte(test.payload))
		if code != test.code || reason != test.reason || err != test.err {
			t.Errorf("ParseClose(%x) = %d, %q, %v, want %d, %q, %v", test.payload, code, reason, err, test.code, test.reason, test.err)
		}
	}
}

func TestAppendCloseCutsAtARune(t *testing.T) {
	got := AppendClose(nil, 1001, strings.Repeat("x", 121)+"€")
	if want := 2 + 121; len(got) != want || !utf8.Valid(got[2:]) {
		t.Errorf("AppendClose has %d bytes (%q), want %d", len(got), got, want)
	}
	if got := AppendClose(nil, 1001, strings.Repeat("x", 120)+"€"); len(got) != MaxControl {
		t.Errorf("AppendClose has %d bytes, want %d", len(got), MaxControl)
	}
}

func FuzzParseClose(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x03\xe8bye"))
	f.Add([]byte("\x0f\xa0\xe2\x82\xac"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, reason, err := ParseClose(b)
		if err != nil || len(b) > MaxControl {
			return
		}
		if got := AppendClose(nil, code, reason); !bytes.Equal(got, b) {
			t.Fatalf("ParseClose(%x) = %d, %q, which is %x", b, code, reason, got)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size+MaxHeader)
			b.SetBytes(int64(size))
			for b.Loop() {
				Mask(p, p[4:4+size], [4]byte{1, 2, 3, 4}, 1)
			}
		})
	}
}
