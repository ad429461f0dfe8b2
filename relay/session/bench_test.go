package session_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"

	"websocketbridge/relay/session"
)

// BenchmarkStream moves bytes one way over one stream on loopback TCP.
func BenchmarkStream(b *testing.B) {
	for name, size := range map[string]int{"64B": 64, "4KiB": 4 << 10, "32KiB": 32 << 10, "256KiB": 256 << 10} {
		b.Run(name, func(b *testing.B) {
			x, y := tcpPipe(b)
			req, dev, stop := pair(b, x, y, session.Config{})
			defer stop()
			from, to := open(b, req, dev)
			drained := make(chan int64)
			go func() {
				n, _ := io.Copy(io.Discard, struct{ io.Reader }{to})
				drained <- n
			}()
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := from.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			from.CloseWrite()
			<-drained
		})
	}
}

// BenchmarkTCP is the same without a session, to compare with.
func BenchmarkTCP(b *testing.B) {
	x, y := tcpPipe(b)
	drained := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{y})
		drained <- n
	}()
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := x.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	x.Close()
	<-drained
	y.Close()
}

// BenchmarkProxy moves bytes as the agent does: TCP, stream, TCP, by io.Copy.
func BenchmarkProxy(b *testing.B) {
	x, y := tcpPipe(b)
	req, dev, stop := pair(b, x, y, session.Config{})
	defer stop()
	from, to := open(b, req, dev)
	in, inner := tcpPipe(b)
	outer, out := tcpPipe(b)
	defer func() {
		for _, c := range []net.Conn{in, inner, outer, out} {
			c.Close()
		}
	}()
	go func() { io.Copy(from, inner); from.CloseWrite() }()
	go func() { io.Copy(outer, to); outer.Close() }()
	drained := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{out})
		drained <- n
	}()
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	in.Close()
	<-drained
}

// BenchmarkPingPong is the round trip of a small message over loopback TCP.
func BenchmarkPingPong(b *testing.B) {
	x, y := tcpPipe(b)
	req, dev, stop := pair(b, x, y, session.Config{})
	defer stop()
	from, to := open(b, req, dev)
	go echo(to)
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		from.Write(p)
		if _, err := io.ReadFull(from, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a stream, waits for the answer and closes it, on both sides.
func BenchmarkOpen(b *testing.B) {
	x, y := tcpPipe(b)
	req, dev, stop := pair(b, x, y, session.Config{MaxStreams: 1 << 16}) // the other end of a closed stream ends a little later
	wait := serve(dev, func(*session.Stream) {})
	b.ReportAllocs()
	for b.Loop() {
		st, err := req.Open(context.Background(), "web")
		if err != nil {
			b.Fatal(err)
		}
		st.Close()
	}
	stop()
	wait()
}

// BenchmarkIdleStream reports what an open stream costs while nothing moves,
// both ends together, after it has been used.
func BenchmarkIdleStream(b *testing.B) {
	const streams = 1000
	for b.Loop() {
		x, y := tcpPipe(b)
		req, dev, stop := pair(b, x, y, session.Config{MaxStreams: streams})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		var kept []*session.Stream
		p := make([]byte, 1000)
		for range streams {
			x, y := open(b, req, dev)
			x.Write(p)
			io.ReadFull(y, p)
			kept = append(kept, x, y)
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			b.Errorf("%d goroutines more", n-goroutines)
		}
		for range 2 { // twice: a sync.Pool keeps what it has for one collection
			runtime.GC()
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/streams, "B/stream")
		runtime.KeepAlive(kept)
		stop()
	}
}
