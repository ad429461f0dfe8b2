package pump

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// A relay joins the first two WebSockets of each path. Its first letter says
// which is which.
type relay struct {
	*httptest.Server
	results chan Result
}

func newRelay(t testing.TB, cfg Config) *relay {
	r := &relay{results: make(chan Result, 100)}
	var mu sync.Mutex
	waiting := make(map[string]chan *Leg)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, err := ws.Upgrade(w, req, "", nil)
		if err != nil {
			t.Error(err)
			return
		}
		side, bridge := req.URL.Path[1:2], req.URL.Path[2:]
		mu.Lock()
		ch := waiting[bridge]
		if ch == nil {
			ch = make(chan *Leg)
			waiting[bridge] = ch
		}
		mu.Unlock()
		leg := NewLeg(c)
		if side == "d" {
			ch <- leg
			return
		}
		r.results <- Run(context.Background(), leg, <-ch, cfg)
	}))
	t.Cleanup(r.Close)
	return r
}

// A talker is a library's client. send makes one message of the parts; recv
// returns a *ws.CloseError at the end.
type talker interface {
	send(text bool, parts ...[]byte) error
	recv() (text bool, p []byte, err error)
	close(code int, reason string) // sends the close frame
	drop()                         // the connection
}

type gorillaTalker struct{ *websocket.Conn }

func (g gorillaTalker) send(text bool, parts ...[]byte) error {
	kind := websocket.BinaryMessage
	if text {
		kind = websocket.TextMessage
	}
	w, err := g.NextWriter(kind)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Close()
}

func (g gorillaTalker) recv() (bool, []byte, error) {
	kind, p, err := g.ReadMessage()
	if e := (*websocket.CloseError)(nil); errors.As(err, &e) {
		err = &ws.CloseError{Code: e.Code, Reason: e.Text}
	}
	return kind == websocket.TextMessage, p, err
}

