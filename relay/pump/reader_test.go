package pump

import (
	"io"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay/ws"
)

// A leg on a socket holds no buffer while it waits, and its goroutine ends when its peer,
// after having talked, only shows that it lives: a fresh one has a small stack.
func TestStillSocket(t *testing.T) {
	peer, conn := tcpPair(t)
	defer peer.Close()
	defer conn.Close()
	key := [4]byte{1, 2, 3, 4}
	message := ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: 2, Key: key})
	message = append(message, 'h'^1, 'i'^2)
	pong := ws.AppendControl(nil, ws.OpPong, nil, true, key)
	torn := append(append([]byte{}, pong...), message[:3]...)

	// What the peer sends, each when the leg has taken what was before.
	steps := [][]byte{pong, message, pong, pong, message, message, torn, message[3:], pong}
	leg := NewLeg(conn)
	var in reader
	next := func() {
		if len(steps) == 0 {
			peer.Close()
			return
		}
		peer.Write(steps[0])
		steps = steps[1:]
	}
	next()
	got := ""
	err := errStill
	for err == errStill {
		err = leg.frames(&in, takeFunc(func(out []byte, _ int64, c *control) error {
			if c != nil {
				got += "p"
			} else {
				got += string(out[2:])
			}
			next()
			return nil
		}))
		if err == errStill {
			got += "."
		}
	}
	if err != io.EOF {
		t.Error(err)
	}
	if want := "phip.phihiphip."; got != want {
		t.Errorf("got %q with a new goroutine at each point, want %q", got, want)
	}
	if in.b != nil {
		t.Error("a buffer is left")
	}
}

// Close waits for the peer's close frame also when the peer has talked and then only shows
// that it lives: to close over unread bytes would reset the connection.
func TestCloseStillSocket(t *testing.T) {
	peer, conn := tcpPair(t)
	defer peer.Close()
	leg := NewLeg(conn)
	leg.early = slices.Concat(clientFrame(0x82, "hi"), clientFrame(0x8a, ""), clientFrame(0x8a, ""))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		leg.Close(1001, "bye")
	}()
	got := make([]byte, 4+len("bye"))
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	message := clientFrame(0x82, strings.Repeat("x", 64<<10))
	for range 256 { // more than the kernel's buffers hold
		if _, err := peer.Write(message); err != nil {
			t.Fatalf("the peer's close frame was not waited for: %v", err)
		}
	}
	if _, err := peer.Write(clientFrame(0x88, closing(1001, ""))); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(peer); len(rest) > 0 || err != nil {
		t.Errorf("after the close frame: %q, %v", rest, err)
	}
	<-closed
}

// Who begins a frame and does not go on holds a small buffer, not a large one.
func TestTornSocket(t *testing.T) {
	peer, conn := tcpPair(t)
	defer peer.Close()
	defer conn.Close()
	peer.Write([]byte{0x82})
	var in reader
	leg := NewLeg(conn)
	if err := in.begin(leg, untilClose{}); err != nil {
		t.Fatal(err)
	}
	if err := in.next(leg, untilClose{}); err != nil {
		t.Fatal(err)
	}
	if len(*in.b) != headroom+idleSize {
		t.Errorf("a byte is held in a buffer of %d", len(*in.b))
	}
}
