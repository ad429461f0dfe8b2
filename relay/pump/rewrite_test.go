package pump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay/ws"
)

// clientFrame makes a client's frame; finOp 0x8_ has FIN.
func clientFrame(finOp byte, payload string) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := make([]byte, 0, ws.MaxHeader+len(payload))
	b = ws.AppendHeader(b, ws.Header{Fin: finOp&0x80 != 0, Opcode: finOp & 0xf, Masked: true, Key: key, Len: int64(len(payload))})
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// serverFrame makes a server's.
func serverFrame(finOp byte, payload string) []byte {
	return append(ws.AppendHeader(nil, ws.Header{Fin: finOp&0x80 != 0, Opcode: finOp & 0xf, Len: int64(len(payload))}), payload...)
}

// A message is what must not change on the way.
type message struct {
	op      byte
	payload string
	end     bool
}

// A controlFrame is one, and how much payload came before it.
type controlFrame struct {
	op      byte
	payload string
	after   int
}

// parse is the reference: it reads all of b at once, with none of our code. It
// returns what a receiver knows of it, and whether b breaks RFC 6455.
func parse(b []byte, masked bool) (msgs []message, controls []controlFrame, bad bool) {
	open, total := false, 0
	for {
		if len(b) < 2 {
			return msgs, controls, false
		}
		fin, op, l7 := b[0]>>7 == 1, b[0]&15, int(b[1]&127)
		if b[0]&0x70 != 0 || op > 2 && op < 8 || op > 10 || op >= 8 && (!fin || l7 > 125) {
			return msgs, controls, true
		}
		at, size := 2, uint64(l7)
		if l7 == 126 {
			if at = 4; len(b) < at {
				return msgs, controls, false
			}
			if size = uint64(b[2])<<8 | uint64(b[3]); size < 126 {
				return msgs, controls, true
			}
		}
		if l7 == 127 {
			if at = 10; len(b) < at {
				return msgs, controls, false
			}
			if size = binary.BigEndian.Uint64(b[2:]); size < 65536 || size > 1<<63-1 {
				return msgs, controls, true
			}
		}
		var key []byte
		if b[1]&128 != 0 {
			if len(b) < at+4 {
				return msgs, controls, false
			}
			key = b[at : at+4]
			at += 4
		}
		if (key != nil) != masked {
			return msgs, controls, true
		}
		part := b[at:]
		whole := uint64(len(part)) >= size
		if whole {
			part = part[:size]
		}
		payload := bytes.Clone(part)
		for i := range payload {
			if key != nil {
				payload[i] ^= key[i%4]
			}
		}
		if op >= 8 {
			if !whole {
				return msgs, controls, false
			}
			controls = append(controls, controlFrame{op, string(payload), total})
			b = b[at+int(size):]
			continue
		}
		if open != (op == 0) {
			return msgs, controls, true
		}
		total += len(payload)
		if whole || len(payload) > 0 { // else a receiver cannot know of it yet
			if op != 0 {
				msgs = append(msgs, message{op: op})
			}
			m := &msgs[len(msgs)-1]
			m.payload += string(payload)
			m.end = whole && fin
		}
		if !whole {
			return msgs, controls, false
		}
		open = !fin
		b = b[at+int(size):]
	}
}

