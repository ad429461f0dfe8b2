package client_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
)

// A node is a relay's listener that can ping every WebSocket of that relay, on both
// sides: a device does not know what the payload means.
type node struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns []*nodeConn
}

type nodeConn struct {
	net.Conn
	writing chan struct{} // a lock that synctest sees; a relay writes whole frames
	up      atomic.Bool   // the 101 is out
}

func (n *node) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	nc := &nodeConn{Conn: c, writing: make(chan struct{}, 1)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, nc)
	return nc, nil
}

func (c *nodeConn) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	n, err := c.Conn.Write(p)
	if bytes.HasPrefix(p, []byte("HTTP/1.1 101 ")) && err == nil {
		c.up.Store(true)
	}
	return n, err
}

func (n *node) ping(payload string) {
	synctest.Wait() // the newest 101 is out
	n.mu.Lock()
	conns := n.conns
	n.mu.Unlock()
	for _, c := range conns {
		if c.up.Load() {
			c.Write(ws.AppendControl(nil, ws.OpPing, []byte(payload), false, [4]byte{})) // who is gone hears nothing
		}
	}
}

func (n *node) drains() { n.ping(wire.PingDraining) }

// upgrade answers a request for a session with 101, and then says more in the same write.
func upgrade(c net.Conn, r *http.Request, more []byte) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n%s",
		wire.SessionV1, base64.StdEncoding.EncodeToString(sum[:]), more)
	io.Copy(io.Discard, c)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestDraining(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		var heard []string
		l.client.Dialer.Config.OnPing = func(p []byte) { heard = append(heard, string(p)) }
		s, err := client.Dial(context.Background(), l.client, request())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, payload := range []string{"", "draining ", "Draining"} {
			l.node.ping(payload)
		}
		synctest.Wait()
		if closed(s.Draining()) {
			t.Error("draining, by another ping")
		}
		l.node.drains()
		l.node.drains()
		<-s.Draining()
		st, err := s.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		synctest.Wait()
		if len(heard) != 5 {
			t.Errorf("the caller's own OnPing heard %q", heard)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a node that drains while the device dials back
		ping := ws.AppendControl(nil, ws.OpPing, []byte(wire.PingDraining), false, [4]byte{})
		s, err := client.Dial(context.Background(), answers(func(c net.Conn, r *http.Request) { upgrade(c, r, ping) }), request())
		if err != nil {
			t.Fatal(err)
		}
		<-s.Draining()
		s.Close()
	})
}

// next is the next event, which must be of this kind: up, moving, cannot (move), lost.
func (r *running) next(t *testing.T, kind string) client.Event {
	t.Helper()
	e := r.event(t)
	got := "lost"
	switch {
	case e.Session != nil:
		got = "up"
	case e.Moving != nil && e.Err == nil:
		got = "moving"
	case e.Moving != nil:
		got = "cannot"
	}
	if got != kind {
		t.Fatalf("event %s %+v, want %s", got, e, kind)
	}
	return e
}

// Streams run on over two moves, and their bytes are exact; new streams are on the
// new bridge; each old session ends with its last stream.
func TestLinkMoves(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		r := l.link(false)
		defer r.stop(t)
		before := r.next(t, "up").Session
		var streams sync.WaitGroup
		for round := range 3 {
			device := <-devices
			stop := make(chan struct{})
			for i := range 5 {
				st, err := r.Open(context.Background(), "x")
				if err != nil {
					t.Fatal(err)
				}
				streams.Go(func() { run(t, st, stop, uint64(round*10+i)) })
			}
			if n := device.NumStreams(); n != 5 || before.NumStreams() != 5 {
				t.Errorf("round %d: %d streams on the newest bridge", round, n)
			}
			if round == 2 {
				close(stop)
				streams.Wait()
				break
			}
			l.node.drains()
			start := time.Now()
			if e := r.next(t, "moving"); e.Moving != before {
				t.Errorf("round %d: another session moves", round)
			}
			now := r.next(t, "up")
			if d := time.Since(start); d > 5*time.Second || now.Took > time.Second {
				t.Errorf("round %d: up after %v, took %v", round, d, now.Took)
			}
			time.Sleep(2 * time.Minute)
			if device.NumStreams() != 5 || device.Err() != nil {
				t.Errorf("round %d: %d streams of the old session, %v", round, device.NumStreams(), device.Err())
			}
			close(stop)
			streams.Wait()
			ended := time.Now()
			<-device.Done()
			<-before.Done()
			if d := time.Since(ended); d > time.Second {
				t.Errorf("round %d: the old session ended %v after its last stream", round, d)
			}
			before = now.Session
		}
		if n := l.signals.Load(); n != 3 {
			t.Errorf("%d signals", n)
		}
	})
}

