package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

// A spliced stream: far is what the other side of the session holds, prog the
// program at the other end of the connection.
type spliced struct {
	far      *session.Stream
	near     *session.Stream // is spliced
	prog     *net.TCPConn
	req, dev *side
	ran      chan error // what Splice returned
}

func newSpliced(t *testing.T) *spliced {
	t.Helper()
	ta, tb := tcpPipe(t)
	req, dev, stop := pair(t, ta, tb, session.Config{})
	far, near := open(t, req, dev)
	prog, local := tcpPipe(t)
	x := &spliced{far: far, near: near, prog: prog.(*net.TCPConn), req: req, dev: dev, ran: make(chan error, 1)}
	go func() { x.ran <- near.Splice(local, "target_failed", "it broke") }()
	t.Cleanup(func() {
		x.prog.Close()
		x.far.Close()
		stop()
	})
	return x
}

func (x *spliced) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-x.ran:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Splice does not return")
		return nil
	}
}

func wantText(t *testing.T, what string, r io.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(r); err != nil || string(got) != want {
		t.Errorf("%s reads %d bytes, %.20q, %v; want %.20q", what, len(got), got, err, want)
	}
}

// isReset: the program was told of a failure, or had been before.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func TestSpliceHalfClose(t *testing.T) {
	t.Run("the stream ends first", func(t *testing.T) {
		x := newSpliced(t)
		io.WriteString(x.far, "question")
		x.far.CloseWrite()
		wantText(t, "program", x.prog, "question")
		io.WriteString(x.prog, "answer")
		x.prog.CloseWrite()
		wantText(t, "stream", x.far, "answer")
		wantErr(t, "Splice", x.wait(t), nil)
	})
	t.Run("the program ends first", func(t *testing.T) {
		x := newSpliced(t)
		io.WriteString(x.prog, "question")
		x.prog.CloseWrite()
		wantText(t, "stream", x.far, "question")
		io.WriteString(x.far, "answer")
		x.far.CloseWrite()
		wantText(t, "program", x.prog, "answer")
		wantErr(t, "Splice", x.wait(t), nil)
	})
}

