package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/testlog"
)

// A rawNode is a node over TCP whose both sides speak WebSocket by hand.
type rawNode struct {
	t       *testing.T
	addr    string
	signals chan *signaler.Signal
	log     testlog.Buffer
}

func newRawNode(t *testing.T) *rawNode {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	n := &rawNode{t: t, addr: ln.Addr().String(), signals: make(chan *signaler.Signal, 1)}
	srv, err := relay.New(relay.Config{
		PublicURL: "ws://" + n.addr, Auth: auth.AllowAll{}, Keys: ring, Drain: -1, Logger: slog.New(slog.NewTextHandler(&n.log, nil)),
		ConnectsPerDevice: -1, MaxPerDevice: -1,
		Signaler: rawSignaler(n.signals),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, relay.Listeners{Public: ln}) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

type rawSignaler chan *signaler.Signal

func (c rawSignaler) Signal(_ context.Context, s *signaler.Signal) error {
	c <- s
	return nil
}

// A rawPeer is one end of a WebSocket, byte by byte.
type rawPeer struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
}

// shake sends a handshake; answered reads its 101.
func (n *rawNode) shake(path string) *rawPeer {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path, n.addr)
	return &rawPeer{n.t, c, bufio.NewReader(c)}
}

func (p *rawPeer) answered() {
	p.t.Helper()
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatalf("got %v, %v, want 101", resp, err)
	}
}

// device dials back.
func (n *rawNode) device() *rawPeer {
	n.t.Helper()
	d := n.shake(n.acceptPath())
	d.answered()
	return d
}

// acceptPath is where the next device dials back.
func (n *rawNode) acceptPath() string {
	n.t.Helper()
	select {
	case s := <-n.signals:
		u, err := url.Parse(s.AcceptURL)
		if err != nil {
			n.t.Fatal(err)
		}
		return u.RequestURI()
	case <-time.After(patience):
		n.t.Fatalf("no signal; the node says:\n%s", n.log.String())
		return ""
	}
}

// open makes a bridge.
func (n *rawNode) open() (requester, device *rawPeer) {
	n.t.Helper()
	requester = n.shake("/bridge/connect?deviceId=d")
	device = n.device()
	requester.answered()
	return requester, device
}