// chunks is a connection that is read in the given pieces.
type chunks struct {
	net.Conn
	pieces [][]byte
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

// rewriteAll runs the pieces through frames.
func rewriteAll(t testing.TB, early []byte, pieces ...[]byte) (out []byte, controls []controlFrame, err error) {
	t.Helper()
	var kept [][]byte // the reader works in place, and an empty read means the end
	for _, p := range pieces {
		if len(p) > 0 {
			kept = append(kept, p)
		}
	}
	leg := NewLeg(&chunks{pieces: kept})
	leg.early = early
	var total int64
	err = leg.frames(new(reader), takeFunc(func(b []byte, payload int64, c *control) error {
		out = append(out, b...)
		total += payload
		if c != nil {
			controls = append(controls, controlFrame{c.op, string(c.payload), int(total)})
		}
		return nil
	}))
	if err == io.EOF {
		err = nil
	}
	return out, controls, err
}

type takeFunc func(out []byte, payload int64, c *control) error

func (f takeFunc) take(out []byte, payload int64, c *control) error { return f(out, payload, c) }

// check compares frames with the reference.
func check(t testing.TB, name string, in []byte, early []byte, pieces ...[]byte) {
	t.Helper()
	wantMsgs, wantControls, wantBad := parse(in, true)
	out, controls, err := rewriteAll(t, early, pieces...)
	if ws.IsProtocolError(err) != wantBad || err != nil && !wantBad {
		t.Fatalf("%s: got error %v, want one: %v", name, err, wantBad)
	}
	msgs, none, bad := parse(out, false)
	if bad || len(none) > 0 {
		t.Fatalf("%s: the output is no stream of data frames: %.100x", name, out)
	}
	if size := sizeOfFrames(out); size != len(out) {
		t.Fatalf("%s: the output ends in the middle of a frame: %d of %d bytes", name, size, len(out))
	}
	if !slices.Equal(msgs, wantMsgs) {
		t.Fatalf("%s: got %s, want %s", name, describe(msgs), describe(wantMsgs))
	}
	if !slices.Equal(controls, wantControls) {
		t.Fatalf("%s: got controls %v, want %v", name, controls, wantControls)
	}
}

func describe(msgs []message) string {
	var b strings.Builder
	for _, m := range msgs {
		fmt.Fprintf(&b, "(%d %d:%.20q %v)", m.op, len(m.payload), m.payload, m.end)
	}
	return b.String()
}

func sizeOfFrames(b []byte) (n int) {
	for {
		h, size, err := ws.ParseHeader(b[n:])
		if err != nil || size == 0 || n+size+int(h.Len) > len(b) {
			return n
		}
		n += size + int(h.Len)
	}
}

var mixed = slices.Concat(
	clientFrame(0x81, "text"), clientFrame(0x82, "x"), clientFrame(0x82, ""), clientFrame(0x81, ""),
	clientFrame(0x02, "frag"), clientFrame(0x89, "ping"), clientFrame(0x00, ""), clientFrame(0x00, "ment"), clientFrame(0x8a, ""), clientFrame(0x80, "ed"),
	clientFrame(0x01, ""), clientFrame(0x80, ""),
	clientFrame(0x82, strings.Repeat("0123456789", 13)),
	clientFrame(0x02, "never"), clientFrame(0x00, "FIN"),
	clientFrame(0x88, "\x03\xe8bye"))

func TestRewriteWholeFrames(t *testing.T) {
	in := mixed
	var want []byte
	for _, f := range []struct {
		finOp   byte
		payload string
	}{
		{0x81, "text"}, {0x82, "x"}, {0x82, ""}, {0x81, ""}, {0x02, "frag"}, {0x00, ""}, {0x00, "ment"}, {0x80, "ed"},
		{0x01, ""}, {0x80, ""}, {0x82, strings.Repeat("0123456789", 13)}, {0x02, "never"}, {0x00, "FIN"},
	} {
		want = append(want, serverFrame(f.finOp, f.payload)...)
	}
	got, _, err := rewriteAll(t, nil, bytes.Clone(in))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// TestRewriteSplit cuts a stream at every byte, and at every two.
func TestRewriteSplit(t *testing.T) {
	for i := range len(mixed) + 1 {
		check(t, fmt.Sprint("early ", i), mixed, bytes.Clone(mixed[:i]), bytes.Clone(mixed[i:]))
		for j := i; j <= len(mixed); j++ {
			b := bytes.Clone(mixed)
			check(t, fmt.Sprint(i, ",", j), mixed, nil, b[:i], b[i:j], b[j:])
		}
	}
	check(t, "bytes", mixed, nil, slices.Collect(slices.Chunk(bytes.Clone(mixed), 1))...)
}

func TestRewriteSizes(t *testing.T) {
	data := make([]byte, 200<<10)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	sizes := []int{0, 1, 125, 126, 127, 128, 65535, 65536, 65537}
	few := len(sizes)
	for d := range 24 { // the frame, or what follows, ends about where the buffer does
		sizes = append(sizes, bufSize-d)
	}
	for i, size := range sizes {
		for _, finOp := range []byte{0x82, 0x01} {
			in := clientFrame(finOp, string(data[:size]))
			if finOp&0x80 == 0 {
				in = append(append(in, clientFrame(0x89, "ping")...), clientFrame(0x80, string(data[:size]))...)
			}
			in = append(append(in, clientFrame(0x81, "next")...), clientFrame(0x89, "ping")...)
			name := fmt.Sprintf("%d bytes, %#x", size, finOp)
			check(t, name+" at once", in, nil, bytes.Clone(in))
			check(t, name+" in segments", in, nil, slices.Collect(slices.Chunk(bytes.Clone(in), 1448))...)
			if i >= few {
				continue
			}
			for _, cut := range []int{1, 2, 3, 4, 6, 8, 9, 10, 13, 14, 15, 16, bufSize - 1, bufSize, bufSize + 1, len(in) - 20, len(in) - 1} {
				if cut < len(in) && cut > 0 {
					b := bytes.Clone(in)
					check(t, fmt.Sprint(name, " cut at ", cut), in, nil, b[:cut], b[cut:])
					if cut <= bufSize {
						check(t, fmt.Sprint(name, " early ", cut), in, bytes.Clone(in[:cut]), bytes.Clone(in[cut:]))
					}
				}
			}
		}
	}
}

// A header at the very end of a chunk is not passed on as an empty fragment.
func TestRewriteKeepsLoneHeader(t *testing.T) {
	in := clientFrame(0x82, "hello")
	out, _, err := rewriteAll(t, nil, bytes.Clone(in[:6]), bytes.Clone(in[6:]))
	if want := serverFrame(0x82, "hello"); err != nil || !bytes.Equal(out, want) {
		t.Errorf("got %x, %v, want %x", out, err, want)
	}
	// But each part of a payload is, at once.
	out, _, _ = rewriteAll(t, nil, bytes.Clone(in[:8]), bytes.Clone(in[8:]))
	if want := slices.Concat(serverFrame(0x02, "he"), serverFrame(0x80, "llo")); !bytes.Equal(out, want) {
		t.Errorf("got %x, want %x", out, want)
	}
}

// cut splits b at random boundaries; one byte in a while.
func cut(r *rand.Rand, b []byte) (pieces [][]byte) {
	b = bytes.Clone(b)
	for len(b) > 0 {
		n := 1 + r.IntN([]int{1, 2, 16, 200, 5000, 100000}[r.IntN(6)])
		n = min(n, len(b))
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return pieces
}

// FuzzRewrite takes any bytes, cut anywhere.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte{}, uint64(0), 0)
	f.Add(mixed, uint64(1), 0)
	f.Add(mixed, uint64(2), 50)
	f.Add(clientFrame(0x82, strings.Repeat("x", 70000)), uint64(3), 10)
	f.Add(append(clientFrame(0x02, "a"), clientFrame(0x82, "b")...), uint64(4), 0)
	f.Add(append(clientFrame(0x82, "a"), 0xc2, 0x80), uint64(5), 3)
	f.Add(append(clientFrame(0x82, "a"), serverFrame(0x82, "b")...), uint64(6), 3)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, early int) {
		early = min(max(early, 0), len(in), bufSize)
		check(t, "fuzz", in, bytes.Clone(in[:early]), cut(rand.New(rand.NewPCG(seed, 1)), in[early:])...)
	})
}

