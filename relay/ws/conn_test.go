package ws

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A peer is the other end of a Conn, frame by frame. A pipe has no buffer, so
// that what is not read blocks.
type peer struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
}

func pipe(t *testing.T, cfg Config) (*Conn, *peer) {
	a, b := net.Pipe()
	return NewClient(a, nil, cfg), &peer{t, b, bufio.NewReader(b)}
}

type frame struct {
	Header
	payload string
}

// next reads one frame and unmasks it. Every frame of a client is masked.
func (p *peer) next() (f frame, err error) {
	for n := 2; ; n++ {
		b, err := p.br.Peek(n)
		if err != nil {
			return f, err
		}
		h, size, err := ParseHeader(b)
		if err != nil {
			return f, err
		}
		if size > 0 {
			f.Header = h
			p.br.Discard(size)
			break
		}
	}
	if !f.Masked {
		return f, errors.New("a client's frame is not masked")
	}
	b := make([]byte, f.Len)
	_, err = io.ReadFull(p.br, b)
	for i := range b {
		b[i] ^= f.Key[i%4]
	}
	f.payload = string(b)
	return f, err
}

// want reads one frame.
func (p *peer) want(op byte, payload string) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("got %v, want a frame with opcode %d", err, op)
	}
	if f.Opcode != op || f.payload != payload || !f.Fin {
		p.t.Fatalf("got opcode %d, fin %v, %.80q, want %d, true, %.80q", f.Opcode, f.Fin, f.payload, op, payload)
	}
}

// all reads to the end, which it says.
func (p *peer) all() (frames []frame, err error) {
	for {
		f, err := p.next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Error(err)
	}
}

// server makes a server's frame; op 0x8_ has FIN.
func server(finOp byte, payload string) []byte {
	h := Header{Fin: finOp&0x80 != 0, Opcode: finOp & 0xf, Len: int64(len(payload))}
	return append(AppendHeader(nil, h), payload...)
}

func closeFrame(code int, reason string) []byte {
	return server(0x88, string(AppendClose(nil, code, reason)))
}

// readAll reads with a buffer of size bytes.
func readAll(r io.Reader, size int) (got []byte, err error) {
	buf := make([]byte, size)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got, err
		}
	}
}

var never = Config{Ping: -1, Dead: -1}