func (p *rawPeer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// frame reads one: its first byte, and its payload.
func (p *rawPeer) frame() (first byte, payload []byte, err error) {
	for n := 2; ; n++ {
		head, err := p.br.Peek(n)
		if err != nil {
			return 0, nil, err
		}
		h, size, err := ws.ParseHeader(head)
		if err != nil {
			return 0, nil, err
		}
		if size == 0 {
			continue
		}
		if h.Masked {
			return 0, nil, errors.New("a server's frame is masked")
		}
		first = head[0]
		p.br.Discard(size)
		payload = make([]byte, h.Len)
		_, err = io.ReadFull(p.br, payload)
		return first, payload, err
	}
}

// closed reads to the close frame, and returns the data before it and what it says.
func (p *rawPeer) closed() (data []byte, code int, reason string) {
	p.t.Helper()
	for {
		first, payload, err := p.frame()
		if err != nil {
			p.t.Fatalf("got %v after %q, want a close frame", err, data)
		}
		switch first & 0xf {
		case ws.OpClose:
			if code, reason, err = ws.ParseClose(payload); err != nil {
				p.t.Fatalf("close frame %q: %v", payload, err)
			}
			return data, code, reason
		case ws.OpPing, ws.OpPong:
		default:
			data = append(data, payload...)
		}
	}
}

// masked is a client's frame. Its mask is not zero, so that what passes as it is shows.
func masked(first byte, payload string) []byte {
	h := ws.AppendHeader(nil, ws.Header{Masked: true, Key: [4]byte{1, 2, 3, 4}, Len: int64(len(payload))})
	h[0] = first
	b := append(h, payload...)
	ws.Mask(b[len(h):], b[len(h):], [4]byte{1, 2, 3, 4}, 0)
	return b
}

func closePayload(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// length is the header of a masked frame with its length in so many bytes.
func length(first byte, size int, n uint64) []byte {
	if size == 2 {
		return append(binary.BigEndian.AppendUint16([]byte{first, 0xfe}, uint16(n)), 1, 2, 3, 4)
	}
	return append(binary.BigEndian.AppendUint64([]byte{first, 0xff}, n), 1, 2, 3, 4)
}

const evil = "EVIL" // the payload of what must not be passed on

// violations are the ways to break RFC 6455 sections 5 to 7. Each may be sent in any
// state of a WebSocket.
var violations = []struct {
	name string
	send []byte
	what ws.ProtocolError
}{
	// Section 5.2, the header.
	{"RSV1 (compressed without agreement)", masked(0xc2, evil), ws.ErrReserved},
	{"RSV2", masked(0xa2, evil), ws.ErrReserved},
	{"RSV3", masked(0x92, evil), ws.ErrReserved},
	{"all reserved bits", masked(0xf2, evil), ws.ErrReserved},
	{"RSV1 on text", masked(0xc1, evil), ws.ErrReserved},
	{"RSV1 on a continuation", slices.Concat(masked(0x02, ""), masked(0xc0, evil)), ws.ErrReserved},
	{"RSV1 on a ping", masked(0xc9, evil), ws.ErrReserved},
	{"RSV2 on a pong", masked(0xaa, evil), ws.ErrReserved},
	{"RSV3 on a close", masked(0x98, closePayload(1000, "")), ws.ErrReserved},
	{"opcode 3", masked(0x83, evil), ws.ErrOpcode},
	{"opcode 4", masked(0x84, evil), ws.ErrOpcode},
	{"opcode 5", masked(0x85, evil), ws.ErrOpcode},
	{"opcode 6", masked(0x86, evil), ws.ErrOpcode},
	{"opcode 7", masked(0x87, evil), ws.ErrOpcode},
	{"opcode 11", masked(0x8b, evil), ws.ErrOpcode},
	{"opcode 12", masked(0x8c, evil), ws.ErrOpcode},
	{"opcode 13", masked(0x8d, evil), ws.ErrOpcode},
	{"opcode 14", masked(0x8e, evil), ws.ErrOpcode},
	{"opcode 15", masked(0x8f, evil), ws.ErrOpcode},
	{"opcode 3 without FIN", masked(0x03, evil), ws.ErrOpcode},
	{"length 125 in 16 bits", append(length(0x82, 2, 125), evil...), ws.ErrLength},
	{"length 0 in 16 bits", length(0x82, 2, 0), ws.ErrLength},
	{"length 65535 in 64 bits", append(length(0x82, 8, 65535), evil...), ws.ErrLength},
	{"length 4 in 64 bits", append(length(0x82, 8, 4), evil...), ws.ErrLength},
	{"length with the top bit", append(length(0x82, 8, 1<<63), evil...), ws.ErrLength},
	{"length of all ones", append(length(0x82, 8, 1<<64-1), evil...), ws.ErrLength},
	// Section 5.1, masking.
	{"unmasked binary", slices.Concat([]byte{0x82, 4}, []byte(evil)), ws.ErrMask},
	{"unmasked text", slices.Concat([]byte{0x81, 4}, []byte(evil)), ws.ErrMask},
	{"unmasked ping", slices.Concat([]byte{0x89, 4}, []byte(evil)), ws.ErrMask},
	{"unmasked close", []byte{0x88, 2, 0x03, 0xe8}, ws.ErrMask},
	{"unmasked, empty", []byte{0x82, 0}, ws.ErrMask},
	{"unmasked, of 1 MiB", []byte{0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0}, ws.ErrMask},
	{"unmasked continuation", slices.Concat(masked(0x02, ""), []byte{0x80, 4}, []byte(evil)), ws.ErrMask},
	// Section 5.4, fragmentation.
	{"continuation without a start", masked(0x80, evil), ws.ErrContinuation},
	{"continuation without a start or an end", masked(0x00, evil), ws.ErrContinuation},
	{"continuation after the last", slices.Concat(masked(0x02, ""), masked(0x80, ""), masked(0x80, evil)), ws.ErrContinuation},
	{"binary inside a message", slices.Concat(masked(0x02, ""), masked(0x82, evil)), ws.ErrContinuation},
	{"text inside a text", slices.Concat(masked(0x01, ""), masked(0x00, ""), masked(0x81, evil)), ws.ErrContinuation},
	{"text without FIN inside a binary", slices.Concat(masked(0x02, ""), masked(0x01, evil)), ws.ErrContinuation},
	// Section 5.5, control frames.
	{"fragmented ping", masked(0x09, evil), ws.ErrControl},
	{"fragmented pong", masked(0x0a, evil), ws.ErrControl},
	{"fragmented close", masked(0x08, closePayload(1000, "")), ws.ErrControl},
	{"ping of 126 bytes", masked(0x89, strings.Repeat("x", 126)), ws.ErrControl},
	{"pong of 126 bytes", masked(0x8a, strings.Repeat("x", 126)), ws.ErrControl},
	{"close of 126 bytes", masked(0x88, closePayload(1000, strings.Repeat("x", 124))), ws.ErrControl},
	{"ping of 64 KiB", length(0x89, 8, 1<<16), ws.ErrControl},
	{"ping of 4 bytes, its length in 16 bits", append(length(0x89, 2, 4), evil...), ws.ErrControl},
	// Sections 5.5.1 and 7.4, close frames.
	{"close of 1 byte", masked(0x88, "\x03"), ws.ErrClosePayload},
	{"close with code 0", masked(0x88, closePayload(0, "")), ws.ErrClosePayload},
	{"close with code 999", masked(0x88, closePayload(999, "")), ws.ErrClosePayload},
	{"close with code 1004", masked(0x88, closePayload(1004, "")), ws.ErrClosePayload},
	{"close with code 1005", masked(0x88, closePayload(1005, "")), ws.ErrClosePayload},
	{"close with code 1006", masked(0x88, closePayload(1006, "")), ws.ErrClosePayload},
	{"close with code 1015", masked(0x88, closePayload(1015, "")), ws.ErrClosePayload},
	{"close with code 1016", masked(0x88, closePayload(1016, "")), ws.ErrClosePayload},
	{"close with code 2000", masked(0x88, closePayload(2000, "")), ws.ErrClosePayload},
	{"close with code 2999", masked(0x88, closePayload(2999, "")), ws.ErrClosePayload},
	{"close with code 5000", masked(0x88, closePayload(5000, "")), ws.ErrClosePayload},
	{"close with code 65535", masked(0x88, closePayload(65535, "")), ws.ErrClosePayload},
	{"close with a reason that is no UTF-8", masked(0x88, closePayload(1000, "\xc3\x28")), ws.ErrClosePayload},
	{"close with a reason that is cut in a character", masked(0x88, closePayload(1000, "\xe2\x82")), ws.ErrClosePayload},
	{"close with a surrogate in the reason", masked(0x88, closePayload(1000, "\xed\xa0\x80")), ws.ErrClosePayload},
}

// Whoever breaks the protocol is told 1002 and what was wrong; the other side is told
// 1002 and who it was, after all that was good, and never sees the bad frame.
func TestProtocolViolations(t *testing.T) {
	n := newRawNode(t)
	for _, v := range violations {
		for _, by := range []string{"requester", "device"} {
			for _, apart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s by the %s, apart %t", v.name, by, apart), func(t *testing.T) {
					requester, device := n.open()
					from, to := requester, device
					if by == "device" {
						from, to = device, requester
					}
					from.t, to.t = t, t
					defer from.Close()
					defer to.Close()
					good := masked(0x81, "good")
					if apart { // so that the bad frame comes byte by byte, and the good one has been passed on
						from.send(good)
						if _, p, err := to.frame(); string(p) != "good" {
							t.Fatalf("got %q, %v", p, err)
						}
						for _, b := range v.send {
							if _, err := from.Write([]byte{b}); err != nil {
								break // it has been told already
							}
						}
					} else {
						from.send(slices.Concat(good, v.send, masked(0x82, evil)))
					}
					data, code, reason := to.closed()
					if want := map[bool]string{false: "good", true: ""}[apart]; string(data) != want {
						t.Errorf("the other side got %q, want %q", data, want)
					}
					if want := "protocol: the " + by + " broke the WebSocket protocol"; code != 1002 || reason != want {
						t.Errorf("the other side was told %d %q, want 1002 %q", code, reason, want)
					}
					to.send(masked(0x88, closePayload(1002, "")))
					if _, _, err := to.frame(); !errors.Is(err, io.EOF) {
						t.Errorf("after the close the other side got %v", err)
					}
					data, code, reason = from.closed()
					if want := "protocol: " + v.what.Error(); len(data) > 0 || code != 1002 || reason != want {
						t.Errorf("the offender was told %q, %d %q, want 1002 %q", data, code, reason, want)
					}
				})
			}
		}
	}
}