// FuzzRewriteFrames makes good frames, and a bad one now and then: three bytes
// of spec for each.
func FuzzRewriteFrames(f *testing.F) {
	f.Add([]byte{0x82, 0, 5, 0x81, 1, 0, 0x02, 2, 200, 0x89, 0, 4, 0x00, 3, 1, 0x80, 3, 2, 0x88, 0, 0}, uint64(1))
	f.Add([]byte{0x02, 4, 1, 0x89, 0, 125, 0x00, 4, 0, 0x80, 4, 255, 0x81, 0, 1}, uint64(2))
	f.Add([]byte{0x82, 3, 0, 0x82, 3, 1, 0x82, 3, 2, 0x82, 3, 255, 0x82, 5, 1}, uint64(3))
	f.Fuzz(func(t *testing.T, spec []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		var in []byte
		for len(spec) >= 3 && len(in) < 1<<20 {
			op, class, n := spec[0], spec[1], int(spec[2])
			spec = spec[3:]
			size := []int{n, n * 10, 65536 - 128 + n, bufSize - 128 + n, n * 400}[class%5]
			if op&8 != 0 {
				size = n % 126
			}
			h := ws.Header{Fin: op&0x80 != 0, Opcode: op & 15, Masked: class < 250, Len: int64(size)}
			binary.LittleEndian.PutUint32(h.Key[:], r.Uint32())
			if op&0x70 == 0x70 { // spoil one in eight
				h.Opcode |= byte(r.Uint32()) & 15
			}
			in = ws.AppendHeader(in, h)
			for range size {
				in = append(in, byte(r.Uint32()))
			}
		}
		early := r.IntN(min(len(in), bufSize) + 1)
		if r.IntN(2) == 0 {
			early = 0
		}
		check(t, "fuzz", in, bytes.Clone(in[:early]), cut(r, in[early:])...)
	})
}

