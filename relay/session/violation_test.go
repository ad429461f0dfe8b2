package session

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A rawPeer is the other side of a session, frame by frame.
type rawPeer struct {
	t   *testing.T
	c   net.Conn
	got chan []byte // frames the session sent
}

// newRawPeer runs a session against the peer. The session is the device and
// accepts every stream; the peer is the requester.
func newRawPeer(t *testing.T, cfg Config) (*rawPeer, *Session, chan error) {
	t.Helper()
	a, b := net.Pipe()
	s, err := New(NetTransport(a), Device, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	p := &rawPeer{t, b, make(chan []byte, 100)}
	go p.read()
	return p, s, ran
}

// read collects what the session sends and hangs up after a last GOAWAY.
func (p *rawPeer) read() {
	defer close(p.got)
	defer p.c.Close()
	for {
		f := make([]byte, headerSize)
		if _, err := io.ReadFull(p.c, f); err != nil {
			return
		}
		h := parseHeader(f)
		f = append(f, make([]byte, h.length)...)
		if _, err := io.ReadFull(p.c, f[headerSize:]); err != nil {
			return
		}
		if _, _, err := recode(f); err != nil {
			p.t.Errorf("the session sent %x: %v", f, err)
		}
		p.got <- f
		if h.typ == typeGoAway {
			if r, _ := parseReason(f[headerSize:]); r.final() {
				return
			}
		}
	}
}

// send writes frames, one after the other has been handled.
func (p *rawPeer) send(frames ...[]byte) {
	p.t.Helper()
	for _, f := range frames {
		if _, err := p.c.Write(f); err != nil {
			return // the session has ended; what it said is checked elsewhere
		}
		synctest.Wait()
	}
}

// want checks what the session has sent since the last call.
func (p *rawPeer) want(frames ...[]byte) {
	p.t.Helper()
	synctest.Wait()
	var got [][]byte
	for range len(p.got) {
		got = append(got, <-p.got)
	}
	if !slices.EqualFunc(got, frames, slices.Equal) {
		p.t.Errorf("the session sent %x, want %x", got, frames)
	}
}

func (s *Session) acceptAll(read bool) {
	for {
		in, err := s.Accept(context.Background())
		if err != nil {
			return
		}
		st, err := in.Accept()
		if err == nil && read {
			go io.Copy(io.Discard, st)
		}
	}
}

func bare(t frameType, id uint32) []byte { return appendHeader(nil, t, 0, id) }

func data(id uint32, n int) []byte {
	return append(appendHeader(nil, typeData, n, id), make([]byte, n)...)
}

func opening(id uint32) []byte {
	return appendOpen(nil, id, openPayload{window: 1 << 20, target: []byte("x")})
}

func opened(id uint32) []byte { return appendCredit(nil, typeOpened, id, 1<<20) }

func pingFrame(id uint64) []byte { return appendPing(nil, typePing, id) }
func pongFrame(id uint64) []byte { return appendPing(nil, typePong, id) }

// Every way to break the protocol ends the session, and the peer is told why.
func TestViolations(t *testing.T) {
	const (
		nothing    = iota
		acceptOpen // the session accepts streams and does not read them
		opensOwn   // the session has sent OPEN 2
	)
	for _, c := range []struct {
		name   string
		state  int
		frames [][]byte
		want   string
	}{
		{"type 0", nothing, [][]byte{bare(0, 0)}, "frame type 0x0 is unknown"},
		{"type 11", nothing, [][]byte{bare(0x0b, 0)}, "frame type 0xb is unknown"},
		{"type 127", nothing, [][]byte{bare(0x7f, 1)}, "frame type 0x7f is unknown"},
		{"extension too long", nothing, [][]byte{appendHeader(nil, 0x80, MaxPayload+1, 0)}, "has 65537 bytes"},
		{"OPEN short", nothing, [][]byte{append(appendHeader(nil, typeOpen, 4, 1), 0, 0, 0, 0)}, "OPEN has 4 bytes"},
		{"OPEN long", nothing, [][]byte{appendHeader(nil, typeOpen, maxOpen+1, 1)}, "OPEN has 2049 bytes"},
		{"OPEN target cut", nothing, [][]byte{append(appendHeader(nil, typeOpen, 6, 1), 0, 0, 0, 1, 2, 'x')}, "a target of 2"},
		{"OPEN window", nothing, [][]byte{appendOpen(nil, 1, openPayload{window: 1 << 31})}, "OPEN with a window"},
		{"OPEN stream 0", nothing, [][]byte{opening(0)}, "OPEN on stream 0"},
		{"OPEN top bit", nothing, [][]byte{opening(1<<31 + 1)}, "OPEN on stream 2147483649"},
		{"OPEN even", nothing, [][]byte{opening(2)}, "OPEN of stream 2"},
		{"OPEN again", acceptOpen, [][]byte{opening(1), opening(1)}, "OPEN of stream 1 after"},
		{"OPEN of a closed ID", acceptOpen, [][]byte{opening(1), appendReason(nil, typeReset, 1, reason{}), opening(1)}, "OPEN of stream 1 after"},
		{"OPEN falling", acceptOpen, [][]byte{opening(5), opening(3)}, "OPEN of stream 3 after stream 5"},
		{"OPENED by the opener", acceptOpen, [][]byte{opening(1), opened(1)}, "OPENED on stream 1 by its opener"},
		{"OPENED twice", opensOwn, [][]byte{opened(2), opened(2)}, "second OPENED"},
		{"OPENED small", opensOwn, [][]byte{appendCredit(nil, typeOpened, 2, EarlyWindow-1)}, "window of 16383"},
		{"OPENED length", opensOwn, [][]byte{append(appendHeader(nil, typeOpened, 5, 2), 0, 1, 0, 0, 0)}, "OPENED has 5 bytes"},
		{"OPENED of nothing", nothing, [][]byte{opened(2)}, "OPENED on stream 2, which was never opened"},
		{"DATA before OPENED", opensOwn, [][]byte{data(2, 1)}, "DATA on stream 2 before OPENED"},
		{"WINDOW before OPENED", opensOwn, [][]byte{appendCredit(nil, typeWindow, 2, 1)}, "WINDOW on stream 2 before OPENED"},
		{"FIN before OPENED", opensOwn, [][]byte{bare(typeFin, 2)}, "FIN on stream 2 before OPENED"},
		{"STOP before OPENED", opensOwn, [][]byte{bare(typeStop, 2)}, "STOP on stream 2 before OPENED"},
		{"DATA never opened", nothing, [][]byte{data(1, 1)}, "DATA on stream 1, which was never opened"},
		{"DATA of our own IDs", nothing, [][]byte{data(2, 1)}, "DATA on stream 2, which was never opened"},
		{"DATA ahead", acceptOpen, [][]byte{opening(1), data(3, 1)}, "DATA on stream 3, which was never opened"},
		{"DATA empty", acceptOpen, [][]byte{opening(1), bare(typeData, 1)}, "DATA has 0 bytes"},
		{"DATA long", acceptOpen, [][]byte{opening(1), appendHeader(nil, typeData, MaxPayload+1, 1)}, "DATA has 65537 bytes"},
		{"DATA stream 0", nothing, [][]byte{data(0, 1)}, "DATA on stream 0"},
		{"DATA after FIN", acceptOpen, [][]byte{opening(1), bare(typeFin, 1), data(1, 1)}, "after FIN"},
		{"early window", nothing, [][]byte{opening(1), data(1, EarlyWindow), data(1, 1)}, "whose window has 0 left"},
		{"window", acceptOpen, [][]byte{opening(1), data(1, 16<<10), data(1, 48<<10), data(1, 1)}, "whose window has 0 left"},
		{"FIN twice", acceptOpen, [][]byte{opening(1), bare(typeFin, 1), bare(typeFin, 1)}, "second FIN"},
		{"FIN length", acceptOpen, [][]byte{opening(1), append(appendHeader(nil, typeFin, 1, 1), 0)}, "FIN has 1 bytes"},
		{"STOP twice", acceptOpen, [][]byte{opening(1), bare(typeStop, 1), bare(typeStop, 1)}, "second STOP"},
		{"WINDOW 0", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeWindow, 1, 0)}, "credit of 0"},
		{"WINDOW large", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeWindow, 1, 1<<31)}, "credit of 2147483648"},
		{"WINDOW overflow", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeWindow, 1, MaxCredit)}, "WINDOW on stream 1 makes it"},
		{"RECLAIM before OPENED", nothing, [][]byte{opening(1), appendCredit(nil, typeReclaim, 1, 1)}, "RECLAIM on stream 1 before OPENED"},
		{"RECLAIM 0", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeReclaim, 1, 0)}, "credit of 0"},
		{"RECLAIM short", acceptOpen, [][]byte{opening(1), append(appendHeader(nil, typeReclaim, 3, 1), 0, 0, 1)}, "RECLAIM has 3 bytes"},
		{"RETURN without RECLAIM", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeReturn, 1, 0)}, "RETURN of 0 bytes on stream 1"},
		{"RETURN large", acceptOpen, [][]byte{opening(1), appendCredit(nil, typeReturn, 1, 1<<31)}, "credit of 2147483648"},
		{"RESET never opened", nothing, [][]byte{appendReason(nil, typeReset, 1, reason{})}, "RESET on stream 1, which"},
		{"RESET code cut", acceptOpen, [][]byte{opening(1), append(appendHeader(nil, typeReset, 2, 1), 2, 'x')}, "a code of 2"},
		{"RESET message", acceptOpen, [][]byte{opening(1), appendReason(nil, typeReset, 1, reason{"x", strings.Repeat("m", MaxMessage+1)})}, "message has 1025 bytes"},
		{"GOAWAY stream", nothing, [][]byte{appendReason(nil, typeGoAway, 1, reason{})}, "GOAWAY on stream 1"},
		{"GOAWAY empty", nothing, [][]byte{bare(typeGoAway, 0)}, "GOAWAY has 0 bytes"},
		{"PING stream", nothing, [][]byte{append(appendHeader(nil, typePing, 8, 1), make([]byte, 8)...)}, "PING on stream 1"},
		{"PING short", nothing, [][]byte{append(appendHeader(nil, typePing, 7, 0), make([]byte, 7)...)}, "PING has 7 bytes"},
		{"PONG without PING", nothing, [][]byte{pongFrame(1)}, "PONG without a PING"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s, ran := newRawPeer(t, Config{InitialWindow: 64 << 10})
				call := make(chan error, 1)
				switch c.state {
				case acceptOpen:
					go s.acceptAll(false)
				case opensOwn:
					go func() { _, err := s.Open(context.Background(), "x"); call <- err }()
				}
				synctest.Wait()
				p.send(c.frames...)
				err := <-ran
				if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if c.state == opensOwn {
					if err := <-call; !errors.Is(err, ErrProtocol) && err != nil {
						t.Errorf("open: %v", err)
					}
				}
				var last []byte
				for last = range p.got {
				}
				if want := appendReason(nil, typeGoAway, 0, reason{CodeProtocol, err.Error()}); !slices.Equal(last, want) {
					t.Errorf("last words %q, want %q", last, want)
				}
			})
		})
	}
}

