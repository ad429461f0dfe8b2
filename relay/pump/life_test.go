package pump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

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
		synctest.Wait() // the pump has seen the last one, too
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

// A ping with words reaches the peer before, during and after Run, in the middle of
// a message as well; its pong is nobody's business.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		long := strings.Repeat("x", 126)
		left.Ping([]byte(long)) // waits for a peer that does not read yet
		requester.want(0x89, long[:125])
		done := make(chan Result, 1)
		go func() { done <- Run(context.Background(), left, right, quiet) }()
		requester.send(0x8a, long[:125])
		requester.send(0x02, "begin")
		device.want(0x02, "begin")
		left.Ping([]byte("draining"))
		right.Ping(nil)
		requester.want(0x89, "draining")
		device.want(0x89, "")
		requester.send(0x8a, "draining")
		device.send(0x8a, "")
		requester.send(0x80, "end")
		device.want(0x80, "end")
		requester.sendClose(1000, "bye")
		device.wantClose(1000, "bye")
		device.sendClose(1000, "")
		requester.wantClose(1000, "")
		left.Ping([]byte("late"))
		requester.wantEnd()
		device.wantEnd()
		(<-done).check(t, Result{Reason: wire.Done, By: Requester, CloseCode: 1000, Text: "bye", ToDevice: 8})
		left.Ping([]byte("too late"))
		right.Ping(nil)
	})
}

// Any number of goroutines may ping a leg whose pump comes and goes, and whose peer
// does not read.
func TestPingAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requester, left := newPeer(t)
		device, right := newPeer(t)
		var pingers sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			pingers.Go(func() {
				for {
					left.Ping([]byte("draining"))
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan Result, 1)
		go func() { done <- Run(ctx, left, right, quiet) }()
		time.Sleep(time.Second)
		cancel(&Stop{Code: wire.Draining, Text: "x"})
		go io.Copy(io.Discard, device)
		res := <-done
		if res.Reason != wire.Draining || res.Duration > time.Minute {
			t.Errorf("got %+v", res)
		}
		time.Sleep(10 * time.Millisecond)
		close(stop)
		pingers.Wait()
		requester.Close()
		device.Close()
	})
}
