package front_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/test/front"
	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }

const patience = 30 * time.Second

// backend answers each line with its name, and the end of the input with "bye".
func backend(t *testing.T, name string) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintln(c, name, lines.Text())
				}
				if lines.Err() == nil {
					fmt.Fprintln(c, "bye")
				}
			})
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// run starts f until the test ends and returns its address.
func run(t *testing.T, f *front.Front) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// who asks through the front which backend it gets; "" and why if none.
func who(t *testing.T, addr string) (string, error) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	if _, err := io.WriteString(c, "x\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	name, _, _ := strings.Cut(line, " ")
	return name, err
}

func three(t *testing.T) (addrs []string, stops []func()) {
	t.Helper()
	for _, name := range []string{"a", "b", "c"} {
		addr, stop := backend(t, name)
		addrs, stops = append(addrs, addr), append(stops, stop)
	}
	return addrs, stops
}

func (r *asked) until(t *testing.T, n int64) {
	t.Helper()
	for end := time.Now().Add(patience); r.times.Load() < n; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("backends are not asked")
		}
	}
}

// asked is a Ready that says no for one backend.
type asked struct {
	no    atomic.Pointer[string]
	times atomic.Int64
}

func (r *asked) ready(_ context.Context, addr string) bool {
	no := r.no.Load()
	r.times.Add(1)
	return no == nil || *no != addr
}

func TestTurns(t *testing.T) {
	addrs, _ := three(t)
	f := front.New(front.Config{Backends: addrs})
	addr, _ := run(t, f)
	var got string
	for range 6 {
		name, err := who(t, addr)
		if err != nil {
			t.Fatal(err)
		}
		got += name
	}
	if got != "abcabc" {
		t.Errorf("got %s", got)
	}
	for _, a := range addrs {
		if n := f.Served()[a]; n != 2 {
			t.Errorf("%s served %d", a, n)
		}
	}
	f.SetBackends(addrs[2:])
	for range 3 {
		if name, err := who(t, addr); name != "c" {
			t.Errorf("got %q, %v from replaced backends", name, err)
		}
	}
}

func TestUnready(t *testing.T) {
	addrs, _ := three(t)
	var r asked
	f := front.New(front.Config{Backends: addrs, Ready: r.ready, Every: time.Millisecond})
	addr, _ := run(t, f)
	seen := func() (names string) {
		for range 6 {
			name, err := who(t, addr)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(names, name) {
				names += name
			}
		}
		return names
	}
	r.no.Store(&addrs[1])
	r.until(t, r.times.Load()+9) // each once more at least
	if got := seen(); len(got) != 2 || strings.Contains(got, "b") {
		t.Errorf("got %s with b not ready", got)
	}
	r.no.Store(nil)
	r.until(t, r.times.Load()+9)
	if got := seen(); len(got) != 3 {
		t.Errorf("got %s with all ready again", got)
	}
}

func TestBackendGone(t *testing.T) {
	addrs, stops := three(t)
	f := front.New(front.Config{Backends: addrs})
	addr, _ := run(t, f)
	stops[0]()
	for range 4 {
		if name, err := who(t, addr); name != "b" && name != "c" {
			t.Errorf("got %q, %v with a gone", name, err)
		}
	}
	c := dial(t, addr)
	stops[1]()
	stops[2]()
	if b, err := io.ReadAll(c); err == nil && len(b) > 0 {
		t.Errorf("read %q of a backend that is gone", b)
	}
	if name, err := who(t, addr); err == nil {
		t.Errorf("got %q with all gone", name)
	}
	f.SetBackends(nil)
	if name, err := who(t, addr); err == nil {
		t.Errorf("got %q without backends", name)
	}
}

func TestHalfClose(t *testing.T) {
	a, _ := backend(t, "a")
	addr, _ := run(t, front.New(front.Config{Backends: []string{a}}))
	c := dial(t, addr)
	io.WriteString(c, "x\n")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "a x\nbye\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

// A cut is passed on as a cut, and not as an end.
func TestReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, _ := run(t, front.New(front.Config{Backends: []string{l.Addr().String()}}))
	for _, fromClient := range []bool{false, true} {
		c := dial(t, addr)
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b.SetDeadline(time.Now().Add(patience))
		one, other := b.(*net.TCPConn), c
		if fromClient {
			one, other = other, one
		}
		one.SetLinger(0)
		one.Close()
		if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("from the client %t: got %v", fromClient, err)
		}
		other.Close()
	}
}

func TestBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	})
	addr, _ := run(t, front.New(front.Config{Backends: []string{l.Addr().String()}}))
	c := dial(t, addr)
	sent := slices.Repeat([]byte("0123456789abcde\n"), 1<<16)
	wg.Go(func() {
		c.Write(sent)
		c.CloseWrite()
	})
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(sent), err)
	}
}

// The end of Run ends what is open.
func TestStop(t *testing.T) {
	a, _ := backend(t, "a")
	var r asked
	addr, stop := run(t, front.New(front.Config{Backends: []string{a}, Ready: r.ready}))
	c := dial(t, addr)
	io.WriteString(c, "x\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "a x\n" {
		t.Fatal(line, err)
	}
	stop()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the front")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the front still listens")
	}
}

func TestReadyz(t *testing.T) {
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/readyz", http.StatusFound)
			return
		}
		w.WriteHeader(status)
	}))
	defer srv.Close()
	for _, c := range []struct {
		url    string
		status int
		want   bool
	}{
		{srv.URL + "/readyz", http.StatusOK, true},
		{srv.URL + "/readyz", http.StatusServiceUnavailable, false},
		{srv.URL + "/moved", http.StatusOK, false},
		{"http://127.0.0.1:1/readyz", http.StatusOK, false},
		{":", http.StatusOK, false},
	} {
		status = c.status
		if got := front.Readyz(func(string) string { return c.url })(t.Context(), "node"); got != c.want {
			t.Errorf("%s with %d: %t", c.url, c.status, got)
		}
	}
}
