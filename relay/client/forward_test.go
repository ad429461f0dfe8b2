package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
)

// A forwarding is a Link with one Forward.
type forwarding struct {
	ln      net.Listener
	refused chan error
	ran     chan error // Forward's
	cancel  context.CancelFunc
	link    *running
}

func (l *lab) forward(ln net.Listener) *forwarding {
	ctx, cancel := context.WithCancel(context.Background())
	f := &forwarding{ln: ln, refused: make(chan error, 100), ran: make(chan error, 1), cancel: cancel, link: l.link(true)}
	go func() { f.ran <- f.link.Forward(ctx, ln, "x", func(err error) { f.refused <- err }) }()
	return f
}

// stop ends Forward by its ctx, which is no error.
func (f *forwarding) stop(t *testing.T) {
	t.Helper()
	f.cancel()
	if err := <-f.ran; err != nil {
		t.Errorf("Forward: %v", err)
	}
	f.link.stop(t)
}

func (f *forwarding) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", f.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// accepting serves streams that are accepted.
func accepting(f func(st *session.Stream)) func(string, *session.Incoming) {
	return func(_ string, in *session.Incoming) {
		if st, err := in.Accept(); err == nil {
			defer st.Close()
			f(st)
		}
	}
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program reads %v, want a reset", err)
	}
	c.Close()
}

func TestForwardHalfClose(t *testing.T) {
	l := newLab(t, false, nil)
	for name, tt := range map[string]struct {
		device func(*session.Stream)
		local  func(c *net.TCPConn) string
	}{
		"the program first": {
			func(st *session.Stream) {
				n, _ := io.Copy(io.Discard, st)
				fmt.Fprintf(st, "%d bytes", n)
				st.CloseWrite()
			},
			func(c *net.TCPConn) string {
				c.Write(make([]byte, 300<<10))
				c.CloseWrite()
				b, err := io.ReadAll(c)
				return fmt.Sprint(string(b), err)
			},
		},
		"the device first": {
			func(st *session.Stream) {
				io.WriteString(st, "307200 bytes")
				st.CloseWrite()
				if n, err := io.Copy(io.Discard, st); n != 300<<10 || err != nil {
					t.Errorf("the device got %d bytes, %v", n, err)
				}
			},
			func(c *net.TCPConn) string {
				b, err := io.ReadAll(c)
				c.Write(make([]byte, 300<<10))
				c.CloseWrite()
				return fmt.Sprint(string(b), err)
			},
		},
		"the device does not want it all": {
			func(st *session.Stream) {
				io.ReadFull(st, make([]byte, 1000))
				io.WriteString(st, "307200 bytes")
			},
			func(c *net.TCPConn) string {
				go c.Write(make([]byte, 10<<20))
				b, err := io.ReadAll(c)
				return fmt.Sprint(string(b), err)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			through := make(chan struct{})
			l.stream = accepting(func(st *session.Stream) {
				defer close(through)
				tt.device(st)
			})
			f := l.forward(listen(t))
			c := f.dial(t)
			if got := tt.local(c); got != "307200 bytes<nil>" {
				t.Errorf("got %q", got)
			}
			<-through
			c.Close()
			f.stop(t)
		})
	}
}

// A local program never takes a cut for an end, and neither does the device.
func TestForwardCuts(t *testing.T) {
	l := newLab(t, false, nil)
	var device atomic.Pointer[session.Session]
	l.session = func(s *session.Session) { device.Store(s) }
	ends := make(chan error, 1)
	l.stream = accepting(func(st *session.Stream) {
		io.WriteString(st, "half an ans")
		_, err := io.Copy(io.Discard, st)
		if errors.Is(err, net.ErrClosed) { // our own side's end
			err = nil
		}
		ends <- err
	})
	var reset *session.ResetError
	for name, cut := range map[string]func(f *forwarding, c *net.TCPConn){
		"session ends": func(*forwarding, *net.TCPConn) { device.Load().Close() },
		"ctx ends":     func(f *forwarding, _ *net.TCPConn) { f.cancel() },
		"link ends":    func(f *forwarding, _ *net.TCPConn) { f.link.cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			f := l.forward(listen(t))
			c := f.dial(t)
			io.ReadFull(c, make([]byte, 11))
			cut(f, c)
			wantReset(t, c)
			if err := <-ends; name == "ctx ends" && (!errors.As(err, &reset) || reset.Code != "requester_failed") {
				t.Errorf("the device reads %v", err)
			}
			f.cancel()
			if err := <-f.ran; err != nil {
				t.Error(err)
			}
			f.link.stop(t)
		})
	}
	t.Run("device resets", func(t *testing.T) {
		l.stream = accepting(func(st *session.Stream) {
			io.WriteString(st, "half an ans")
			io.ReadFull(st, make([]byte, 1))
			st.Reset("target_failed", "it broke")
		})
		f := l.forward(listen(t))
		c := f.dial(t)
		io.ReadFull(c, make([]byte, 11))
		c.Write([]byte("x"))
		wantReset(t, c)
		f.stop(t)
	})
	t.Run("program fails", func(t *testing.T) {
		there, got := make(chan struct{}), make(chan error, 1)
		l.stream = accepting(func(st *session.Stream) {
			close(there)
			_, err := io.Copy(io.Discard, st)
			got <- err
		})
		f := l.forward(listen(t))
		c := f.dial(t)
		c.Write([]byte("half a quest"))
		<-there
		session.NewLocal(c).Reset()
		if err := <-got; !errors.As(err, &reset) || reset.Code != "requester_failed" {
			t.Errorf("the device reads %v", err)
		}
		f.stop(t)
	})
}