func TestFramesStops(t *testing.T) {
	stop := errors.New("stop")
	leg := NewLeg(&chunks{pieces: [][]byte{bytes.Clone(mixed)}})
	n := 0
	err := leg.frames(new(reader), takeFunc(func([]byte, int64, *control) error {
		n++
		return stop
	}))
	if err != stop || n != 1 {
		t.Errorf("frames called f %d times and returned %v", n, err)
	}
}

func BenchmarkRewrite(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64<<10 - 14} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var in []byte
			f := clientFrame(0x82, strings.Repeat("x", size))
			for len(in)+len(f) <= bufSize {
				in = append(in, f...)
			}
			if in == nil { // does not fit: the first part
				in = f[:bufSize]
			}
			buf := make([]byte, headroom+bufSize)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				var w rewriter
				n := headroom + copy(buf[headroom:], in)
				if _, _, _, _, err := w.rewrite(buf, headroom, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A read ends with a frame and the next one's header, if there is much to come of a frame
// that fits; else it brings whatever there is.
func TestWant(t *testing.T) {
	const whole = 56 << 10
	for _, c := range []struct {
		name     string
		size     int // of the frame
		have     int // bytes of it behind its header
		previous int // of the one in front of it; < 0: there is none
		want     int
	}{
		{"nothing has come", 0, 0, -1, bufSize},
		{"a header", whole, 0, 10, whole + 8},
		{"a header in front", whole, 0, -1, whole + 8},
		{"a part", whole, 1000, -1, whole - 1000 + 8},
		{"nearly all", whole, whole - 1000, -1, bufSize},
		{"all", whole, whole, -1, bufSize},
		{"longer than a buffer", bufSize, 1000, -1, bufSize},
		{"much longer", 1 << 20, 1000, -1, bufSize},
		{"short", 1000, 0, 10, bufSize},
	} {
		var in []byte
		if c.previous >= 0 {
			in = append(ws.AppendHeader(in, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: int64(c.previous)}), make([]byte, c.previous)...)
		}
		if c.size > 0 {
			in = append(ws.AppendHeader(in, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: int64(c.size)}), make([]byte, c.have)...)
		}
		var w rewriter
		buf := append(make([]byte, headroom), in...)
		if _, _, _, _, err := w.rewrite(buf, headroom, len(buf)); err != nil {
			t.Fatal(err)
		}
		if got := w.want(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