func TestRead(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 70<<10/16)
	for _, test := range []struct {
		name  string
		wire  [][]byte
		data  string
		err   error
		wrote []frame // by the Conn
	}{
		{"one binary message", [][]byte{server(0x82, "hello"), closeFrame(1000, "")}, "hello", io.EOF, nil},
		{"one text message", [][]byte{server(0x81, "hello"), closeFrame(1000, "bye")}, "hello", io.EOF, nil},
		{"16 and 64 bits of length", [][]byte{server(0x82, big[:65535]), server(0x82, big), closeFrame(1005, "")}, big[:65535] + big, io.EOF, nil},
		{"fragments", [][]byte{server(0x02, "a"), server(0x00, "bc"), server(0x80, "d"), server(0x81, "e"), closeFrame(1000, "")}, "abcde", io.EOF, nil},
		{"never FIN", [][]byte{server(0x02, "a"), server(0x00, "b"), server(0x00, "c"), closeFrame(1000, "")}, "abc", io.EOF, nil},
		{"empty messages and fragments", [][]byte{server(0x82, ""), server(0x81, ""), server(0x02, ""), server(0x00, ""), server(0x80, "a"), closeFrame(1000, "")}, "a", io.EOF, nil},
		{"pings in the middle of a message", [][]byte{server(0x02, "a"), server(0x89, "one"), server(0x00, "b"), server(0x89, ""), server(0x8a, "unasked"), server(0x80, "c"), closeFrame(1000, "")}, "abc", io.EOF,
			[]frame{{Header{Opcode: OpPong}, "one"}, {Header{Opcode: OpPong}, ""}}},
		{"the longest ping", [][]byte{server(0x89, big[:125]), closeFrame(1000, "")}, "", io.EOF, []frame{{Header{Opcode: OpPong}, big[:125]}}},

		{"close 1001", [][]byte{server(0x82, "a"), closeFrame(1001, "peer_lost: gone")}, "a", &CloseError{1001, "peer_lost: gone"}, nil},
		{"close 1008", [][]byte{closeFrame(1008, "idle_timeout")}, "", &CloseError{1008, "idle_timeout"}, nil},
		{"close 3000", [][]byte{closeFrame(3000, "")}, "", &CloseError{3000, ""}, nil},
		{"close 4503", [][]byte{closeFrame(4503, "draining: €")}, "", &CloseError{4503, "draining: €"}, nil},
		{"close without a code", [][]byte{closeFrame(1005, "")}, "", io.EOF, nil},
		{"two close frames", [][]byte{closeFrame(3000, ""), closeFrame(1000, "")}, "", &CloseError{3000, ""}, nil},

		{"end between frames", [][]byte{server(0x82, "a")}, "a", io.ErrUnexpectedEOF, nil},
		{"end at once", nil, "", io.ErrUnexpectedEOF, nil},
		{"end in a header", [][]byte{{0x82, 0x7e, 1}}, "", io.ErrUnexpectedEOF, nil},
		{"end after a header", [][]byte{{0x82, 0x05}}, "", io.ErrUnexpectedEOF, nil},
		{"end in a payload", [][]byte{server(0x82, "hello")[:4]}, "he", io.ErrUnexpectedEOF, nil},
		{"end in a ping", [][]byte{server(0x89, "hello")[:4]}, "", io.ErrUnexpectedEOF, nil},

		{"masked", [][]byte{server(0x82, "a"), {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}}, "a", ErrMask, nil},
		{"masked ping", [][]byte{{0x89, 0x80, 0, 0, 0, 0}}, "", ErrMask, nil},
		{"reserved bit", [][]byte{{0xc1, 0x05}}, "", ErrReserved, nil},
		{"unknown opcode", [][]byte{{0x83, 0x05}}, "", ErrOpcode, nil},
		{"fragmented ping", [][]byte{{0x09, 0x00}}, "", ErrControl, nil},
		{"oversized close", [][]byte{{0x88, 0x7e, 0x01, 0x00}}, "", ErrControl, nil},
		{"length not shortest", [][]byte{{0x82, 0x7e, 0x00, 0x05}}, "", ErrLength, nil},
		{"negative length", [][]byte{{0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0}}, "", ErrLength, nil},
		{"continuation of nothing", [][]byte{server(0x80, "a")}, "", ErrContinuation, nil},
		{"continuation after the last", [][]byte{server(0x02, "a"), server(0x80, "b"), server(0x80, "c")}, "ab", ErrContinuation, nil},
		{"message in a message", [][]byte{server(0x02, "a"), server(0x82, "b")}, "a", ErrContinuation, nil},
		{"close of one byte", [][]byte{server(0x88, "\x03")}, "", ErrClosePayload, nil},
		{"close with code 1006", [][]byte{server(0x88, "\x03\xee")}, "", ErrClosePayload, nil},
		{"close with bad UTF-8", [][]byte{server(0x88, "\x03\xe8\xff")}, "", ErrClosePayload, nil},
	} {
		wire := slices.Concat(test.wire...)
		for _, cut := range []int{1, 3, 1000, 1 << 20} { // bytes per write of the other end
			if len(wire)/cut > 2000 {
				continue
			}
			for _, size := range []int{1, 7, 4096, 128 << 10} { // of the reader's buffer
				if len(wire)/size > 2000 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%d", test.name, cut, size), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c, p := pipe(t, never)
						var wrote []frame
						var wg sync.WaitGroup
						wg.Go(func() { wrote, _ = p.all() })
						wg.Go(func() {
							for b := range slices.Chunk(wire, cut) {
								if _, err := p.Write(b); err != nil {
									break // Close does not wait for a second close frame
								}
							}
							if test.err == io.ErrUnexpectedEOF {
								p.Close()
							}
						})
						got, err := readAll(c, size)
						if string(got) != test.data {
							t.Errorf("read %d bytes %.40q, want %d bytes %.40q", len(got), got, len(test.data), test.data)
						}
						if fmt.Sprint(err) != fmt.Sprint(test.err) || errors.Is(test.err, io.EOF) && err != io.EOF {
							t.Errorf("got error %v, want %v", err, test.err)
						}
						if n, again := c.Read(make([]byte, 10)); n != 0 || again != err {
							t.Errorf("the next Read got %d, %v, want 0, %v", n, again, err)
						}
						synctest.Wait() // what is to be said, is
						c.Close()
						p.Close()
						wg.Wait()
						want := test.wrote
						if IsProtocolError(test.err) {
							want = append(want, frame{Header{Opcode: OpClose}, "\x03\xeaprotocol"})
						} else if test.err != io.ErrUnexpectedEOF {
							code := ""
							if n := bytes.LastIndexByte(wire, 0x88); test.name == "two close frames" {
								code = "\x0b\xb8"
							} else if wire[n+1] > 0 {
								code = string(wire[n+2 : n+4])
							}
							want = append(want, frame{Header{Opcode: OpClose}, code})
						}
						if test.err == io.ErrUnexpectedEOF {
							return
						}
						if len(wrote) != len(want) {
							t.Fatalf("the other end got %d frames %v, want %d", len(wrote), wrote, len(want))
						}
						for i, f := range wrote {
							if f.Opcode != want[i].Opcode || f.payload != want[i].payload || !f.Fin {
								t.Errorf("frame %d: got opcode %d %q, want %d %q", i, f.Opcode, f.payload, want[i].Opcode, want[i].payload)
							}
						}
					})
				})
			}
		}
	}
}

