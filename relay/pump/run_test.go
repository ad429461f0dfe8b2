package pump

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

func TestRunPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		go func() {
			requester.send(0x81, "text")
			requester.send(0x82, "")
			requester.send(0x02, "never")
			requester.send(0x00, "FIN")
		}()
		device.want(0x81, "text")
		device.want(0x82, "")
		device.want(0x02, "never")
		device.want(0x00, "FIN")
		go device.send(0x82, "answer")
		requester.want(0x82, "answer")
		go requester.send(0x00, "!") // the same message still
		device.want(0x00, "!")

		go requester.sendClose(1000, "bye")
		device.wantClose(1000, "bye")
		go device.sendClose(1000, "")
		requester.wantClose(1000, "")
		requester.wantEnd()
		device.wantEnd()
		(<-result).check(t, Result{Reason: wire.Done, By: Requester, CloseCode: 1000, Text: "bye", ToDevice: 13, ToRequester: 6})
	})
}

func TestRunCloseCodes(t *testing.T) {
	for _, code := range []int{1000, 1001, 1003, 1005, 1008, 1011, 1012, 3000, 4000, 4999} {
		for _, by := range []Side{Requester, Device} {
			reason := "because €"
			if code == 1005 {
				reason = ""
			}
			t.Run(fmt.Sprint(code, " by ", by), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					from, to, result := run(t, t.Context(), quiet)
					if by == Device {
						from, to = to, from
					}
					go from.sendClose(code, reason)
					to.wantClose(code, reason)
					go to.sendClose(code, "")
					from.wantClose(code, "")
					from.wantEnd()
					to.wantEnd()
					(<-result).check(t, Result{Reason: wire.Done, By: by, CloseCode: code, Text: reason})
				})
			})
		}
	}
}

// What is under way against a close frame arrives, until its answer.
func TestRunDataAgainstClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		go requester.sendClose(4000, "done")
		device.wantClose(4000, "done")
		go func() {
			for i := range 100 {
				time.Sleep(10 * time.Millisecond)
				device.send(0x82, fmt.Sprint(i))
			}
			device.sendClose(4001, "me too")
		}()
		for i := range 100 {
			requester.want(0x82, fmt.Sprint(i))
		}
		requester.wantClose(4001, "me too")
		requester.wantEnd()
		device.wantEnd()
		(<-result).check(t, Result{Reason: wire.Done, By: Requester, CloseCode: 4000, Text: "done", ToRequester: 190})
	})
}

func TestRunBothClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		requester.sendClose(4000, "I")
		device.sendClose(4001, "you")
		requester.wantClose(4001, "you")
		device.wantClose(4000, "I")
		requester.wantEnd()
		device.wantEnd()
		if res := <-result; res.Reason != wire.Done {
			t.Errorf("got %+v", res)
		}
	})
}

// A side that does not answer a close frame is answered for.
func TestRunCloseIsNotAnswered(t *testing.T) {
	for _, test := range []struct {
		name  string
		after func(device *peer)
		want  time.Duration
	}{
		{"silent", func(*peer) {}, CloseTimeout},
		{"gone", func(device *peer) { device.Close() }, 0},
		{"broken", func(device *peer) { device.raw([]byte{0xff, 0xff}) }, 0},
		{"still talking", func(device *peer) {
			go io.Copy(io.Discard, device)
			for {
				if _, err := device.Write(clientFrame(0x82, "x")); err != nil {
					return
				}
				time.Sleep(time.Second / 3)
			}
		}, CloseTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requester, device, result := run(t, t.Context(), quiet)
				defer device.Close()
				start := time.Now()
				go requester.sendClose(4000, "done")
				device.wantClose(4000, "done")
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					test.after(device)
					io.Copy(io.Discard, device)
				})
				for {
					f, err := requester.next()
					if err != nil {
						t.Fatal(err)
					}
					if f.finOp == 0x88 {
						if f.payload != closing(4000, "") {
							t.Errorf("answered with %q", f.payload)
						}
						break
					}
				}
				if got := time.Since(start); got != test.want {
					t.Errorf("answered after %v, want %v", got, test.want)
				}
				requester.wantEnd()
				if res := <-result; res.Reason != wire.Done || res.CloseCode != 4000 || res.By != Requester {
					t.Errorf("got %+v", res)
				}
			})
		})
	}
}