// Bytes go straight to a program that takes them, and wait in the queue of one that does
// not: all arrive in order.
func TestSpliceSlowProgram(t *testing.T) {
	x := newSpliced(t)
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	go func() {
		x.far.Write(sent)
		x.far.CloseWrite()
	}()
	var got []byte
	buf := make([]byte, 1<<20)
	for r := mathrand.New(mathrand.NewPCG(1, 2)); ; {
		n, err := x.prog.Read(buf[:1+r.IntN(1<<r.IntN(21))])
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(50) == 0 {
			runtime.Gosched() // for a while it takes nothing
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived of %d, or others", len(got), len(sent))
	}
	x.prog.Close()
	if err := x.wait(t); err != nil {
		t.Error(err)
	}
}

// A program that takes nothing holds up its own stream and no other, even where the read
// loop may wait for it because it is the only one.
func TestSpliceStuckAlone(t *testing.T) {
	x := newSpliced(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer x.far.Close()
	wg.Go(func() { x.far.Write(make([]byte, 64<<20)) })
	for x.near.Credit() > 0 {
		runtime.Gosched() // until the kernel's buffers are full, and then the queue, whose window may not have grown
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := x.req.Ping(ctx); err != nil {
		t.Errorf("a ping beside it: %v", err)
	}
	a, b := open(t, x.req, x.dev)
	wg.Go(func() { echo(b) })
	io.WriteString(a, "hello")
	a.CloseWrite()
	wantText(t, "a stream beside it", a, "hello")
}

// Who closes a stream has not taken back what was written to it.
func TestSpliceStreamClosed(t *testing.T) {
	big := strings.Repeat("x", 100<<10)
	t.Run("while the program talks", func(t *testing.T) {
		x := newSpliced(t)
		io.WriteString(x.far, big)
		x.far.Close()
		talked := make(chan error, 1)
		go func() {
			_, err := x.prog.Write(make([]byte, 1<<20))
			x.prog.CloseWrite()
			talked <- err
		}()
		if err := <-talked; err != nil {
			t.Errorf("program writes: %v", err)
		}
		wantText(t, "program", x.prog, big)
		wantErr(t, "Splice", x.wait(t), nil)
	})
	t.Run("and the session with it", func(t *testing.T) {
		x := newSpliced(t)
		io.WriteString(x.far, big)
		x.far.Close()
		x.req.Close()
		wantText(t, "program", x.prog, big)
		x.prog.Close()
		x.wait(t)
	})
}

// A server that says no to a large upload and closes is heard.
func TestSpliceEarlyAnswer(t *testing.T) {
	x := newSpliced(t)
	io.WriteString(x.far, "header")
	if _, err := io.ReadFull(x.prog, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	answer := strings.Repeat("no", 16<<10)
	io.WriteString(x.prog, answer)
	x.prog.CloseWrite()
	x.prog.CloseRead()
	go func() { // an upload that nobody reads, until it is told
		for {
			if _, err := x.far.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, x.far, 2); err != nil {
		t.Fatal(err)
	}
	x.prog.Close()
	wantText(t, "stream", x.far, answer[2:])
	wantErr(t, "Splice", x.wait(t), nil)
}

func TestSpliceFailures(t *testing.T) {
	var reset *session.ResetError
	t.Run("the program's end", func(t *testing.T) {
		x := newSpliced(t)
		io.WriteString(x.prog, "half an ans")
		io.ReadFull(x.far, make([]byte, 11))
		session.NewLocal(x.prog).Reset()
		if _, err := x.far.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != "target_failed" || reset.Message != "it broke" {
			t.Errorf("stream reads %v", err)
		}
		if err := x.wait(t); !isReset(err) {
			t.Errorf("Splice: %v", err)
		}
	})
	t.Run("the program's end, in the middle of an upload", func(t *testing.T) {
		for range 20 { // either direction may be the one to notice
			x := newSpliced(t)
			go io.Copy(x.far, zeros{})
			io.ReadFull(x.prog, make([]byte, 1<<20))
			session.NewLocal(x.prog).Reset()
			if _, err := io.ReadAll(x.far); !errors.As(err, &reset) || reset.Code != "target_failed" {
				t.Fatalf("stream reads %v", err)
			}
			if err := x.wait(t); !isReset(err) {
				t.Errorf("Splice: %v", err)
			}
		}
	})
	t.Run("the stream is reset", func(t *testing.T) {
		x := newSpliced(t)
		x.far.Reset("gone", "away")
		if _, err := x.prog.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("program reads %v", err)
		}
		if err := x.wait(t); !errors.As(err, &reset) || reset.Code != "gone" {
			t.Errorf("Splice: %v", err)
		}
	})
	t.Run("the session ends", func(t *testing.T) {
		x := newSpliced(t)
		x.req.Close()
		if _, err := x.prog.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("program reads %v", err)
		}
		x.wait(t)
	})
}

// A program that takes nothing holds up nothing once its stream is over.
func TestSpliceStuck(t *testing.T) {
	for name, end := range map[string]func(far *session.Stream, req *side){
		"reset":   func(far *session.Stream, _ *side) { far.Reset("gone", "") },
		"session": func(_ *session.Stream, req *side) { req.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req, dev, stop := pipePair(t, session.Config{})
				defer stop()
				far, near := open(t, req, dev)
				_, local := net.Pipe()
				ran := make(chan error, 1)
				go func() { ran <- near.Splice(local, "c", "m") }()
				far.SetWriteDeadline(time.Now().Add(time.Second))
				var err error
				for err == nil { // fill every buffer on the way
					_, err = far.Write(make([]byte, 1<<20))
				}
				end(far, req)
				if <-ran == nil {
					t.Error("Splice saw no failure")
				}
			})
		})
	}
}

// A program that does not end by itself is left alone for a while, then closed.
func TestSpliceProgramStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		far, near := open(t, req, dev)
		prog, local := net.Pipe()
		ran := make(chan error, 1)
		go func() { ran <- near.Splice(local, "c", "m") }()
		far.Close()
		start := time.Now()
		wantText(t, "program", prog, "")
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("after %v", took)
		}
		wantErr(t, "Splice", <-ran, nil)
	})
}

// Connections without half-close still pass bytes, and end.
func TestSplicePlainConn(t *testing.T) {
	req, dev, stop := pipePair(t, session.Config{})
	defer stop()
	far, near := open(t, req, dev)
	prog, local := net.Pipe()
	ran := make(chan error, 1)
	go func() { ran <- near.Splice(local, "c", "m") }()
	go far.Write([]byte("ping"))
	b := make([]byte, 4)
	if _, err := io.ReadFull(prog, b); err != nil || !bytes.Equal(b, []byte("ping")) {
		t.Fatalf("%q, %v", b, err)
	}
	prog.Close()
	wantText(t, "stream", far, "")
	far.Close()
	wantErr(t, "Splice", <-ran, nil)
	if _, err := dev.Accept(canceled()); err == nil {
		t.Error("a stream from nowhere")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