// TestReadAfterTimeout cuts a stream at every byte and lets the read time out there.
func TestReadAfterTimeout(t *testing.T) {
	wire := slices.Concat(server(0x02, "hel"), server(0x89, "ping!"), server(0x80, "lo"), server(0x82, strings.Repeat("x", 200)), closeFrame(3000, "bye"))
	want := "hello" + strings.Repeat("x", 200)
	for cut := range wire {
		synctest.Test(t, func(t *testing.T) {
			c, p := pipe(t, never)
			var wrote []frame
			var wg sync.WaitGroup
			wg.Go(func() { wrote, _ = p.all() })
			wg.Go(func() {
				p.send(wire[:cut])
				time.Sleep(time.Minute)
				p.send(wire[cut:])
			})
			c.SetReadDeadline(time.Now().Add(time.Second))
			got, err := readAll(c, 16)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("cut at %d: got error %v, want a timeout", cut, err)
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Errorf("cut at %d: write after the timeout: %v", cut, err)
			}
			c.SetReadDeadline(time.Time{})
			rest, err := readAll(c, 16)
			if got := string(got) + string(rest); got != want {
				t.Errorf("cut at %d: read %q, want %q", cut, got, want)
			}
			if e := (*CloseError)(nil); !errors.As(err, &e) || e.Code != 3000 {
				t.Errorf("cut at %d: got error %v, want code 3000", cut, err)
			}
			c.Close()
			wg.Wait()
			if len(wrote) != 3 { // data, pong, close
				t.Errorf("cut at %d: the other end got %d frames, want 3", cut, len(wrote))
			}
		})
	}
}

func TestWriteFrame(t *testing.T) {
	c, p := pipe(t, never)
	r := rand.New(rand.NewPCG(1, 2))
	var want []string
	var wg sync.WaitGroup
	wg.Go(func() {
		defer c.CloseNow()
		for _, size := range []int{0, 1, 5, 125, 126, 127, 65535, 65536, 70000} {
			b := make([]byte, c.Headroom()+size)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			want = append(want, string(b[c.Headroom():]))
			if err := c.WriteFrame(b); err != nil {
				t.Error(err)
			}
		}
	})
	got, _ := p.all()
	wg.Wait()
	if len(got) != len(want) {
		t.Fatalf("got %d frames, want %d", len(got), len(want))
	}
	keys := make(map[[4]byte]bool)
	for i, f := range got {
		if f.payload != want[i] || f.Opcode != OpBinary || !f.Fin {
			t.Errorf("frame %d of %d bytes is wrong", i, len(want[i]))
		}
		keys[f.Key] = true
	}
	if len(keys) != len(got) {
		t.Errorf("%d frames have %d keys", len(got), len(keys))
	}
}

