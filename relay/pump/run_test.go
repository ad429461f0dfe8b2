package pump

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// A peer is a client, frame by frame, over a pipe that has no buffer: what is
// not read blocks.
type peer struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
}

type frame struct {
	finOp   byte
	payload string
}

func newPeer(t *testing.T) (*peer, *Leg) {
	a, b := net.Pipe()
	return &peer{t, a, bufio.NewReader(a)}, NewLeg(b)
}

// run starts a pump. It belongs into a synctest bubble, which fails when a
// goroutine is left.
func run(t *testing.T, ctx context.Context, cfg Config) (requester, device *peer, result <-chan Result) {
	requester, left := newPeer(t)
	device, right := newPeer(t)
	ch := make(chan Result, 1)
	go func() { ch <- Run(ctx, left, right, cfg) }()
	return requester, device, ch
}

var quiet = Config{Ping: -1, Dead: -1}

func (p *peer) next() (f frame, err error) {
	for n := 2; ; n++ {
		b, err := p.br.Peek(n)
		if err != nil {
			return f, err
		}
		h, size, err := ws.ParseHeader(b)
		if err != nil {
			return f, err
		}
		if size == 0 {
			continue
		}
		if h.Masked {
			return f, errors.New("a server's frame is masked")
		}
		p.br.Discard(size)
		payload := make([]byte, h.Len)
		_, err = io.ReadFull(p.br, payload)
		if f.finOp = h.Opcode; h.Fin {
			f.finOp |= 0x80
		}
		f.payload = string(payload)
		return f, err
	}
}

func (p *peer) want(finOp byte, payload string) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("got %v, want frame %#x %.60q", err, finOp, payload)
	}
	if f.finOp != finOp || f.payload != payload {
		p.t.Fatalf("got frame %#x %.60q, want %#x %.60q", f.finOp, f.payload, finOp, payload)
	}
}

func (p *peer) wantClose(code int, reason string) {
	p.t.Helper()
	p.want(0x88, closing(code, reason))
}

// wantEnd is that of the connection.
func (p *peer) wantEnd() {
	p.t.Helper()
	if f, err := p.next(); err != io.EOF {
		p.t.Fatalf("got %#x %.60q, %v, want the end", f.finOp, f.payload, err)
	}
}

func closing(code int, reason string) string { return string(ws.AppendClose(nil, code, reason)) }

func (p *peer) send(finOp byte, payload string) {
	p.t.Helper()
	p.raw(clientFrame(finOp, payload))
}

func (p *peer) sendClose(code int, reason string) {
	p.t.Helper()
	p.send(0x88, closing(code, reason))
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

// check compares all but the duration.
func (r Result) check(t *testing.T, want Result) {
	t.Helper()
	r.Duration = 0
	if r != want {
		t.Errorf("got result %+v, want %+v", r, want)
	}
}

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

func TestRunStop(t *testing.T) {
	for _, test := range []struct {
		name  string
		cause error
		code  int
		text  string
		want  Result
	}{
		{"draining", &Stop{Code: wire.Draining, Text: "connect again"}, 1012, "draining: connect again", Result{Reason: wire.Draining, By: Relay, Text: "connect again"}},
		{"draining, wrapped", fmt.Errorf("stop: %w", &Stop{Code: wire.Draining}), 1012, "draining", Result{Reason: wire.Draining, By: Relay}},
		{"owner lost", &Stop{Code: wire.OwnerLost, Text: "x"}, 1012, "owner_lost: x", Result{Reason: wire.OwnerLost, By: Relay, Text: "x"}},
		{"overload", &Stop{Code: wire.Overload, Text: "x"}, 1013, "overload: x", Result{Reason: wire.Overload, By: Relay, Text: "x"}},
		{"killed", &Stop{Code: wire.Forbidden, Text: "x"}, 4403, "forbidden: x", Result{Reason: wire.Forbidden, By: Relay, Text: "x"}},
		{"a code without a number", &Stop{Code: wire.BridgeGone, Text: "x"}, 1011, "bridge_gone: x", Result{Reason: wire.BridgeGone, By: Relay, Text: "x"}},
		{"other", errors.New("secret"), 1011, "internal: the node stops", Result{Reason: wire.Internal, By: Relay, Text: "the node stops"}},
		{"long", &Stop{Code: wire.Draining, Text: strings.Repeat("€", 200)}, 1012, wire.CutReason("draining: " + strings.Repeat("€", 200)), Result{Reason: wire.Draining, By: Relay, Text: strings.Repeat("€", 200)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				requester, device, result := run(t, ctx, quiet)
				go requester.send(0x82, "data")
				device.want(0x82, "data")
				cancel(test.cause)
				for _, p := range []*peer{requester, device} {
					p.wantClose(test.code, test.text)
				}
				requester.send(0x82, "too late") // read and thrown away
				requester.sendClose(test.code, "")
				requester.wantEnd() // the device has not answered yet
				device.sendClose(test.code, "")
				device.wantEnd()
				test.want.ToDevice = 4
				(<-result).check(t, test.want)
			})
		})
	}
}

func TestRunStopBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(&Stop{Code: wire.Draining})
		requester, device, result := run(t, ctx, quiet)
		requester.wantClose(1012, "draining")
		device.wantClose(1012, "draining")
		requester.Close()
		device.Close()
		(<-result).check(t, Result{Reason: wire.Draining, By: Relay})
	})
}

// A stop while nobody reads and both directions are full.
func TestRunStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		requester, device, result := run(t, ctx, Config{Ping: time.Second})
		var wg sync.WaitGroup
		for _, p := range []*peer{requester, device} {
			wg.Go(func() { p.Write(clientFrame(0x82, strings.Repeat("x", 1<<20))) })
		}
		time.Sleep(time.Minute)
		cancel(&Stop{Code: wire.Draining})
		res := <-result
		wg.Wait()
		if got := res.Duration - time.Minute; got > CloseTimeout+goneGrace || res.Reason != wire.Draining {
			t.Errorf("%+v after %v", res, got)
		}
	})
}

func TestRunCaps(t *testing.T) {
	for _, test := range []struct {
		name   string
		cfg    Config
		after  time.Duration
		reason string
		want   Result
	}{
		{"idle", Config{Idle: time.Minute}, 90 * time.Second, "idle_timeout: no data for 1m0s", Result{Reason: wire.IdleTimeout, By: Relay, Text: "no data for 1m0s", ToDevice: 1}},
		{"duration", Config{MaxDuration: time.Minute}, time.Minute, "max_duration: open for 1m0s", Result{Reason: wire.MaxDuration, By: Relay, Text: "open for 1m0s", ToDevice: 1}},
		{"both", Config{MaxDuration: 100 * time.Second, Idle: 80 * time.Second}, 100 * time.Second, "max_duration: open for 1m40s", Result{Reason: wire.MaxDuration, By: Relay, Text: "open for 1m40s", ToDevice: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.cfg.Dead = -1
				requester, device, result := run(t, t.Context(), test.cfg)
				start := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(30 * time.Second)
					requester.send(0x82, "x")
					time.Sleep(10 * time.Second)
					requester.send(0x82, "") // neither these are data,
					requester.send(0x8a, "") // nor the pings
				})
				for _, p := range []*peer{requester, device} {
					wg.Go(func() {
						for {
							f, err := p.next()
							if err != nil {
								t.Error(err)
								return
							}
							if f.finOp == 0x88 {
								if f.payload != closing(1008, test.reason) {
									t.Errorf("got %q, want %q", f.payload, test.reason)
								}
								p.sendClose(1008, "")
								return
							}
						}
					})
				}
				res := <-result
				wg.Wait()
				if got := time.Since(start); got != test.after {
					t.Errorf("ended after %v, want %v", got, test.after)
				}
				res.check(t, test.want)
			})
		})
	}
}

func TestRunMaxBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet
		cfg.MaxBytes = 10
		requester, device, result := run(t, t.Context(), cfg)
		go requester.send(0x82, "12345")
		device.want(0x82, "12345")
		go device.send(0x82, "12345")
		requester.want(0x82, "12345") // exactly as many are allowed
		go requester.send(0x82, "1")
		for _, p := range []*peer{requester, device} {
			p.wantClose(1008, "max_bytes: 10 bytes")
		}
		requester.sendClose(1008, "")
		device.sendClose(1008, "")
		(<-result).check(t, Result{Reason: wire.MaxBytes, By: Relay, Text: "10 bytes", ToDevice: 5, ToRequester: 5})
	})
}

func TestRunPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), Config{})
		start := time.Now()
		for i := range 20 {
			for _, p := range []*peer{requester, device} {
				p.want(0x89, "")
			}
			if got, want := time.Since(start), time.Duration(i+1)*ws.DefaultPing; got != want {
				t.Errorf("ping %d came after %v, want %v", i, got, want)
			}
			requester.send(0x8a, "")
			device.send(0x89, "mine") // any byte is a sign of life
			device.want(0x8a, "mine")
		}
		requester.Close()
		device.wantClose(1001, "peer_lost: the requester's connection ended without a close frame")
		device.Close()
		<-result
	})
}

func TestRunPeerDead(t *testing.T) {
	for _, dead := range []Side{Requester, Device} {
		synctest.Test(t, func(t *testing.T) {
			alive, silent, result := run(t, t.Context(), Config{})
			if dead == Requester {
				alive, silent = silent, alive
			}
			defer silent.Close()
			start := time.Now()
			alive.want(0x89, "")
			alive.send(0x8a, "")
			alive.want(0x89, "")
			alive.send(0x8a, "")
			alive.wantClose(1001, "peer_dead: the "+string(dead)+" went silent")
			if got := time.Since(start); got != ws.DefaultDead {
				t.Errorf("dead after %v, want %v", got, ws.DefaultDead)
			}
			alive.sendClose(1001, "")
			alive.wantEnd()
			(<-result).check(t, Result{Reason: wire.PeerDead, By: dead, Text: "no frame for 35s"})
		})
	}
}

// A peer that is busy sending, one byte of a frame at a time, is not dead; nor
// is one that the pump cannot read from, because the other side does not read.
func TestRunNotDead(t *testing.T) {
	t.Run("busy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			requester, device, result := run(t, t.Context(), Config{})
			go io.Copy(io.Discard, requester)
			go func() {
				for range 30 {
					time.Sleep(30 * time.Second)
					device.Write(clientFrame(0x8a, ""))
				}
				device.sendClose(1000, "")
			}()
			go io.Copy(io.Discard, device)
			b := clientFrame(0x82, strings.Repeat("x", 1000))
			for _, c := range b[:26] { // it reads pings and answers none
				time.Sleep(34 * time.Second)
				requester.raw([]byte{c})
			}
			requester.sendClose(1000, "") // is payload of that frame
			time.Sleep(20 * time.Second)
			requester.Close()
			device.Close()
			if res := <-result; res.Reason == wire.PeerDead {
				t.Errorf("got %+v", res)
			}
		})
	})
	t.Run("slow reader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			requester, device, result := run(t, t.Context(), Config{})
			go func() { // reads pings, but cannot answer them: its writes block
				for {
					if _, err := requester.next(); err != nil {
						return
					}
				}
			}()
			written := make(chan struct{})
			go func() {
				requester.Write(clientFrame(0x82, strings.Repeat("x", 1<<20)))
				close(written)
			}()
			for range 100 { // the device reads nothing for a long time, but says that it lives
				time.Sleep(20 * time.Second)
				device.send(0x8a, "")
			}
			select {
			case <-written:
				t.Error("1 MiB went into a pump that nobody reads from")
			case res := <-result:
				t.Fatalf("the pump ended: %+v", res)
			default:
			}
			got := 0
			for got < 1<<20 {
				f, err := device.next()
				if err != nil {
					t.Fatal(err)
				}
				if f.finOp&8 == 0 {
					got += len(f.payload)
				}
			}
			<-written
			requester.Close()
			device.Close()
			<-result
		})
	})
}