func TestForwardRefused(t *testing.T) {
	l := newLab(t, false, nil)
	l.stream = func(_ string, in *session.Incoming) { in.Refuse("dial_failed", "127.0.0.1:1: connection refused") }
	f := l.forward(listen(t))
	ln := f.ln
	isReset := func() {
		t.Helper()
		c, err := net.Dial("tcp", ln.Addr().String())
		switch {
		case err == nil:
			wantReset(t, c)
		case !errors.Is(err, syscall.ECONNRESET): // before Dial could return
			t.Error(err)
		}
	}
	for range 3 {
		isReset()
		var refused *session.OpenError
		if err := <-f.refused; !errors.As(err, &refused) || refused.Code != "dial_failed" {
			t.Errorf("got %v", err)
		}
	}
	f.stop(t)
	ctx, cancel := context.WithCancel(t.Context()) // and nobody asks why
	r, ran := l.link(false), make(chan error)
	ln = listen(t)
	go func() { ran <- r.Forward(ctx, ln, "x", nil) }()
	isReset()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	r.stop(t)
}

// Without a session a connection waits, for a while.
func TestForwardWaits(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		if err := l.hub.SetFaults(fake.Faults{Error: fake.Unavailable}); err != nil {
			t.Fatal(err)
		}
		ln := netfault.NewListener()
		f := l.forward(ln)
		defer f.stop(t)
		dial := func() net.Conn {
			c, err := ln.Dial(context.Background(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c, start := dial(), time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(start) != 30*time.Second {
			t.Errorf("closed with %v after %v", err, time.Since(start))
		}
		if err := <-f.refused; err.Error() != `no session to device "pump-7": no answer within 30s` {
			t.Errorf("got %v", err)
		}
		// One that comes while the hub comes back is served.
		time.Sleep(time.Hour)
		if err := l.hub.SetFaults(fake.Faults{}); err != nil {
			t.Fatal(err)
		}
		f.link.up(t)
		c = dial()
		exchange(t, c)
		c.Close()
		// ctx ends with one that still waits: it is not refused, it was not wanted.
		l.stream = func(string, *session.Incoming) {}
		c = dial()
		synctest.Wait()
		f.cancel()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
		synctest.Wait()
		if len(f.refused) > 0 {
			t.Errorf("refused: %v", <-f.refused)
		}
		f.ran <- <-f.ran
	})
}

// A failingListener fails some of its accepts.
type failingListener struct {
	net.Listener
	n      atomic.Int32
	fail   func(n int) error
	closed atomic.Bool
}

func (l *failingListener) Accept() (net.Conn, error) {
	if err := l.fail(int(l.n.Add(1))); err != nil {
		return nil, &net.OpError{Op: "accept", Err: err}
	}
	return l.Listener.Accept()
}

func (l *failingListener) Close() error {
	l.closed.Store(true)
	return l.Listener.Close()
}

func TestForwardListener(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		// A lack of descriptors passes.
		mem := netfault.NewListener()
		ln := &failingListener{Listener: mem, fail: func(n int) error {
			if n%2 == 1 {
				return syscall.EMFILE
			}
			return nil
		}}
		f := l.forward(ln)
		for range 3 {
			c, err := mem.Dial(context.Background(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, c)
			c.Close()
		}
		f.stop(t)
		if !ln.closed.Load() {
			t.Error("the listener is open")
		}

		// Other failures do not.
		ln = &failingListener{Listener: netfault.NewListener(), fail: func(int) error { return syscall.EINVAL }}
		f = l.forward(ln)
		if err := <-f.ran; !errors.Is(err, syscall.EINVAL) || !strings.HasPrefix(err.Error(), "forward x: ") {
			t.Errorf("got %v", err)
		}
		if !ln.closed.Load() {
			t.Error("the listener is open")
		}
		f.link.stop(t)

		// Nor does its end, with which the connections live on until their own.
		mem = netfault.NewListener()
		f = l.forward(mem)
		c, err := mem.Dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c)
		mem.Close()
		synctest.Wait()
		exchange(t, c)
		if len(f.ran) > 0 {
			t.Error("Forward does not wait")
		}
		c.Close()
		if err := <-f.ran; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		f.link.stop(t)
	})
}

// Many at once, each with its own bytes; nothing is left (TestMain looks).
func TestForwardMany(t *testing.T) {
	l := newLab(t, false, nil)
	f := l.forward(listen(t))
	var users sync.WaitGroup
	for i := range 100 {
		users.Go(func() {
			c := f.dial(t)
			defer c.Close()
			want := bytes.Repeat([]byte{byte(i)}, 1000*i)
			go func() {
				c.Write(want)
				c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: got %d bytes of %d, %v", i, len(got), len(want), err)
			}
		})
	}
	users.Wait()
	f.stop(t)
	if n := l.signals.Load(); n != 1 {
		t.Errorf("%d signals", n)
	}
}