func TestKeysDiffer(t *testing.T) {
	c := &Conn{}
	keys := make(map[[4]byte]bool)
	for range 1000 {
		keys[c.key()] = true
	}
	if len(keys) < 999 { // two of 1000 may be equal, once in 8000 runs
		t.Errorf("1000 frames have %d keys", len(keys))
	}
}

func TestWriteKeepsTheCallersBytes(t *testing.T) {
	c, p := pipe(t, never)
	data := []byte(strings.Repeat("0123456789", 10<<10))
	kept := bytes.Clone(data)
	go func() {
		for _, text := range []bool{false, true} {
			if n, err := c.WriteMessages(data, text); n != len(data) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
		c.CloseNow()
	}()
	frames, _ := p.all()
	var got [3]strings.Builder
	for _, f := range frames {
		got[f.Opcode].WriteString(f.payload)
	}
	if got[OpBinary].String() != string(kept) || got[OpText].String() != string(kept) {
		t.Error("what arrived is not what was written")
	}
	if !bytes.Equal(data, kept) {
		t.Error("Write changed the caller's bytes")
	}
}

func TestConcurrentWriters(t *testing.T) {
	c, p := pipe(t, never)
	var wg sync.WaitGroup
	const writers, each = 8, 100
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				msg := strings.Repeat(string(rune('a'+i)), 1+j*7)
				if j%2 == 0 {
					c.Write([]byte(msg))
				} else {
					c.WriteFrame(append(make([]byte, c.Headroom()), msg...))
				}
			}
		})
	}
	go func() { // the reader writes too
		go readAll(c, 100)
		for range 50 {
			p.Write(server(0x89, "ping"))
		}
	}()
	go func() {
		wg.Wait()
		c.CloseNow()
	}()
	frames, _ := p.all()
	data := 0
	for _, f := range frames {
		if f.Opcode == OpPong {
			continue
		}
		data++
		if f.payload != strings.Repeat(f.payload[:1], len(f.payload)) {
			t.Fatalf("frames are mixed: %q", f.payload)
		}
	}
	if data != writers*each {
		t.Errorf("got %d frames, want %d", data, writers*each)
	}
}

func TestPongs(t *testing.T) {
	for _, reading := range []bool{false, true} {
		t.Run(fmt.Sprintf("reading=%v", reading), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, Config{Dead: -1})
				if reading {
					go readAll(c, 10)
				}
				start := time.Now()
				for i := range 10 {
					p.want(OpPong, "")
					if got, want := time.Since(start), time.Duration(i+1)*DefaultPing; got != want {
						t.Errorf("pong %d came after %v, want %v", i, got, want)
					}
				}
				c.CloseNow()
			})
		})
	}
}

// With both timers, one must not pull the other.
func TestPongsAndDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		go io.Copy(io.Discard, p)
		start := time.Now()
		_, err := c.Read(make([]byte, 1))
		if got := time.Since(start); err != ErrDead || got != DefaultDead {
			t.Errorf("Read returned %v after %v, want ErrDead after %v", err, got, DefaultDead)
		}
		if _, err := c.Write([]byte("x")); err != ErrDead {
			t.Errorf("Write returned %v, want ErrDead", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		go io.Copy(io.Discard, p)
		// A user who does not read is no sign of death.
		time.Sleep(time.Hour)
		go func() {
			for range 10 { // one byte of a frame now and then is a sign of life
				for _, b := range server(0x89, "x") {
					time.Sleep(DefaultDead - time.Second)
					p.Write([]byte{b})
				}
			}
			p.Write(server(0x82, "x"))
		}()
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		go func() {
			time.Sleep(DefaultDead - 1)
			p.Write(server(0x82, "y"))
		}()
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		c.CloseNow()
	})
}