// run sends random bytes to an echo now and then until stop, and compares.
func run(t *testing.T, st *session.Stream, stop <-chan struct{}, seed uint64) {
	var sent bytes.Buffer
	got := make(chan []byte, 1)
	go func() {
		b, err := io.ReadAll(st)
		if err != nil {
			t.Errorf("stream %d: %v", seed, err)
		}
		got <- b
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	for !closed(stop) {
		b := make([]byte, rng.IntN(20_000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if _, err := io.MultiWriter(&sent, st).Write(b); err != nil {
			t.Errorf("stream %d: %v", seed, err)
			break
		}
		time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
	}
	st.CloseWrite()
	if b := <-got; !bytes.Equal(b, sent.Bytes()) {
		t.Errorf("stream %d: got %d bytes, want %d, or not the same", seed, len(b), sent.Len())
	}
	st.Close()
}

// Whoever opens a stream at the moment of a move gets one. A session without streams
// ends at once.
func TestLinkMovesWhileOpening(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 20)
		l.session = func(s *session.Session) { devices <- s }
		var dials atomic.Pointer[chan struct{}] // closed when the link dials
		l.refuse = func(*signaler.Signal) *signaler.Refusal {
			if c := dials.Load(); c != nil {
				close(*c)
			}
			return nil
		}
		r := l.link(false)
		defer r.stop(t)
		r.next(t, "up")
		for range 10 {
			begin, enough := make(chan struct{}), make(chan struct{})
			dials.Store(&begin)
			var users sync.WaitGroup
			for range 30 {
				users.Go(func() {
					<-begin
					for more := 5; more > 0; { // without a pause: the clock stands still
						if closed(enough) {
							more--
						}
						st, err := r.Open(context.Background(), "x")
						if err != nil {
							t.Error(err)
							return
						}
						exchange(t, st)
						st.Close()
					}
				})
			}
			l.node.drains()
			r.next(t, "moving")
			r.next(t, "up")
			close(enough)
			users.Wait()
			<-(<-devices).Done()
		}
		if n := l.signals.Load(); n != 11 {
			t.Errorf("%d signals", n)
		}
	})
}

// Where a move finds no other node, or the hub is throttled, the old session stays
// in use.
func TestLinkMovesLater(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		r := l.link(false)
		defer r.stop(t)
		r.next(t, "up")
		first := <-devices
		if err := l.hub.SetFaults(fake.Faults{Error: fake.Throttled, RetryAfter: 7 * time.Second}); err != nil {
			t.Fatal(err)
		}
		l.node.drains()
		r.next(t, "moving")
		for i := range 10 {
			e := r.next(t, "cannot")
			wantError(t, e.Err, wire.HubThrottled)
			if most := min(time.Second<<i, time.Minute) + 8*time.Second; e.Retry <= 7*time.Second || e.Retry > most {
				t.Errorf("try %d: again in %v, at most %v", i, e.Retry, most)
			}
			st, err := r.Open(context.Background(), "x")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, st)
			st.Close()
		}
		if err := l.hub.SetFaults(fake.Faults{}); err != nil {
			t.Fatal(err)
		}
		r.next(t, "up")
		<-first.Done()
	})
}

// A refusal for good, while moving, counts when the session that works is lost.
func TestLinkMoveRefused(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		r := l.link(true)
		r.next(t, "up")
		l.refuse = refusing("target_not_allowed")
		l.node.drains()
		r.next(t, "moving")
		if e := r.next(t, "cannot"); e.Retry != 0 {
			t.Errorf("again in %v", e.Retry)
		}
		time.Sleep(10 * time.Minute)
		st, err := r.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		st.Close()
		if n := l.signals.Load(); n != 2 {
			t.Errorf("%d signals", n)
		}
		(<-devices).Close()
		if e := r.next(t, "lost"); e.Retry > time.Second {
			t.Errorf("again in %v", e.Retry)
		}
		wantError(t, <-r.ran, wire.DeviceRefused)
		r.cancel()
	})
}

// A node that dies while its requesters move: they dial as after any loss.
func TestLinkNodeDiesWhileMoving(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fake.Faults
		after time.Duration
	}{
		{"before the dial", fake.Faults{}, 0},
		{"in the dial", fake.Faults{LoseAll: true}, 6 * time.Second},
		{"between two", fake.Faults{Error: fake.Throttled, RetryAfter: time.Hour}, 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, l *lab) {
				r := l.link(false)
				defer r.stop(t)
				r.next(t, "up")
				if err := l.hub.SetFaults(tt.fault); err != nil {
					t.Fatal(err)
				}
				l.node.drains()
				time.Sleep(tt.after)
				l.srv.Kill()
				l.stopRelay()
				synctest.Wait() // or a stream may still be opened on the session that dies
				l.restart()
				if err := l.hub.SetFaults(fake.Faults{}); err != nil {
					t.Fatal(err)
				}
				st, err := r.Open(context.Background(), "x")
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, st)
				st.Close()
				r.next(t, "moving")
				var lost []client.Event
				for _, e := range r.up(t) {
					if e.Moving == nil { // else the node, dying, has refused the dial first
						lost = append(lost, e)
					}
				}
				if len(lost) != 1 || lost[0].Retry > time.Second {
					t.Errorf("lost: %+v", lost)
				}
			})
		})
	}
}

