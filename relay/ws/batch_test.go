package ws

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// counted counts system calls.
type counted struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// tlsPair is two ends of TLS over TCP, both batched; the first is the client's.
func tlsPair(t testing.TB) (ends [2]*tls.Conn, below [2]*counted) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = [2]*counted{{Conn: c}, {Conn: d}}
	cfg := roots(s)
	cfg.ServerName = "example.com"
	ends = [2]*tls.Conn{tls.Client(Batched(below[0]), cfg), tls.Server(Batched(below[1]), &tls.Config{Certificates: s.TLS.Certificates})}
	t.Cleanup(func() { ends[0].Close(); ends[1].Close() })
	var wg sync.WaitGroup
	for _, e := range ends {
		wg.Go(func() {
			if err := e.Handshake(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return ends, below
}

// What is written arrives, both ways at once, whatever the sizes of writes and buffers; and
// what is idle holds no buffer.
func TestBatch(t *testing.T) {
	ends, _ := tlsPair(t)
	data := make([]byte, 8<<20)
	rand.Read(data)
	var wg sync.WaitGroup
	for i, e := range ends {
		wg.Go(func() {
			rest := data
			for r := mathrand.New(mathrand.NewPCG(uint64(i), 1)); len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(1<<r.IntN(19)))
				if m, err := Write(e, rest[:n]); m != n || err != nil {
					t.Errorf("wrote %d of %d: %v", m, n, err)
					return
				}
				rest = rest[n:]
			}
		})
		wg.Go(func() {
			got := make([]byte, 0, len(data))
			buf := make([]byte, 256<<10)
			for r := mathrand.New(mathrand.NewPCG(uint64(i), 2)); len(got) < len(data); {
				n, err := Read(e, buf[:1+r.IntN(1<<r.IntN(19))])
				if n == 0 || err != nil {
					t.Errorf("read %d bytes after %d: %v", n, len(got), err)
					return
				}
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, data) {
				t.Error("other bytes arrived")
			}
		})
	}
	wg.Wait()
	for _, e := range ends {
		if b := e.NetConn().(*batch); b.in != nil || b.held != nil {
			t.Error("a buffer is held by an idle connection")
		}
	}
}

// That is what it is for.
func TestBatchSystemCalls(t *testing.T) {
	ends, below := tlsPair(t)
	const size, rounds = 64 << 10, 64 // which is four records and a system call
	p := make([]byte, size)
	// The first 128 KiB go in small records, and the first reads find out how much comes.
	for range 4 {
		if _, err := Write(ends[0], p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ends[1], p); err != nil {
			t.Fatal(err)
		}
	}
	below[0].writes.Store(0)
	below[1].reads.Store(0)
	reads := 0
	for range rounds {
		if _, err := Write(ends[0], p); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < size; reads++ {
			m, err := Read(ends[1], p[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	}
	if n := below[0].writes.Load(); n != rounds {
		t.Errorf("%d writes of %d bytes made %d system calls", rounds, size, n)
	}
	if n := below[1].reads.Load(); n > rounds*5/2 || reads > rounds*5/2 {
		t.Errorf("%d bytes, %d times, took %d reads and %d system calls", size, rounds, reads, n)
	}
}

// An end is an end, and comes after what was written.
func TestBatchEnd(t *testing.T) {
	ends, _ := tlsPair(t)
	sent := make([]byte, 100_000)
	rand.Read(sent)
	go func() {
		Write(ends[0], sent)
		ends[0].CloseWrite()
	}()
	var got []byte
	buf := make([]byte, 1<<20)
	for {
		n, err := Read(ends[1], buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived of %d", len(got), len(sent))
	}
	if _, err := Read(ends[1], buf); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if _, err := Write(ends[1], sent[:50_000]); err != nil {
		t.Errorf("the other direction: %v", err)
	}
}

func BenchmarkBatch(b *testing.B) {
	for name, write := range map[string]func(net.Conn, []byte) (int, error){
		"one by one": func(c net.Conn, p []byte) (int, error) { return c.Write(p) },
		"batched":    Write,
	} {
		b.Run(name, func(b *testing.B) {
			ends, _ := tlsPair(b)
			read := Read
			if name == "one by one" {
				read = func(c net.Conn, p []byte) (int, error) { return c.Read(p) }
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, 64<<10)
				for {
					if _, err := read(ends[1], buf); err != nil {
						return
					}
				}
			}()
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := write(ends[0], p); err != nil {
					b.Fatal(err)
				}
			}
			ends[0].Close()
			<-done
		})
	}
}