func TestCloseHandshake(t *testing.T) {
	for _, reading := range []bool{false, true} {
		for _, data := range []bool{false, true} {
			t.Run(fmt.Sprintf("reading=%v,data=%v", reading, data), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, p := pipe(t, Config{})
					var readErr error
					var wg sync.WaitGroup
					if reading {
						wg.Go(func() { _, readErr = readAll(c, 10) })
					}
					start := time.Now()
					wg.Go(func() {
						if data { // on its way when Close comes
							p.send(server(0x02, strings.Repeat("x", 100000)))
						}
						p.want(OpClose, "\x0f\xa0why")
						time.Sleep(time.Second)
						p.send(server(0x89, "last ping"))
						p.send(closeFrame(4000, ""))
						if f, err := p.next(); err != io.EOF {
							t.Errorf("after the handshake: %v, %v", f, err)
						}
					})
					synctest.Wait()
					if err := c.CloseWith(4000, "why"); err != nil {
						t.Errorf("Close: %v", err)
					}
					if got := time.Since(start); got != time.Second {
						t.Errorf("Close took %v, want 1s", got)
					}
					wg.Wait()
					if reading && !errors.Is(readErr, net.ErrClosed) {
						t.Errorf("Read returned %v, want net.ErrClosed", readErr)
					}
					if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Write returned %v, want net.ErrClosed", err)
					}
					if _, err := c.Read([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Read returned %v, want net.ErrClosed", err)
					}
					if err := c.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
						t.Errorf("SetReadDeadline returned %v, want net.ErrClosed", err)
					}
				})
			})
		}
	}
}

func TestCloseIsBounded(t *testing.T) {
	for _, test := range []struct {
		name  string
		peer  func(p *peer)
		user  func(c *Conn)
		close func(c *Conn) error
		want  time.Duration
	}{
		{name: "silent", want: CloseTimeout},
		{name: "Read is blocked", user: func(c *Conn) { readAll(c, 10) }, want: CloseTimeout},
		{name: "Write is blocked", user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }, want: CloseTimeout},
		{name: "Write is blocked, CloseNow", user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }, close: (*Conn).CloseNow},
		{name: "Read is blocked, CloseNow", user: func(c *Conn) { readAll(c, 10) }, close: (*Conn).CloseNow},
		{name: "endless data", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write(server(0x82, "x")); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, want: CloseTimeout},
		{name: "endless garbage", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			for {
				if _, err := p.Write([]byte{0xff}); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, user: func(c *Conn) { readAll(c, 10) }, want: CloseTimeout},
		{name: "gone", peer: func(p *peer) { p.Close() }},
		{name: "gone, and its user knows", peer: func(p *peer) { p.Close() }, user: func(c *Conn) { readAll(c, 10) }},
		{name: "closed by the other end", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			p.Write(closeFrame(1000, ""))
		}, user: func(c *Conn) { readAll(c, 10) }},
		{name: "closed by the other end, unread", peer: func(p *peer) {
			go io.Copy(io.Discard, p)
			p.Write(closeFrame(1000, ""))
		}},
		{name: "blocked in both directions", peer: func(p *peer) { // would deadlock if Close wrote before it read
			p.Write(server(0x82, strings.Repeat("x", 1<<20)))
			p.Write(closeFrame(1000, ""))
			io.Copy(io.Discard, p)
		}, user: func(c *Conn) { c.Write(make([]byte, 1<<20)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, Config{Ping: time.Second})
				var wg sync.WaitGroup
				if test.peer != nil {
					wg.Go(func() { test.peer(p) })
				}
				if test.user != nil {
					wg.Go(func() { test.user(c) })
				}
				if test.name == "blocked in both directions" || test.name == "endless garbage" {
					time.Sleep(time.Millisecond / 2)
				}
				synctest.Wait()
				if test.close == nil {
					test.close = (*Conn).Close
				}
				start := time.Now()
				var closers sync.WaitGroup
				for range 3 {
					closers.Go(func() { test.close(c) })
				}
				closers.Wait()
				if got := time.Since(start); got != test.want {
					t.Errorf("Close took %v, want %v", got, test.want)
				}
				wg.Wait()
				p.Close()
				if err := c.Close(); err != nil {
					t.Errorf("Close again: %v", err)
				}
				c.CloseNow()
			})
		})
	}
}

func TestCloseNowCutsCloseShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, Config{})
		defer p.Close()
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			c.CloseNow()
		}()
		c.Close()
		if got := time.Since(start); got != time.Second {
			t.Errorf("Close took %v, want 1s", got)
		}
	})
}