// Thousands that move from one node do not move in the same second.
func TestLinksMoveApart(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.MaxPerDevice = 1000 }, func(t *testing.T, l *lab) {
		const links = 100
		var mu sync.Mutex
		var moved []time.Duration
		var start time.Time
		l.refuse = func(*signaler.Signal) *signaler.Refusal {
			mu.Lock()
			defer mu.Unlock()
			if !start.IsZero() {
				moved = append(moved, time.Since(start))
			}
			return nil
		}
		all := make([]*running, links)
		for i := range all {
			all[i] = l.link(false)
			all[i].next(t, "up")
		}
		mu.Lock()
		start = time.Now()
		mu.Unlock()
		l.node.drains()
		perSecond := make(map[time.Duration]int)
		for _, r := range all {
			r.next(t, "moving")
			r.next(t, "up")
			r.stop(t)
		}
		for _, d := range moved {
			perSecond[d/time.Second]++
		}
		if len(moved) != links {
			t.Errorf("%d moves", len(moved))
		}
		for s := range time.Duration(5) {
			if n := perSecond[s]; n < 5 || n > 40 { // 20 are expected, 4 the deviation
				t.Errorf("%d moves in second %d", n, s)
			}
		}
	})
}

// A Link that is asked to move wherever it goes costs a signal less and less often.
func TestLinkMovesInARow(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		r := l.link(false)
		defer r.stop(t)
		r.next(t, "up")
		start, moves := time.Now(), 0
		for ; time.Since(start) < 10*time.Minute; moves++ {
			l.node.drains()
			r.next(t, "moving")
			r.next(t, "up")
		}
		if moves < 5 || moves > 45 { // about 24 are expected
			t.Errorf("%d moves in 10 minutes", moves)
		}
		time.Sleep(2 * time.Minute)
		last := time.Now()
		l.node.drains()
		r.next(t, "moving")
		r.next(t, "up")
		if d := time.Since(last); d > 5*time.Second {
			t.Errorf("moved after %v, once a session had lasted", d)
		}
	})
}

// A node that is told to stop is left in time, and does not wait for its deadline.
func TestLinkLeavesNode(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Drain = time.Hour }, func(t *testing.T, l *lab) {
		r := l.link(false)
		r.next(t, "up")
		st, err := r.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		l.stopRelay() // which asks by itself
		l.restart()   // for the next one
		r.next(t, "moving")
		for { // the old node may be asked first
			if e := <-r.events; e.Session != nil {
				break
			} else if e.Moving == nil {
				t.Fatalf("got %+v", e)
			}
		}
		time.Sleep(10 * time.Minute)
		exchange(t, st)
		st.Close()
		r.stop(t)
		ended := time.Now()
		l.stop()
		if d := time.Since(ended); d > 10*time.Second {
			t.Errorf("the nodes ended after %v", d)
		}
	})
}

// Run that ends in a move leaves nothing behind.
func TestLinkEndsWhileMoving(t *testing.T) {
	for name, after := range map[string]time.Duration{"before the dial": 0, "in the dial": 6 * time.Second, "after it failed": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, l *lab) {
				r := l.link(false)
				r.next(t, "up")
				if err := l.hub.SetFaults(fake.Faults{LoseAll: true}); err != nil {
					t.Fatal(err)
				}
				l.node.drains()
				r.next(t, "moving")
				time.Sleep(after)
				r.stop(t)
			})
		})
	}
}

// slow is a program's connection: what it says ends at once, what it is told it
// takes bit by bit.
type slow struct{ net.Conn }

func (slow) Read([]byte) (int, error) { return 0, io.EOF }

// one is a listener with one connection.
type one struct {
	*netfault.Listener
	c chan net.Conn
}

func (o one) Accept() (net.Conn, error) {
	select {
	case c := <-o.c:
		return c, nil
	default:
		return o.Listener.Accept()
	}
}

// A stream that has ended on the wire may still be on its way to a slow program.
func TestForwardOutlastsMove(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		l.stream = func(_ string, in *session.Incoming) {
			if st, err := in.Accept(); err == nil {
				st.Write(want)
				st.Close()
			}
		}
		r := l.link(false)
		defer r.stop(t)
		r.next(t, "up")
		first := <-devices
		program, local := net.Pipe()
		ln := one{netfault.NewListener(), make(chan net.Conn, 1)}
		ln.c <- slow{local}
		forwarded := make(chan error, 1)
		go func() { forwarded <- r.Forward(t.Context(), ln, "x", func(err error) { t.Error(err) }) }()
		var got []byte
		b := make([]byte, 1<<10)
		for i := 0; ; i++ {
			n, err := program.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				break
			}
			if i == 5 {
				l.node.drains()
				r.next(t, "moving")
				r.next(t, "up")
			}
			time.Sleep(time.Second)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, want %d, or not the same", len(got), len(want))
		}
		<-first.Done()
		ln.Close()
		if err := <-forwarded; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
