package ws

import (
	"bufio"
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
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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

// A user hears pings, also one that came with the handshake's answer, and the other
// end is answered.
func TestOnPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		cfg := never
		cfg.OnPing = func(payload []byte) { heard = append(heard, string(payload)) }
		a, b := net.Pipe()
		c, p := NewClient(a, server(0x89, "early"), cfg), &peer{t, b, bufio.NewReader(b)}
		var wrote []frame
		var wg sync.WaitGroup
		wg.Go(func() { wrote, _ = p.all() })
		wg.Go(func() {
			p.send(slices.Concat(server(0x02, "a"), server(0x89, ""), server(0x8a, "no ping"), server(0x80, "b"), server(0x89, "last"), closeFrame(1000, "")))
		})
		if got, err := readAll(c, 16); string(got) != "ab" || err != io.EOF {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
		wg.Wait()
		want := []string{"early", "", "last"}
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
		for i, f := range wrote[:min(len(want), len(wrote))] {
			if f.Opcode != OpPong || f.payload != want[i] {
				t.Errorf("frame %d: got opcode %d %q, want a pong %q", i, f.Opcode, f.payload, want[i])
			}
		}
		if len(wrote) != 4 { // and the close frame
			t.Errorf("the other end got %d frames, want 4", len(wrote))
		}
	})
}

// A Dialer's Config reaches the Conn before anything is read.
func TestDialerOnPing(t *testing.T) {
	heard := make(chan string, 1)
	d := Dialer{Config: Config{OnPing: func(payload []byte) { heard <- string(payload) }}}
	d.Dial = func(context.Context, string, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			r, err := http.ReadRequest(bufio.NewReader(b))
			if err != nil {
				return
			}
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fmt.Fprintf(b, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n%s",
				base64.StdEncoding.EncodeToString(sum[:]), server(0x89, "draining")) // in one segment
			io.Copy(io.Discard, b)
		}()
		return a, nil
	}
	d.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c, err := d.DialWebSocket(t.Context(), "ws://relay.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Read(make([]byte, 1))
	}()
	if got := <-heard; got != "draining" {
		t.Errorf("heard %q", got)
	}
	c.CloseNow()
	<-ended
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