// A peer that floods us with pings and reads nothing costs a kilobyte, and is
// still told goodbye when it reads again.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, never)
		go readAll(c, 10)
		for range 10000 {
			p.send(server(0x89, strings.Repeat("x", 125)))
		}
		synctest.Wait()
		c.pmu.Lock()
		size := cap(c.pending)
		c.pmu.Unlock()
		if size > 4<<10 {
			t.Errorf("%d bytes are pending", size)
		}
		go c.Close()
		synctest.Wait()
		frames := 0
		for {
			f, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Opcode == OpClose {
				break
			}
			frames++
		}
		if frames > 20 {
			t.Errorf("%d pongs were kept", frames)
		}
		p.send(closeFrame(1000, ""))
	})
}

// After a write that failed in the middle of a frame nothing may follow.
func TestNothingFollowsATornFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		f := &faulty{Conn: a, tear: 1}
		c := NewClient(f, nil, never)
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = io.ReadAll(b) })
		_, err := c.Write([]byte("hello"))
		if !errors.Is(err, errFault) {
			t.Errorf("Write returned %v", err)
		}
		if _, err := c.Write([]byte("again")); !errors.Is(err, errFault) {
			t.Errorf("the next Write returned %v", err)
		}
		c.Close()
		wg.Wait()
		if len(got) != 1 {
			t.Errorf("the other end got %x, want one byte", got)
		}
	})
}

// A failed write must not hide the close frame that says why.
func TestReadAfterFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c := NewClient(&faulty{Conn: a, tear: 1}, nil, never)
		go io.Copy(io.Discard, b)
		if _, err := c.Write([]byte("hello")); !errors.Is(err, errFault) {
			t.Errorf("Write returned %v", err)
		}
		go b.Write(append(server(0x82, "data"), closeFrame(1012, "draining")...))
		got, err := readAll(c, 10)
		if e := (*CloseError)(nil); string(got) != "data" || !errors.As(err, &e) || e.Code != 1012 {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := c.Write([]byte("x")); !errors.As(err, new(*CloseError)) {
			t.Errorf("Write returned %v, want the close frame", err)
		}
		c.Close()
	})
}

var errFault = errors.New("fault")

// faulty fails the given read or write, counted from 1, and all after it. A
// write that is torn sends one byte.
type faulty struct {
	net.Conn
	failRead, failWrite, tear int
	mu                        sync.Mutex
	reads, writes             int
}

func (f *faulty) Read(p []byte) (int, error) {
	f.mu.Lock()
	f.reads++
	n := f.reads
	f.mu.Unlock()
	if f.failRead > 0 && n >= f.failRead {
		return 0, errFault
	}
	return f.Conn.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.writes++
	n := f.writes
	f.mu.Unlock()
	if f.tear > 0 && n == f.tear {
		f.Conn.Write(p[:1])
		return 1, errFault
	}
	if f.failWrite > 0 && n >= f.failWrite {
		return 0, errFault
	}
	return f.Conn.Write(p)
}

// TestFaults fails each read and each write of a talk.
func TestFaults(t *testing.T) {
	talk := func(t *testing.T, f *faulty) (ok bool) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			f.Conn = a
			c := NewClient(f, nil, Config{})
			p := &peer{t, b, bufio.NewReader(b)}
			var wg sync.WaitGroup
			wg.Go(func() {
				defer p.Close()
				for range 5 {
					if f, err := p.next(); err != nil || f.Opcode != OpBinary {
						return
					}
					if _, err := p.Write(slices.Concat(server(0x02, "an"), server(0x80, "swer"))); err != nil {
						return
					}
				}
				p.next()
				p.Write(closeFrame(1000, ""))
			})
			err := func() error {
				for range 5 {
					if _, err := c.Write([]byte("question")); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
						return err
					}
				}
				return nil
			}()
			c.Close()
			wg.Wait()
			if ok = err == nil; err != nil && !errors.Is(err, errFault) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v: %v", f, err)
			}
		})
		return ok
	}
	for n := 1; !talk(t, &faulty{failRead: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{failWrite: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{tear: n}); n++ {
	}
}

func TestWriteAllocates(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go io.Copy(io.Discard, b)
	c := NewClient(a, nil, never)
	p := make([]byte, 4096)
	f := make([]byte, MaxHeader+4096)
	got := testing.AllocsPerRun(1000, func() {
		c.Write(p)
		c.WriteFrame(f)
	})
	if got > 0 {
		t.Errorf("two writes allocate %v times", got)
	}
}