// Who breaks the protocol while the device is on its way is told, too, and the device
// that comes then finds the bridge gone.
func TestProtocolViolationsWhileWaiting(t *testing.T) {
	n := newRawNode(t)
	for _, v := range violations {
		t.Run(v.name, func(t *testing.T) {
			early := n.shake("/bridge/connect?deviceId=d&upgrade=early")
			early.t = t
			early.answered()
			early.send(slices.Concat(masked(0x81, "good"), v.send))
			_, code, reason := early.closed()
			if want := "protocol: " + v.what.Error(); code != 1002 || reason != want {
				t.Errorf("told %d %q, want 1002 %q", code, reason, want)
			}
			early.Close()
			resp, err := http.ReadResponse(n.shake(n.acceptPath()).br, nil)
			if err != nil || resp.StatusCode != http.StatusGone {
				t.Errorf("the device got %v, %v, want 410", resp, err)
			}
		})
	}
}

// What looks odd and is allowed is passed on as it is. Text is not looked at: whether it is
// UTF-8 is for the end that reads it to judge, as with any proxy (RFC 6455 section 8.1).
func TestProtocolOddities(t *testing.T) {
	n := newRawNode(t)
	for _, tt := range []struct {
		name string
		send []byte
		want string // first byte and payload of what arrives, frame by frame
	}{
		{"text that is no UTF-8", masked(0x81, "\xff\xfe\xc3("), "\x81\xff\xfe\xc3("},
		{"text cut inside a character", slices.Concat(masked(0x01, "\xe2\x82"), masked(0x80, "\xac")), "\x01\xe2\x82|\x80\xac"},
		{"empty messages", slices.Concat(masked(0x81, ""), masked(0x82, "")), "\x81|\x82"},
		{"a pong that nobody asked for", slices.Concat(masked(0x8a, "x"), masked(0x82, "y")), "\x82y"},
		{"a ping inside a message", slices.Concat(masked(0x02, "a"), masked(0x89, ""), masked(0x80, "b")), "\x02a|\x80b"},
		{"126 bytes in 16 bits", slices.Concat(masked(0x82, strings.Repeat("z", 126))), "\x82" + strings.Repeat("z", 126)},
		{"close without a code", masked(0x88, ""), "\x88"},
		{"close with code 1012", masked(0x88, closePayload(1012, "")), "\x88\x03\xf4"},
		{"close with code 3000", masked(0x88, closePayload(3000, "library")), "\x88\x0b\xb8library"},
		{"close with code 4999", masked(0x88, closePayload(4999, "private")), "\x88\x13\x87private"},
		{"close with the longest reason", masked(0x88, closePayload(1000, strings.Repeat("é", 61)+"x")), "\x88\x03\xe8" + strings.Repeat("é", 61) + "x"},
		// Section 5.5.1: nothing follows a close frame; it is not read any more.
		{"data after a close", slices.Concat(masked(0x88, closePayload(1000, "")), masked(0x82, evil)), "\x88\x03\xe8"},
		{"a violation after a close", slices.Concat(masked(0x88, closePayload(1000, "")), masked(0xff, evil)), "\x88\x03\xe8"},
		{"a second close", slices.Concat(masked(0x88, closePayload(1000, "")), masked(0x88, closePayload(1011, evil))), "\x88\x03\xe8"},
	} {
		for _, by := range []string{"requester", "device"} {
			t.Run(tt.name+" by the "+by, func(t *testing.T) {
				from, to := n.open()
				if by == "device" {
					from, to = to, from
				}
				from.t, to.t = t, t
				defer from.Close()
				defer to.Close()
				from.send(tt.send)
				var got [][]byte
				for range strings.Count(tt.want, "|") + 1 {
					first, payload, err := to.frame()
					if err != nil {
						t.Fatalf("after %q: %v", got, err)
					}
					got = append(got, append([]byte{first}, payload...))
				}
				if all := bytes.Join(got, []byte("|")); string(all) != tt.want {
					t.Errorf("got %q, want %q", all, tt.want)
				}
				to.send(masked(0x88, closePayload(1001, "bye")))
				if tt.want[0] == 0x88 {
					if first, payload, err := to.frame(); !errors.Is(err, io.EOF) {
						t.Errorf("after the close came %#x %q, %v", first, payload, err)
					}
					return
				}
				if data, code, reason := from.closed(); len(data) > 0 || code != 1001 || reason != "bye" {
					t.Errorf("the sender got %q, %d %q", data, code, reason)
				}
			})
		}
	}
	if strings.Contains(n.log.String(), wire.ParamBridgeToken) {
		t.Error("a token is in the log")
	}
}
