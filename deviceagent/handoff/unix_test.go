//go:build unix

package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
)

// dial is a client that is not Send.
func (r *rig) dial() *net.UnixConn {
	r.t.Helper()
	c, err := net.Dial("unix", r.at.At)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// answer reads one, and wants another object or the end, as wantEnd says.
func answer(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Errorf("no answer: %v", err)
	}
	return string(b[:n])
}

func ends(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %q, %v", b, err)
	}
}

const yes = `{"accepted":true}` + "\n"

// Writers of all sorts: neither newline nor end, a byte at a time, many on one
// connection.
func TestUnixWriters(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil).start()
	c := r.dial()
	fmt.Fprint(c, good)
	if got := answer(t, c); got != yes {
		t.Errorf("without a newline: %s", got)
	}
	for i := range len(good) {
		c.Write([]byte{good[i]})
	}
	if got := answer(t, c); got != yes {
		t.Errorf("byte by byte: %s", got)
	}
	c.CloseWrite()
	ends(t, c)
	c = r.dial()
	fmt.Fprint(c, strings.Repeat(good+"\n", 100))
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != strings.Repeat(yes, 100) || err != nil {
		t.Errorf("a hundred at once: %q, %v", b, err)
	}
	if r.count() != 102 {
		t.Errorf("%d signals", r.count())
	}
}

// Garbage is answered, also of a writer that goes on, and is the end.
func TestUnixGarbage(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil).start()
	for in, want := range map[string]string{
		"hello":                             "is not a JSON object",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n": "is not a JSON object",
		strings.Repeat("{", 100_000):        "has more than 4096 bytes",
		"{\"a\":\"\n":                       "does not end",
	} {
		c := r.dial()
		if _, err := io.WriteString(c, in); err != nil {
			t.Errorf("%.20q: %v", in, err)
		}
		if got := answer(t, c); !strings.Contains(got, want) || !strings.Contains(got, `"bad_signal"`) {
			t.Errorf("%.20q: %s", in, got)
		}
		c.CloseWrite()
		ends(t, c)
	}
	c := r.dial() // one that goes away in the middle
	fmt.Fprint(c, `{"a":`)
	c.Close()
	if no, err := r.send(good); no != nil || err != nil {
		t.Errorf("after all that: %v, %v", no, err)
	}
	if r.count() != 1 {
		t.Errorf("the agent was asked %d times", r.count())
	}
}

func TestUnixTimes(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil)
	r.src.SetTimes(50*time.Millisecond, 100*time.Millisecond)
	r.start()
	slow, idle, late := r.dial(), r.dial(), r.dial()
	fmt.Fprint(slow, `{"a":`)
	if got := answer(t, slow); !strings.Contains(got, "did not end within 50ms") {
		t.Errorf("one that stops in the middle: %s", got)
	}
	slow.CloseWrite()
	ends(t, slow)
	ends(t, idle) // without a word: it never said anything
	if fmt.Fprint(late, good); r.stop() != nil {
		t.Error("Run does not end well")
	}
}

func TestUnixTooMany(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), func(c *handoff.Config) { c.MaxConns = 2 }).start()
	first, second := r.dial(), r.dial()
	for _, c := range []net.Conn{first, second} { // they have been accepted
		fmt.Fprint(c, good)
		answer(t, c)
	}
	for range 3 {
		if no, err := r.send(good); err != nil || no == nil || no.Code != "busy" {
			t.Errorf("the third one: %v, %v", no, err)
		}
	}
	first.Close()
	until(t, "there is room", func() bool {
		no, err := r.send(good)
		return no == nil && err == nil
	})
}

// A connection that does nothing does not hold up the end.
func TestUnixStops(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil).start()
	idle, half := r.dial(), r.dial()
	fmt.Fprint(half, `{"a":`)
	fmt.Fprint(idle, good)
	answer(t, idle)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	ends(t, idle)
	if _, err := os.Lstat(r.at.At); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestUnixMode(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil).start()
	info, err := os.Lstat(r.at.At)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What is at the path before.
func TestUnixPath(t *testing.T) {
	run := func(path string) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return newRig(t, "unix:"+path, nil).src.Run(ctx, nil)
	}
	dead := socket(t)
	ln, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	r := newRig(t, "unix:"+dead, nil).start()
	if no, err := r.send(good); no != nil || err != nil {
		t.Errorf("in place of a dead socket: %v, %v", no, err)
	}
	if err := run(dead); err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("a second agent: %v", err)
	}
	if no, err := r.send(good); no != nil || err != nil {
		t.Errorf("the first one, after the second one: %v, %v", no, err)
	}
	file := socket(t)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file); err == nil || !strings.Contains(err.Error(), "a file that is no socket") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file is gone")
	}
	if err := run("/nowhere/s"); err == nil || !strings.Contains(err.Error(), "listen on /nowhere/s") {
		t.Errorf("no directory: %v", err)
	}
	// Somebody else's socket in place of ours is left alone.
	r = newRig(t, "unix:"+socket(t), nil).start()
	if err := os.Remove(r.at.At); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", r.at.At)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.at.At); err != nil {
		t.Errorf("somebody else's socket is gone: %v", err)
	}
}

// exhausted is a listener that has no file descriptors for a while.
type exhausted struct {
	net.Listener
	failures int
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// No file descriptors are a state, and no reason to give up.
func TestUnixExhausted(t *testing.T) {
	path := socket(t)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "unix:"+path, nil)
	r.at = handoff.Address{Kind: handoff.Unix, At: path}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() {
		ran <- r.src.ServeUnix(ctx, &exhausted{ln, 3}, func([]byte) *signaler.Refusal { return nil })
	}()
	if no, err := r.send(good); no != nil || err != nil {
		t.Errorf("%v, %v", no, err)
	}
	if n := strings.Count(r.log.String(), "too many open files"); n != 3 {
		t.Errorf("%d failures in the log", n)
	}
	cancel()
	if err := <-ran; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