func TestRunPeerLost(t *testing.T) {
	for _, by := range []Side{Requester, Device} {
		synctest.Test(t, func(t *testing.T) {
			from, to, result := run(t, t.Context(), quiet)
			if by == Device {
				from, to = to, from
			}
			go func() {
				from.raw(clientFrame(0x82, "hello")[:9]) // in the middle of a frame
				from.Close()
			}()
			to.want(0x02, "hel")
			to.wantClose(1001, "peer_lost: the "+string(by)+"'s connection ended without a close frame")
			to.sendClose(1001, "")
			to.wantEnd()
			res := <-result
			if res.Reason != wire.PeerLost || res.By != by || res.ToDevice+res.ToRequester != 3 {
				t.Errorf("got %+v", res)
			}
		})
	}
}

// A peer that sends a close frame and goes at once has said why it went, even
// if a write to it fails before that is read.
func TestRunCloseThenGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		gate := make(chan struct{})
		right.conn = &faulty{Conn: right.conn, failWrite: 1, gate: gate}
		result := make(chan Result, 1)
		go func() { result <- Run(t.Context(), left, right, quiet) }()
		requester.send(0x82, "to nobody") // this write fails
		synctest.Wait()
		close(gate) // and only now the close frame is read
		device.sendClose(4000, "why")
		requester.wantClose(4000, "why")
		requester.sendClose(4000, "")
		requester.wantEnd()
		(<-result).check(t, Result{Reason: wire.Done, By: Device, CloseCode: 4000, Text: "why"})
	})
}

func TestRunWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		defer device.Close()
		right.conn = &faulty{Conn: right.conn, failWrite: 1}
		result := make(chan Result, 1)
		go func() { result <- Run(t.Context(), left, right, quiet) }()
		requester.send(0x82, "to nobody")
		requester.wantClose(1001, "peer_lost: the device's connection ended without a close frame")
		requester.sendClose(1001, "")
		requester.wantEnd()
		(<-result).check(t, Result{Reason: wire.PeerLost, By: Device, Text: "fault"})
	})
}

// What comes for a peer to which nothing can be written any more, not even a pong, has not
// been passed on.
func TestRunPongFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		right.conn = &faulty{Conn: right.conn, failWrite: 1}
		result := make(chan Result, 1)
		go func() { result <- Run(t.Context(), left, right, quiet) }()
		device.send(0x89, "") // its pong fails
		synctest.Wait()
		requester.send(0x82, "to nobody")
		synctest.Wait()
		device.Close()
		requester.wantClose(1001, "peer_lost: the device's connection ended without a close frame")
		requester.sendClose(1001, "")
		requester.wantEnd()
		(<-result).check(t, Result{Reason: wire.PeerLost, By: Device, Text: "the connection ended without a close frame"})
	})
}

// After half a frame, not even a close frame may follow.
func TestRunNothingFollowsATornFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			b := make([]byte, 3)
			io.ReadFull(requester, b) // and then it reads no more
			time.Sleep(CloseTimeout + time.Second)
			rest, _ := io.ReadAll(requester)
			got = append(b, rest...)
		})
		device.send(0x82, "a frame that is torn")
		go requester.sendClose(4000, "")
		device.wantClose(4000, "")
		device.Write(clientFrame(0x88, closing(4000, ""))) // which nobody reads any more
		wg.Wait()
		if len(got) != 3 {
			t.Errorf("after half a frame came %x", got[3:])
		}
		if res := <-result; res.Reason != wire.Done {
			t.Errorf("got %+v", res)
		}
	})
}