// Frames that cross the end of a stream are ignored, and so are unknown
// extensions.
func TestLateFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, ran := newRawPeer(t, Config{})
		go s.acceptAll(false)
		own := make(chan *Stream, 1)
		go func() { st, _ := s.Open(context.Background(), "x"); own <- st }()
		synctest.Wait()
		p.want(appendOpen(nil, 2, openPayload{window: DefaultInitialWindow, target: []byte("x")}))
		p.send(opened(2))
		(<-own).Reset("enough", "")
		p.want(appendReason(nil, typeReset, 2, reason{code: "enough"}))
		p.send(opening(7), appendReason(nil, typeReset, 7, reason{}))
		p.want(appendCredit(nil, typeOpened, 7, DefaultInitialWindow))
		for _, id := range []uint32{2, 5, 7} { // ours, skipped, theirs
			p.send(data(id, 1), data(id, MaxPayload), bare(typeFin, id), bare(typeStop, id),
				appendCredit(nil, typeWindow, id, MaxCredit), opened(id), appendReason(nil, typeReset, id, reason{}))
		}
		p.send(bare(0x80, 1), append(appendHeader(nil, 0xff, MaxPayload, 0), make([]byte, MaxPayload)...))
		p.send(pingFrame(1), pingFrame(2))
		p.want(pongFrame(1), pongFrame(2))
		s.GoAway("", "")
		p.want(appendReason(nil, typeGoAway, 0, reason{code: CodeGoingAway}))
		p.send(opening(9))
		p.want(appendReason(nil, typeReset, 9, reason{code: CodeGoingAway}))
		s.Close()
		p.want(appendReason(nil, typeGoAway, 0, reason{code: CodeClosed}))
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// The life of a stream on the wire, with early data.
func TestConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, ran := newRawPeer(t, Config{InitialWindow: 64 << 10})
		// OPEN, early data, FIN and STOP all come before the answer.
		p.send(appendOpen(nil, 1, openPayload{window: 5, target: []byte("x"), rest: []byte("reserved")}))
		p.send(data(1, EarlyWindow), bare(typeFin, 1), bare(typeStop, 1))
		p.want()
		in, err := s.Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		st, err := in.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.want(appendCredit(nil, typeOpened, 1, 64<<10), bare(typeFin, 1)) // the answer to STOP had to wait
		if _, err := st.Write([]byte("x")); err != ErrStopped {
			t.Errorf("write: %v", err)
		}
		if got, err := io.ReadAll(st); len(got) != EarlyWindow || err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if s.NumStreams() != 0 {
			t.Error("stream left")
		}

		// Data in both directions, as the windows allow.
		p.send(appendOpen(nil, 3, openPayload{window: 5, target: []byte("x")}))
		in, _ = s.Accept(context.Background())
		st, _ = in.Accept()
		p.want(appendCredit(nil, typeOpened, 3, 64<<10))
		go func() { st.Write([]byte("0123456789")); st.Close() }()
		p.want(append(appendHeader(nil, typeData, 5, 3), "01234"...))
		p.send(data(3, 40<<10))
		io.CopyN(io.Discard, st, 24<<10-1)
		time.Sleep(10 * time.Millisecond) // at this pace, a window lasts long enough
		p.want()
		io.CopyN(io.Discard, st, 1)
		// Three eighths of the window are read: they are given back, and the round trip
		// is measured, as the window might grow.
		p.want(pingFrame(1), appendCredit(nil, typeWindow, 3, 24<<10))
		p.send(appendCredit(nil, typeWindow, 3, 100))
		p.want(append(appendHeader(nil, typeData, 5, 3), "56789"...), bare(typeStop, 3), bare(typeFin, 3))
		p.send(data(3, 40<<10)) // crosses the STOP, within the window
		p.send(bare(typeFin, 3))
		if s.NumStreams() != 0 {
			t.Error("stream left")
		}
		p.send(appendReason(nil, typeGoAway, 0, reason{"draining", ""}))
		p.c.Close()
		var gone *GoAwayError
		if err := <-ran; !errors.As(err, &gone) || gone.Code != "draining" {
			t.Errorf("got %v", err)
		}
	})
}

// A peer that opens streams in a loop and does not read the refusals is cut
// off, and one that pings in a loop takes no memory.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		s, _ := New(NetTransport(a), Device, Config{MaxStreams: 1})
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background()) }()
		for id := range uint64(10_000) {
			if _, err := b.Write(pingFrame(id)); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for id := uint32(1); ; id += 2 {
			if _, err := b.Write(opening(id)); err != nil || s.Err() != nil {
				break
			}
			n++
		}
		if err := <-ran; !errors.Is(err, ErrProtocol) || n > maxRefusals+dataSize/headerSize { // and one message of them on its way
			t.Errorf("after %d OPENs: %v", n, err)
		}
	})
}