func (g gorillaTalker) close(code int, reason string) {
	g.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

func (g gorillaTalker) drop() { g.Conn.Close() }

type coderTalker struct{ *coder.Conn }

func (c coderTalker) send(text bool, parts ...[]byte) error {
	kind := coder.MessageBinary
	if text {
		kind = coder.MessageText
	}
	w, err := c.Writer(context.Background(), kind)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Close()
}

func (c coderTalker) recv() (bool, []byte, error) {
	kind, p, err := c.Read(context.Background())
	if e := (coder.CloseError{}); errors.As(err, &e) {
		err = &ws.CloseError{Code: int(e.Code), Reason: e.Reason}
	}
	return kind == coder.MessageText, p, err
}

func (c coderTalker) close(code int, reason string) { c.Conn.Close(coder.StatusCode(code), reason) }
func (c coderTalker) drop()                         { c.CloseNow() }

func talk(t testing.TB, r *relay, lib, side, bridge string) talker {
	t.Helper()
	url := "ws" + strings.TrimPrefix(r.URL, "http") + "/" + side + bridge
	if lib == "gorilla" {
		// Small buffers: a message of more is fragmented.
		c, _, err := (&websocket.Dialer{WriteBufferSize: 1000, ReadBufferSize: 1000}).Dial(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return gorillaTalker{c}
	}
	c, _, err := coder.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	return coderTalker{c}
}

var pairs = [][2]string{{"gorilla", "gorilla"}, {"gorilla", "coder"}, {"coder", "gorilla"}, {"coder", "coder"}}

// TestLoopbackHashes sends messages of all sizes both ways at once.
func TestLoopbackHashes(t *testing.T) {
	r := newRelay(t, Config{})
	const pumps = 16
	each := 100
	if raceEnabled {
		each = 10
	}
	var wg sync.WaitGroup
	for i := range pumps {
		wg.Go(func() {
			pair := pairs[i%len(pairs)]
			ends := [2]talker{talk(t, r, pair[0], "r", fmt.Sprint(i)), talk(t, r, pair[1], "d", fmt.Sprint(i))}
			var sent, got [2][]byte // hashes
			var both sync.WaitGroup
			for side, end := range ends {
				both.Go(func() {
					h := sha256.New()
					rnd := rand.New(rand.NewPCG(uint64(i), uint64(side)))
					for range each {
						size := rnd.IntN([]int{1, 10, 200, 2000, 70000, 300000}[rnd.IntN(6)])
						text := rnd.IntN(2) == 0
						p := []byte(strings.Repeat(string(rune('a'+rnd.IntN(26))), size))
						fmt.Fprintf(h, "%v %d %s\n", text, size, p)
						var parts [][]byte
						for len(p) > 0 {
							n := 1 + rnd.IntN(len(p))
							parts, p = append(parts, p[:n]), p[n:]
						}
						if err := end.send(text, parts...); err != nil {
							t.Error(err)
							return
						}
					}
					sent[side] = h.Sum(nil)
				})
				both.Go(func() {
					h := sha256.New()
					for range each {
						text, p, err := end.recv()
						if err != nil {
							t.Error(err)
							return
						}
						fmt.Fprintf(h, "%v %d %s\n", text, len(p), p)
					}
					got[1-side] = h.Sum(nil)
				})
			}
			both.Wait()
			for side := range ends {
				if string(sent[side]) != string(got[side]) {
					t.Errorf("%v: what side %d sent is not what arrived", pair, side)
				}
			}
			both.Go(func() { ends[0].close(1000, "bye") })
			if _, _, err := ends[1].recv(); err == nil || !strings.Contains(err.Error(), "1000: bye") {
				t.Errorf("%v: got %v", pair, err)
			}
			if pair[0] == "gorilla" { // which does not wait for the answer by itself
				if _, _, err := ends[0].recv(); err == nil || !strings.Contains(err.Error(), "1000") {
					t.Errorf("%v: answered with %v", pair, err)
				}
			}
			both.Wait()
			ends[0].drop()
			ends[1].drop()
		})
	}
	wg.Wait()
	for range pumps {
		if res := <-r.results; res.Reason != wire.Done || res.By != Requester || res.CloseCode != 1000 {
			t.Errorf("got %+v", res)
		}
	}
}

func TestLoopbackCloseCodes(t *testing.T) {
	r := newRelay(t, Config{})
	n := 0
	for _, code := range []int{1000, 1001, 1005, 1011, 3000, 4000} {
		for _, pair := range pairs {
			for by := range 2 {
				reason := "because"
				if code == 1005 {
					if pair[by] == "coder" {
						continue // cannot send one
					}
					reason = ""
				}
				n++
				ends := [2]talker{talk(t, r, pair[0], "r", fmt.Sprint(n)), talk(t, r, pair[1], "d", fmt.Sprint(n))}
				var wg sync.WaitGroup
				wg.Go(func() {
					ends[by].close(code, reason)
					if pair[by] == "gorilla" {
						ends[by].recv()
					}
					ends[by].drop()
				})
				_, _, err := ends[1-by].recv()
				if e := (*ws.CloseError)(nil); !errors.As(err, &e) || e.Code != code || e.Reason != reason {
					t.Errorf("%v, %d by %d: got %v", pair, code, by, err)
				}
				wg.Wait()
				ends[1-by].drop()
				res := <-r.results
				if res.Reason != wire.Done || res.CloseCode != code || res.Text != reason {
					t.Errorf("%v, %d by %d: got %+v", pair, code, by, res)
				}
				if res.Duration > CloseTimeout/2 {
					t.Errorf("%v, %d by %d: took %v: no handshake", pair, code, by, res.Duration)
				}
			}
		}
	}
}

func TestLoopbackLost(t *testing.T) {
	r := newRelay(t, Config{})
	n := 0
	for _, how := range []string{"EOF", "RST"} {
		for by := range 2 {
			n++
			ends := [2]talker{talk(t, r, "gorilla", "r", fmt.Sprint(n)), talk(t, r, "gorilla", "d", fmt.Sprint(n))}
			if err := ends[by].send(true, []byte("last words")); err != nil {
				t.Fatal(err)
			}
			if _, p, err := ends[1-by].recv(); string(p) != "last words" {
				t.Fatal(err)
			}
			if how == "RST" {
				ends[by].(gorillaTalker).NetConn().(*net.TCPConn).SetLinger(0)
			}
			ends[by].drop()
			_, _, err := ends[1-by].recv()
			side := []Side{Requester, Device}[by]
			e := (*ws.CloseError)(nil)
			if !errors.As(err, &e) || e.Code != 1001 || e.Reason != "peer_lost: the "+string(side)+"'s connection ended without a close frame" {
				t.Errorf("%s of the %s: got %v", how, side, err)
			}
			ends[1-by].drop()
			if res := <-r.results; res.Reason != wire.PeerLost || res.By != side {
				t.Errorf("%s of the %s: got %+v", how, side, res)
			}
		}
	}
}

// An offender that does not go by itself, but waits for the server to end the
// connection, as it should, does not wait long.
func TestLoopbackProtocolError(t *testing.T) {
	r := newRelay(t, Config{})
	from := talk(t, r, "gorilla", "r", "").(gorillaTalker)
	to := talk(t, r, "gorilla", "d", "").(gorillaTalker)
	if _, err := from.NetConn().Write(append([]byte{0xff, 0xff}, make([]byte, 1<<20)...)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	got, err := io.ReadAll(from.NetConn())
	if want := "protocol: " + ws.ErrReserved.Error(); err != nil || len(got) < 4 || string(got[4:]) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if d := time.Since(start); d > CloseTimeout/2 {
		t.Errorf("the connection ended after %v", d)
	}
	from.drop()
	if _, _, err := to.recv(); !strings.Contains(fmt.Sprint(err), "1002: protocol: the requester broke the WebSocket protocol") {
		t.Errorf("the other side got %v", err)
	}
	to.drop()
	if res := <-r.results; res.Reason != wire.ProtocolErr || res.By != Requester {
		t.Errorf("got %+v", res)
	}
}

// Package ws on both ends, with the fragments and the missing FIN of
// websocketbridge.
func TestLoopbackStreams(t *testing.T) {
	r := newRelay(t, Config{})
	dial := func(side string) *ws.Conn {
		c, err := (&ws.Dialer{}).DialWebSocket(t.Context(), "ws"+strings.TrimPrefix(r.URL, "http")+"/"+side, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := dial("r"), dial("d")
	var wg sync.WaitGroup
	total := 32 << 20
	if raceEnabled {
		total = 1 << 20
	}
	for _, ends := range [][2]*ws.Conn{{a, b}, {b, a}} {
		sent, got := make(chan []byte, 1), make(chan []byte, 1)
		wg.Go(func() {
			h, rnd := sha256.New(), rand.New(rand.NewPCG(1, 1))
			for n := 0; n < total; {
				p := make([]byte, min(1+rnd.IntN(100000), total-n))
				for i := range p {
					p[i] = byte(i * n)
				}
				h.Write(p)
				if _, err := ends[0].Write(p); err != nil {
					t.Error(err)
					break
				}
				n += len(p)
			}
			sent <- h.Sum(nil)
		})
		wg.Go(func() {
			h := sha256.New()
			if n, err := io.Copy(h, io.LimitReader(ends[1], int64(total))); n != int64(total) {
				t.Errorf("got %d bytes, %v", n, err)
			}
			got <- h.Sum(nil)
			if string(<-sent) != string(<-got) {
				t.Error("what was sent is not what arrived")
			}
		})
	}
	wg.Wait()
	wg.Go(func() { a.CloseWith(4000, "enough") })
	_, err := io.ReadAll(b)
	if e := (*ws.CloseError)(nil); !errors.As(err, &e) || e.Code != 4000 || e.Reason != "enough" {
		t.Errorf("got %v", err)
	}
	b.Close()
	wg.Wait()
	res := <-r.results
	if res.ToDevice != int64(total) || res.ToRequester != int64(total) || res.Duration > time.Minute {
		t.Errorf("got %+v", res)
	}
}

// A message that never ends is passed on part by part.
func TestLoopbackNeverFIN(t *testing.T) {
	r := newRelay(t, Config{})
	from := talk(t, r, "gorilla", "r", "").(gorillaTalker)
	to := talk(t, r, "gorilla", "d", "").(gorillaTalker)
	op := byte(0x02)
	var in io.Reader
	for i := range 100 {
		want := strings.Repeat(fmt.Sprint(i), 1+i*100)
		if _, err := from.NetConn().Write(clientFrame(op, want)); err != nil {
			t.Fatal(err)
		}
		if in == nil {
			var err error
			if _, in, err = to.NextReader(); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
			t.Fatalf("part %d: got %.20q, %v", i, got, err)
		}
		op = 0x00
	}
	from.drop()
	if _, err := io.ReadAll(in); !websocket.IsCloseError(err, 1001) {
		t.Errorf("got %v", err)
	}
	to.drop()
	<-r.results
}

// A message of 1 GiB in one frame costs no more than a small one.
func TestLoopbackHugeFrame(t *testing.T) {
	size := int64(1 << 30)
	if raceEnabled { // which makes the pump a hundred times slower
		size = 1 << 25
	}
	fromUs, left := tcpPair(t)
	toUs, right := tcpPair(t)
	result := make(chan Result, 1)
	go func() { result <- Run(t.Context(), NewLeg(left), NewLeg(right), Config{}) }()
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 64<<10)
		if _, err := fromUs.Write(ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: size})); err != nil {
			t.Error(err)
		}
		for n := int64(0); n < size; n += int64(len(b)) {
			if _, err := fromUs.Write(b); err != nil {
				t.Error(err)
				return
			}
		}
		if _, err := fromUs.Write(clientFrame(0x88, "\x03\xe8")); err != nil {
			t.Error(err)
		}
		io.Copy(io.Discard, fromUs)
		fromUs.Close()
	})
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b := make([]byte, 256<<10)
	runtime.GC()
	base := heap()
	var got, looked int64
	var high uint64
	for got < size { // some bytes are headers
		n, err := toUs.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += int64(n)
		if got-looked > size/64 {
			high, looked = max(high, heap()), got
		}
	}
	if high > base+4<<20 {
		t.Errorf("the heap grew from %d to %d KiB", base>>10, high>>10)
	}
	t.Logf("heap: %d KiB before, at most %d KiB during %d MiB", base>>10, high>>10, size>>20)
	wg.Go(func() {
		io.Copy(io.Discard, toUs)
		toUs.Close()
	})
	if _, err := toUs.Write(clientFrame(0x88, "\x03\xe8")); err != nil {
		t.Error(err)
	}
	res := <-result
	wg.Wait()
	if res.ToDevice != size || res.Reason != wire.Done {
		t.Errorf("got %+v", res)
	}
}