// The other direction lives while one is blocked: its data, pings and their answers.
func TestRunBlockedOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		go requester.Write(clientFrame(0x82, strings.Repeat("x", 200<<10))) // the device reads none of it
		synctest.Wait()
		for i := range 1000 {
			device.send(0x82, fmt.Sprint(i))
			requester.want(0x82, fmt.Sprint(i))
			device.send(0x89, fmt.Sprint(i)) // more than can be kept
		}
		pongs, data := 0, 0
		for data < 200<<10 {
			f, err := device.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.finOp == 0x8a {
				if f.payload != fmt.Sprint(pongs) {
					t.Errorf("pong %q, want %d", f.payload, pongs)
				}
				pongs++
			} else {
				data += len(f.payload)
			}
		}
		if pongs == 0 || pongs > 400 {
			t.Errorf("got %d pongs of 1000", pongs)
		}
		device.send(0x89, "now")
		device.want(0x8a, "now")
		requester.send(0x89, "and here")
		requester.want(0x8a, "and here")
		requester.Close()
		device.Close()
		<-result
	})
}

// A side that does not read stops the other side's writes after one buffer.
func TestRunBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, device, result := run(t, t.Context(), quiet)
		written := 0
		go func() {
			b := clientFrame(0x82, strings.Repeat("x", 1000))
			for {
				n, err := requester.Write(b)
				if written += n; err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if written > bufSize {
			t.Errorf("%d bytes went in and none out", written)
		}
		requester.Close()
		device.Close()
		<-result
	})
}

var errFault = errors.New("fault")

// faulty fails the given read or write, counted from 1, and all after it. Its
// reads wait for the gate.
type faulty struct {
	net.Conn
	failRead, failWrite int
	gate                chan struct{}
	mu                  sync.Mutex
	reads, writes       int
}

func (f *faulty) Read(p []byte) (int, error) {
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	f.reads++
	fail := f.failRead > 0 && f.reads >= f.failRead
	f.mu.Unlock()
	if fail {
		return 0, errFault
	}
	return f.Conn.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.writes++
	fail := f.failWrite > 0 && f.writes >= f.failWrite
	f.mu.Unlock()
	if fail {
		return 0, errFault
	}
	return f.Conn.Write(p)
}

// TestRunFaults fails each read and each write of a leg. The other side must be
// told.
func TestRunFaults(t *testing.T) {
	talk := func(t *testing.T, f *faulty) (ok bool) {
		synctest.Test(t, func(t *testing.T) {
			requester, left := newPeer(t)
			device, right := newPeer(t)
			f.Conn = right.conn
			right.conn = f
			result := make(chan Result, 1)
			go func() { result <- Run(t.Context(), left, right, quiet) }()
			go func() { // echo
				for {
					g, err := device.next()
					if err == nil {
						_, err = device.Write(clientFrame(g.finOp, g.payload))
					}
					if err != nil || g.finOp == 0x88 {
						device.Close()
						return
					}
				}
			}()
			var last frame
			for i := range 5 {
				if i == 4 {
					requester.sendClose(4000, "")
				} else {
					requester.send(0x82, "question")
				}
				var err error
				if last, err = requester.next(); err != nil {
					t.Fatalf("%+v: %v", f, err)
				}
				if last.finOp == 0x88 {
					break
				}
			}
			if last.finOp != 0x88 {
				t.Errorf("%+v: got %#x, want a close frame", f, last.finOp)
			}
			if ok = last.payload == closing(4000, ""); !ok && last.payload != closing(1001, "peer_lost: the device's connection ended without a close frame") {
				t.Errorf("%+v: closed with %q", f, last.payload)
			}
			requester.Close()
			device.Close()
			if res := <-result; ok != (res.Reason == wire.Done) {
				t.Errorf("%+v: %+v", f, res)
			}
		})
		return ok
	}
	for n := 1; !talk(t, &faulty{failRead: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{failWrite: n}); n++ {
	}
}