// violations are the ways to break RFC 6455 sections 5 to 7.
var violations = []struct {
	name string
	wire []byte
	want ws.ProtocolError
}{
	{"RSV1", []byte{0xc2, 0x80}, ws.ErrReserved},
	{"RSV2", []byte{0xa2, 0x80}, ws.ErrReserved},
	{"RSV3", []byte{0x92, 0x80}, ws.ErrReserved},
	{"RSV1 on a ping", []byte{0xc9, 0x80}, ws.ErrReserved},
	{"opcode 3", []byte{0x83, 0x80}, ws.ErrOpcode},
	{"opcode 7", []byte{0x87, 0x80}, ws.ErrOpcode},
	{"opcode 11", []byte{0x8b, 0x80}, ws.ErrOpcode},
	{"opcode 15", []byte{0x8f, 0x80}, ws.ErrOpcode},
	{"fragmented ping", []byte{0x09, 0x80}, ws.ErrControl},
	{"fragmented pong", []byte{0x0a, 0x80}, ws.ErrControl},
	{"fragmented close", []byte{0x08, 0x80}, ws.ErrControl},
	{"oversized ping", clientFrame(0x89, strings.Repeat("x", 126))[:4], ws.ErrControl},
	{"oversized close", clientFrame(0x88, "\x03\xe8"+strings.Repeat("x", 124))[:4], ws.ErrControl},
	{"unmasked", serverFrame(0x82, "x"), ws.ErrMask},
	{"unmasked ping", serverFrame(0x89, ""), ws.ErrMask},
	{"unmasked close", serverFrame(0x88, "\x03\xe8"), ws.ErrMask},
	{"length not shortest", []byte{0x82, 0xfe, 0x00, 0x05}, ws.ErrLength},
	{"negative length", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, ws.ErrLength},
	{"continuation of nothing", clientFrame(0x80, "x"), ws.ErrContinuation},
	{"continuation after the last", slices.Concat(clientFrame(0x02, ""), clientFrame(0x80, ""), clientFrame(0x80, "")), ws.ErrContinuation},
	{"message in a message", slices.Concat(clientFrame(0x02, ""), clientFrame(0x82, "")), ws.ErrContinuation},
	{"close of one byte", clientFrame(0x88, "\x03"), ws.ErrClosePayload},
	{"close with code 0", clientFrame(0x88, "\x00\x00"), ws.ErrClosePayload},
	{"close with code 999", clientFrame(0x88, "\x03\xe7"), ws.ErrClosePayload},
	{"close with code 1004", clientFrame(0x88, "\x03\xec"), ws.ErrClosePayload},
	{"close with code 1005", clientFrame(0x88, "\x03\xed"), ws.ErrClosePayload},
	{"close with code 1006", clientFrame(0x88, "\x03\xee"), ws.ErrClosePayload},
	{"close with code 1015", clientFrame(0x88, "\x03\xf7"), ws.ErrClosePayload},
	{"close with code 2000", clientFrame(0x88, "\x07\xd0"), ws.ErrClosePayload},
	{"close with code 5000", clientFrame(0x88, "\x13\x88"), ws.ErrClosePayload},
	{"close with bad UTF-8", clientFrame(0x88, "\x03\xe8\xc3\x28"), ws.ErrClosePayload},
}

func TestRunProtocolErrors(t *testing.T) {
	for _, test := range violations {
		for _, by := range []Side{Requester, Device} {
			t.Run(test.name+" by "+string(by), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					from, to, result := run(t, t.Context(), quiet)
					if by == Device {
						from, to = to, from
					}
					var wg sync.WaitGroup
					wg.Go(func() {
						from.send(0x81, "good")
						from.raw(test.wire)
						from.raw([]byte("whatever follows is thrown away")) // not reset, which could destroy the close frame
					})
					to.want(0x81, "good")
					for f, err := to.next(); ; f, err = to.next() {
						if err != nil {
							t.Fatal(err)
						}
						if f.payload == "" { // the good part of the test's frames
							continue
						}
						if want := closing(1002, "protocol: the "+string(by)+" broke the WebSocket protocol"); f.finOp != 0x88 || f.payload != want {
							t.Errorf("got %#x %q, want %q", f.finOp, f.payload, want)
						}
						break
					}
					from.wantClose(1002, wire.Reason{Code: wire.ProtocolErr, Text: test.want.Error()}.String())
					to.sendClose(1002, "")
					to.wantEnd() // without waiting for the other
					wg.Wait()
					from.Close()
					(<-result).check(t, Result{Reason: wire.ProtocolErr, By: by, Text: test.want.Error(), ToDevice: when(by == Requester, 4), ToRequester: when(by == Device, 4)})
				})
			})
		}
	}
}

func when(b bool, n int64) int64 {
	if b {
		return n
	}
	return 0
}

// An offender that neither reads nor goes is left after CloseTimeout.
func TestRunProtocolErrorIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		defer requester.Close()
		requester.raw([]byte{0xff, 0xff})
		go io.Copy(io.Discard, device)
		go device.sendClose(1002, "")
		if res := <-result; res.Duration != CloseTimeout {
			t.Errorf("took %v, want %v", res.Duration, CloseTimeout)
		}
	})
}
