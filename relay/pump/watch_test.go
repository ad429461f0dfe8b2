package pump

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// watched starts Watch and returns how to stop it and what it said.
func watched(t *testing.T, l *Leg) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- l.Watch(ctx) }()
	return func() error {
		cancel()
		return <-result
	}
}

func TestWatchLeft(t *testing.T) {
	for _, test := range []struct {
		name string
		send []byte
		end  bool
		want error
	}{
		{"close frame", clientFrame(0x88, "\x03\xe8"), false, ErrLeft},
		{"close frame after data", append(clientFrame(0x82, "data"), clientFrame(0x88, "")...), false, ErrLeft},
		{"end", nil, true, ErrLeft},
		{"end after data", clientFrame(0x82, "data"), true, ErrLeft},
		{"end in a frame", clientFrame(0x82, "data")[:8], true, ErrLeft},
		{"reserved bit", []byte{0xc2, 0x80}, false, ws.ErrReserved},
		{"oversized ping", []byte{0x89, 0xfe}, false, ws.ErrControl},
		{"unmasked", serverFrame(0x82, "x"), false, ws.ErrMask},
		{"continuation of nothing", clientFrame(0x80, "x")[:6], false, ws.ErrContinuation},
		{"continuation after the last", slices.Concat(clientFrame(0x01, "x"), clientFrame(0x80, "y"), clientFrame(0x80, "z")), false, ws.ErrContinuation},
		{"message in a message", slices.Concat(clientFrame(0x01, "x"), clientFrame(0x00, "y"), clientFrame(0x82, "z")), false, ws.ErrContinuation},
		{"close of one byte", clientFrame(0x88, "\x03"), false, ws.ErrClosePayload},
		{"close with code 1005", clientFrame(0x88, "\x03\xed"), false, ws.ErrClosePayload},
		{"unmasked, long", serverFrame(0x82, strings.Repeat("x", 70000))[:20], false, ws.ErrMask},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, l := newPeer(t)
				result := make(chan error, 1)
				go func() { result <- l.Watch(t.Context()) }()
				if test.send != nil {
					p.raw(test.send)
				}
				if test.end {
					p.Close()
				}
				if err := <-result; !errors.Is(err, test.want) {
					t.Errorf("Watch returned %v, want %v", err, test.want)
				}
				// The refusal reaches who is still there, and none waits for who is not.
				go func() {
					if !test.end {
						p.wantClose(1001, "bye")
					}
					p.Close()
				}()
				start := time.Now()
				l.Close(1001, "bye")
				if d := time.Since(start); d != 0 {
					t.Errorf("Close took %v", d)
				}
			})
		})
	}
}

// What came early comes first, wherever Watch was interrupted, and however often.
func TestWatchKeepsData(t *testing.T) {
	wireBytes := bytes.ReplaceAll(mixed, clientFrame(0x88, "\x03\xe8bye"), nil)
	want, _, _ := parse(wireBytes, true)
	for i := range len(wireBytes) {
		synctest.Test(t, func(t *testing.T) {
			requester, left := newPeer(t)
			device, right := newPeer(t)
			pongs := make(chan frame, 1)
			got := make(chan []byte, 1)
			go func() {
				f, _ := requester.next()
				pongs <- f
				io.Copy(io.Discard, requester)
			}()
			stop := watched(t, left)
			requester.raw(wireBytes[:i/2])
			synctest.Wait()
			if err := stop(); err != nil {
				t.Errorf("Watch returned %v", err)
			}
			stop = watched(t, left)
			requester.raw(wireBytes[i/2 : i])
			synctest.Wait()
			if err := stop(); err != nil {
				t.Errorf("Watch returned %v", err)
			}
			go func() {
				b, _ := io.ReadAll(device)
				got <- b
			}()
			result := make(chan Result, 1)
			go func() { result <- Run(t.Context(), left, right, quiet) }()
			requester.raw(wireBytes[i:])
			if f := <-pongs; f.finOp != 0x8a || f.payload != "ping" {
				t.Errorf("cut at %d: got %#x %q, want a pong", i, f.finOp, f.payload)
			}
			synctest.Wait()
			requester.Close()
			device.Close()
			<-result
			msgs, controls, bad := parse(<-got, false)
			if bad {
				t.Errorf("cut at %d: bad output", i)
			}
			if describe(msgs) != describe(want) {
				t.Errorf("cut at %d: got %s, want %s", i, describe(msgs), describe(want))
			}
			if len(controls) > 1 { // but for the close frame
				t.Errorf("cut at %d: got controls %v", i, controls)
			}
		})
	}
}

func TestWatchAnswersPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := newPeer(t)
		stop := watched(t, l)
		for range 1000 { // none of it is kept
			p.send(0x89, strings.Repeat("x", 125))
			p.want(0x8a, strings.Repeat("x", 125))
			p.send(0x8a, "unasked")
		}
		if err := stop(); err != nil {
			t.Errorf("Watch returned %v", err)
		}
		if len(l.early) > 0 || cap(l.early) > 512 {
			t.Errorf("%d bytes are kept in %d", len(l.early), cap(l.early))
		}
		go l.Close(1001, "")
		p.wantClose(1001, "")
		p.Close()
	})
}

// One buffer is read ahead, no more, and none of it is lost.
func TestWatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		const total = 300 << 10
		go func() {
			for range total / 1024 {
				requester.send(0x82, strings.Repeat("x", 1024))
			}
			requester.sendClose(1000, "")
		}()
		if err := left.Watch(t.Context()); err != nil {
			t.Errorf("Watch returned %v", err)
		}
		if len(left.early) != bufSize || cap(left.early) != bufSize {
			t.Errorf("%d bytes are kept in %d", len(left.early), cap(left.early))
		}
		if err := left.Watch(t.Context()); err != nil {
			t.Errorf("the next Watch returned %v", err)
		}
		result := make(chan Result, 1)
		go func() { result <- Run(t.Context(), left, right, quiet) }()
		for got := 0; got < total; {
			f, err := device.next()
			if err != nil {
				t.Fatal(err)
			}
			got += len(f.payload)
		}
		device.wantClose(1000, "")
		device.sendClose(1000, "")
		requester.wantClose(1000, "")
		(<-result).check(t, Result{Reason: wire.Done, By: Requester, CloseCode: 1000, ToDevice: total})
	})
}

// The interrupt comes at any time, and breaks nothing; over TLS as well, where a
// timeout may hit in the middle of a record.
func TestWatchInterruptRace(t *testing.T) {
	cert := func() tls.Certificate {
		s := httptest.NewTLSServer(nil)
		defer s.Close()
		return s.TLS.Certificates[0]
	}()
	for _, secure := range []bool{false, true} {
		for range 100 {
			a, b := tcpPair(t)
			if secure {
				a = tls.Client(a, &tls.Config{InsecureSkipVerify: true})
				s := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}})
				go a.(*tls.Conn).Handshake()
				if err := s.Handshake(); err != nil { // net/http has done it long before
					t.Fatal(err)
				}
				b = s
			}
			l := NewLeg(b)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 50 {
					a.Write(clientFrame(0x82, "some data"))
				}
			})
			for range 5 {
				ctx, cancel := context.WithCancel(t.Context())
				wg.Go(cancel)
				if err := l.Watch(ctx); err != nil {
					t.Fatalf("Watch returned %v", err)
				}
			}
			var got strings.Builder
			done := errors.New("done")
			err := l.frames(new(reader), takeFunc(func(out []byte, _ int64, _ *control) error {
				got.Write(out)
				if got.Len() >= 50*11 {
					return done
				}
				return nil
			}))
			wg.Wait()
			if want := strings.Repeat(string(serverFrame(0x82, "some data")), 50); err != done || messages(got.String()) != messages(want) {
				t.Fatalf("got %d bytes, %v", got.Len(), err)
			}
			a.Close()
			b.Close()
		}
	}
}

// messages forgets frame boundaries.
func messages(s string) string {
	msgs, _, _ := parse([]byte(s), false)
	return describe(msgs)
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestLegClose(t *testing.T) {
	for _, test := range []struct {
		name string
		peer func(p *peer)
		want time.Duration
	}{
		{"answers", func(p *peer) {
			p.send(0x82, "on its way")
			p.wantClose(4503, "draining")
			p.send(0x89, "")
			p.sendClose(4503, "")
			p.wantEnd()
		}, 0},
		{"goes", func(p *peer) {
			p.wantClose(4503, "draining")
			p.Close()
		}, 0},
		{"is silent", func(p *peer) {
			p.wantClose(4503, "draining")
			p.wantEnd()
		}, CloseTimeout},
		{"reads nothing", func(*peer) {}, CloseTimeout},
		{"talks", func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write(clientFrame(0x82, "x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, CloseTimeout},
		{"sends garbage", func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write([]byte{0xff, 0xff}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, CloseTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, l := newPeer(t)
				start := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() { test.peer(p) })
				l.Close(4503, "draining")
				if got := time.Since(start); got != test.want {
					t.Errorf("Close took %v, want %v", got, test.want)
				}
				wg.Wait()
				p.Close()
			})
		})
	}
}