// source is a connection that has sent the same bytes n times, and swallows what is written to it.
type source struct {
	net.Conn
	b []byte
	n int
}

func (s *source) Read(p []byte) (int, error) {
	if s.n--; s.n < 0 {
		return 0, io.EOF
	}
	return copy(p, s.b), nil
}

func (s *source) Write(p []byte) (int, error)   { return len(p), nil }
func (s *source) SetDeadline(t time.Time) error { return nil }
func (s *source) Close() error                  { return nil }

// The steady state allocates nothing: twice the data costs the same.
func TestRunAllocates(t *testing.T) {
	var in []byte
	for _, size := range []int{0, 1, 100, 1000} {
		in = append(in, clientFrame(0x82, strings.Repeat("x", size))...)
	}
	allocs := func(reads int) float64 {
		return testing.AllocsPerRun(20, func() {
			Run(context.Background(), NewLeg(&source{b: in, n: reads}), NewLeg(&source{b: in, n: reads}), Config{Idle: time.Hour, MaxBytes: 1 << 40})
		})
	}
	few, many := allocs(10), allocs(1010)
	t.Logf("%v allocations for 10 reads, %v for 1010", few, many)
	if many > few+20 { // the pool and goroutines vary by a few
		t.Errorf("%v allocations for 10 reads, %v for 1010", few, many)
	}
}

func BenchmarkRun(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			fromUs, left := tcpPair(b)
			toUs, right := tcpPair(b)
			result := make(chan Result, 1)
			go func() { result <- Run(context.Background(), NewLeg(left), NewLeg(right), Config{}) }()
			var sunk atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				p := make([]byte, 256<<10)
				for {
					n, err := toUs.Read(p)
					sunk.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
			var batch []byte // a sender's writes are not what is measured
			f := clientFrame(0x82, strings.Repeat("x", size))
			n := 0
			for n == 0 || len(batch)+len(f) <= 64<<10 {
				batch = append(batch, f...)
				n++
			}
			b.SetBytes(int64(n * size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := fromUs.Write(batch); err != nil {
					b.Fatal(err)
				}
			}
			fromUs.Write(clientFrame(0x88, ""))
			toUs.Write(clientFrame(0x88, ""))
			if res := <-result; res.ToDevice != int64(b.N*n*size) {
				b.Errorf("%d bytes of %d were passed on", res.ToDevice, b.N*n*size)
			}
			<-done
			fromUs.Close()
			toUs.Close()
		})
	}
}
