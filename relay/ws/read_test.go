package ws

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// scripted is a connection that brings bytes in pieces and takes all that is written.
type scripted struct {
	net.Conn
	rest []byte
	size int // of a piece
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.size)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }

// readWith reads a client's end of what a server sends, with a buffer of some size.
func readWith(sent []byte, piece, buffer int) (got []byte, err error) {
	c := NewClient(&scripted{rest: sent, size: piece}, nil, Config{Ping: -1, Dead: -1})
	p := make([]byte, buffer)
	for {
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			c.posts.Wait()
			return got, err
		}
	}
}

// FuzzRead: whatever a server sends, in whatever pieces, large buffers and small ones, which go
// different ways, read the same bytes and end with the same error.
func FuzzRead(f *testing.F) {
	frame := func(first byte, size int) []byte {
		b := AppendHeader(nil, Header{Fin: first&0x80 != 0, Opcode: first & 0x0f, Len: int64(size)})
		return append(b, bytes.Repeat([]byte{'x'}, size)...)
	}
	f.Add(bytes.Join([][]byte{frame(0x82, 5), frame(0x89, 3), frame(0x02, 200), frame(0x8a, 0), frame(0x80, 1100), frame(0x88, 0)}, nil), uint16(7), uint16(1100))
	f.Add(bytes.Join([][]byte{frame(0x82, 0), frame(0x81, 300), {0x88, 2, 3, 233}}, nil), uint16(1), uint16(1024))
	f.Add(append(frame(0x82, 2), 0x82, 0x85), uint16(100), uint16(5000))
	f.Add(append(frame(0x02, 2), 0x82, 0x01, 'a'), uint16(3), uint16(1500))
	f.Add([]byte{0x89, 0x7d, 1, 2, 3}, uint16(1), uint16(4096))
	f.Fuzz(func(t *testing.T, sent []byte, piece, buffer uint16) {
		want, wantErr := readWith(sent, len(sent)+1, 512)
		got, err := readWith(sent, int(piece)+1, int(buffer)+1)
		if !bytes.Equal(got, want) || err.Error() != wantErr.Error() {
			t.Fatalf("pieces of %d, a buffer of %d: %d bytes, %v; want %d bytes, %v", int(piece)+1, int(buffer)+1, len(got), err, len(want), wantErr)
		}
	})
}

// What comes in small frames by the hundred is read with few calls, and no frame is taken
// for the next one's header if it ends a buffer.
func TestReadDirect(t *testing.T) {
	var sent, want []byte
	for i := range 3000 {
		payload := bytes.Repeat([]byte{byte(i)}, i%300+i/2999*70_000)
		sent = append(AppendHeader(sent, Header{Fin: true, Opcode: OpBinary, Len: int64(len(payload))}), payload...)
		want = append(want, payload...)
		if i%7 == 0 {
			sent = AppendControl(sent, OpPing, []byte("are you there?"), false, [4]byte{})
		}
	}
	sent = AppendControl(sent, OpClose, AppendClose(nil, 1000, ""), false, [4]byte{})
	for _, buffer := range []int{1, 100, 1 << 10, 1025, 4 << 10, 60 << 10} {
		got, err := readWith(sent, len(sent), buffer)
		if !bytes.Equal(got, want) || err != io.EOF {
			t.Errorf("a buffer of %d: %d bytes of %d, %v", buffer, len(got), len(want), err)
		}
	}
}
