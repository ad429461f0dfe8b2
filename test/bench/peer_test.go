//go:build linux

package main

import (
	"bytes"
	"net"
	"slices"
	"testing"
)

// However frames arrive, each is told once, and control frames with their payload.
func TestPeerFrames(t *testing.T) {
	var in []byte
	for _, f := range [][]byte{
		frame(opBinary, []byte("a beginning")), frame(finBit|opPing, nil), frame(finBit, make([]byte, 70_000)), frame(finBit|opBinary, nil), closeFrame(),
	} {
		in = append(in, f...)
	}
	want := []header{{first: opBinary, length: 11}, {first: finBit | opPing}, {first: finBit, length: 70_000}, {first: finBit | opBinary}, {first: finBit | opClose, length: 2}}
	for _, size := range []int{1, 3, 100, 1 << 20} {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			for part := range slices.Chunk(in, size) {
				far.Write(part)
			}
		}()
		var got []header
		p := &peer{Conn: near}
		err := p.frames(make([]byte, 256), func(h header, payload []byte) error {
			if h.first&0xf == opClose && len(payload) != 2 {
				t.Errorf("the close frame has %d bytes", len(payload))
			}
			got = append(got, header{first: h.first, length: h.length})
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d bytes at a time: got %v, %v", size, got, err)
		}
		near.Close()
	}
}

// What comes before a close frame has to be whole.
func TestPeerFramesCut(t *testing.T) {
	p := &peer{Conn: nobody{}, more: frame(finBit|opBinary, []byte("cut"))[:5]}
	if err := p.frames(make([]byte, 64), func(header, []byte) error { return nil }); err == nil {
		t.Error("the end of the connection is taken for a close frame")
	}
}

// nobody is a connection that has ended.
type nobody struct{ net.Conn }

func (nobody) Read([]byte) (int, error) { return bytes.NewReader(nil).Read(make([]byte, 1)) }
