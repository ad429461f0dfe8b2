//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// frames makes masked frames of a payload, in pieces, and the same unmasked.
func frames(r *rand.Rand, pieces ...int) (masked, unmasked, payload []byte) {
	for i, n := range pieces {
		part := make([]byte, n)
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		payload = append(payload, part...)
		h := header{first: finBit | opBinary, length: int64(n)}
		if i%3 == 1 {
			h.first = opBinary
		}
		at := len(unmasked)
		unmasked = append(unmasked, make([]byte, headerSize(h.length, false))...)
		h.put(unmasked[at:])
		unmasked = append(unmasked, part...)
		h.masked, h.key = true, r.Uint32()
		at = len(masked)
		masked = append(masked, make([]byte, headerSize(h.length, true))...)
		h.put(masked[at:])
		for i, c := range part { // a byte at a time, as the RFC has it
			masked = append(masked, c^byte(h.key>>(8*(i%4))))
		}
	}
	return masked, unmasked, payload
}

// However the bytes arrive, what goes out is the same.
func TestRewriter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	masked, unmasked, payload := frames(r, 0, 1, 5, 125, 126, 127, 1000, 65535, 65536, 70001, 3, 0, 64, 64)
	for _, test := range []struct {
		name     string
		in, want []byte
		headers  bool
	}{
		{"forward", masked, unmasked, true},
		{"forward what is not masked", unmasked, unmasked, true},
		{"strip", masked, payload, false},
		{"strip what is not masked", unmasked, payload, false},
	} {
		for _, size := range []int{1, 2, 3, 7, 64, 1000, 4096, 65550, 1 << 20} {
			t.Run(fmt.Sprintf("%s, %d bytes at a time", test.name, size), func(t *testing.T) {
				f := rewriter{headers: test.headers}
				var got, held []byte
				for in := test.in; len(in) > 0; {
					n := min(size, len(in))
					b := append(bytes.Clone(held), in[:n]...)
					in = in[n:]
					out, rest, err := f.rewrite(b)
					if err != nil {
						t.Fatal(err)
					}
					got, held = append(got, out...), bytes.Clone(rest)
				}
				if !bytes.Equal(got, test.want) || len(held) > 0 || f.left > 0 {
					t.Errorf("got %d bytes, want %d; %d are held, %d of a frame are missing", len(got), len(test.want), len(held), f.left)
				}
			})
		}
	}
}

func TestBadFrame(t *testing.T) {
	if _, err := parse([]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}); err == nil {
		t.Error("a length of 2^63 is taken")
	}
}

// Three hops carry bytes and half-closes, plain and with TLS.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	cert, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, kinds := range [][]string{{kindSplice, kindSplice, kindSplice}, {kindProxy, kindRelay, kindAgent}} {
		for _, secure := range []bool{false, true} {
			if secure && kinds[0] == kindSplice {
				continue
			}
			t.Run(fmt.Sprint(kinds, secure), func(t *testing.T) {
				next := listen(t, echoUntilEOF)
				for i := len(kinds) - 1; i >= 0; i-- {
					h := &hop{Kind: kinds[i], Next: next}
					if secure {
						h.Cert, h.Key, h.CA = cert.cert, cert.key, cert.cert
					}
					ln, err := net.Listen("tcp", loopback+":0")
					if err != nil {
						t.Fatal(err)
					}
					done := make(chan struct{})
					go func() {
						defer close(done)
						h.serve(ln)
					}()
					t.Cleanup(func() {
						ln.Close()
						<-done
					})
					next = ln.Addr().String()
				}
				c, err := net.Dial("tcp", next)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				sent := bytes.Repeat([]byte("0123456789abcdef!"), 30_000)
				go func() {
					c.Write(sent)
					c.(*net.TCPConn).CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("got %d of %d bytes, %v", len(got), len(sent), err)
				}
			})
		}
	}
}

// listen serves connections until the test ends, and returns the address.
func listen(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c.(*net.TCPConn))
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// echoUntilEOF answers when it has everything.
func echoUntilEOF(c *net.TCPConn) {
	b, _ := io.ReadAll(c)
	c.Write(b)
}

func BenchmarkXOR(b *testing.B) {
	buf := make([]byte, 64<<10)
	for _, shift := range []int{0, 4} {
		b.Run(fmt.Sprint("shift ", shift), func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				xor(buf, buf[shift:], 0x12345678)
			}
		})
	}
}

// BenchmarkRewriter is what the relay of the reference chain does to 64 KiB of frames.
func BenchmarkRewriter(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var in []byte
			for len(in) < 64<<10 {
				in = append(in, frame(finBit|opBinary, make([]byte, size))...)
			}
			buf := make([]byte, len(in))
			f := rewriter{headers: true}
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, in)
				if _, _, err := f.rewrite(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
