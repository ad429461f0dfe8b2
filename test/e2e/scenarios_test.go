package e2e_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/fake"
)

func TestStream(t *testing.T) { everywhere(t, testStream) }

func testStream(t *testing.T, nodes int) {
	w := newWorld(t, options{nodes: nodes})
	st, err := w.dial("echo").Open(w.ctx(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, st, "hello")
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(st); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v", rest, err)
	}
}

// Sixteen streams at once, random sizes, random chunks: what arrives is what was
// sent, both ways.
func TestByteExact(t *testing.T) { everywhere(t, testByteExact) }

func testByteExact(t *testing.T, nodes int) {
	const streams = 16
	w := newWorld(t, options{nodes: nodes, targets: []string{tcpTarget(t, "copy", func(c *net.TCPConn) { io.Copy(c, c) })}})
	s := w.dial("copy")
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			st, err := s.Open(w.ctx(), "copy")
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			sent, got := sha256.New(), sha256.New()
			wg.Go(func() {
				sendRandom(t, io.MultiWriter(sent, st), byte(i))
				st.CloseWrite()
			})
			if _, err := io.Copy(got, &ragged{st, rand.New(rand.NewPCG(uint64(i), 2))}); err != nil {
				t.Error(err)
			}
			if string(sent.Sum(nil)) != string(got.Sum(nil)) {
				t.Errorf("stream %d: what came back is not what was sent", i)
			}
		})
	}
	wg.Wait()
}

func sendRandom(t *testing.T, w io.Writer, seed byte) {
	source := rand.NewChaCha8([32]byte{seed})
	rng := rand.New(source)
	b := make([]byte, 1<<16)
	for n := streamSize + rng.IntN(streamSize); n > 0; {
		piece := b[:min(n, 1+rng.IntN(1<<rng.IntN(17)))]
		source.Read(piece)
		if _, err := w.Write(piece); err != nil {
			t.Error(err)
			return
		}
		n -= len(piece)
	}
}

// ragged reads in pieces of all sizes, and has no WriteTo.
type ragged struct {
	r   io.Reader
	rng *rand.Rand
}

func (r *ragged) Read(p []byte) (int, error) {
	return r.r.Read(p[:min(len(p), 1+r.rng.IntN(1<<r.rng.IntN(16)))])
}

// A page of sixty requests costs one signal.
func TestSixtyRequestsOneSignal(t *testing.T) { everywhere(t, testSixtyRequestsOneSignal) }

func testSixtyRequestsOneSignal(t *testing.T, nodes int) {
	w := newWorld(t, options{nodes: nodes, targets: []string{webTarget(t, "web", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "page %s", r.URL.Path)
	})}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := client.NewLink(w.client, client.Request{Device: device, Targets: []string{"web"}}, false, nil)
	w.run(link.Run)
	w.run(func(ctx context.Context) error { return link.Forward(ctx, ln, "web", func(err error) { t.Error(err) }) })
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := c.Get(fmt.Sprintf("http://%s/%d", ln.Addr(), i))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != fmt.Sprintf("page /%d", i) {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := w.signal.count(); n != 1 {
		t.Errorf("%d signals", n)
	}
}

// The target answers only after it has seen the end of the question.
func TestHalfClose(t *testing.T) { everywhere(t, testHalfClose) }

func testHalfClose(t *testing.T, nodes int) {
	w := newWorld(t, options{nodes: nodes, targets: []string{tcpTarget(t, "count", func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		fmt.Fprintf(c, "%d bytes", n)
	})}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := client.NewLink(w.client, client.Request{Device: device, Targets: []string{"count"}}, false, nil)
	w.run(link.Run)
	w.run(func(ctx context.Context) error { return link.Forward(ctx, ln, "count", nil) })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(make([]byte, 100_000))
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "100000 bytes" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestUnixTarget(t *testing.T) { everywhere(t, testUnixTarget) }

func testUnixTarget(t *testing.T, nodes int) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	w := newWorld(t, options{nodes: nodes, targets: []string{"docker=unix:" + path}})
	st, err := w.dial("docker").Open(w.ctx(), "docker")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, st, "over a socket file")
	st.Close()
}

// Each stream is answered by itself; a refusal does not disturb its neighbour.
func TestStreamRefusals(t *testing.T) { everywhere(t, testStreamRefusals) }

func testStreamRefusals(t *testing.T, nodes int) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := dead.Addr().String()
	dead.Close()
	w := newWorld(t, options{nodes: nodes, targets: []string{"dead=tcp:" + addr, "missing=unix:" + filepath.Join(os.TempDir(), "no-such-socket"), "other=echo:"}})
	s := w.dial("echo", "dead", "missing")
	good, err := s.Open(w.ctx(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ target, code, message string }{
		{"dead", "dial_failed", addr + ": connection refused"},
		{"missing", "dial_failed", filepath.Join(os.TempDir(), "no-such-socket") + ": no such file or directory"},
		{"nowhere", "target_not_allowed", `target "nowhere" is not on this device's list`},
		{"other", "target_not_allowed", `this bridge was opened for echo,dead,missing, not for "other"`},
	} {
		_, err := s.Open(w.ctx(), tt.target)
		var refused *session.OpenError
		if !errors.As(err, &refused) || refused.Code != tt.code || refused.Message != tt.message {
			t.Errorf("%s: got %v", tt.target, err)
		}
	}
	exchange(t, good, "undisturbed")
}

// The hub loses, delays, doubles and reorders; every requester gets its own
// device or its own failure.
func TestHubFaults(t *testing.T) { everywhere(t, testHubFaults) }

func testHubFaults(t *testing.T, nodes int) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		for name, f := range map[string]fake.Faults{
			"delay":     {Delay: 30e6},
			"duplicate": {Duplicate: 3},
			"reorder":   {Reorder: true},
			"all three": {Delay: 10e6, Duplicate: 2, Reorder: true},
		} {
			t.Run(fmt.Sprintf("%v %s", mode, name), func(t *testing.T) {
				w := newWorld(t, options{nodes: nodes, hub: fake.Config{Mode: mode}})
				if err := w.hub.SetFaults(f); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i := range 8 { // an even number: reorder lets the last one go with its pair
					wg.Go(func() {
						s, err := client.Dial(w.ctx(), w.client, client.Request{Device: device, Targets: []string{"echo"}})
						if err != nil {
							t.Errorf("bridge %d: %v", i, err)
							return
						}
						defer s.Close()
						st, err := s.Open(w.ctx(), "echo")
						if err != nil {
							t.Errorf("bridge %d: %v", i, err)
							return
						}
						exchange(t, st, fmt.Sprintf("bridge %d", i))
					})
				}
				wg.Wait()
			})
		}
	}
}

func wantCode(t *testing.T, err error, code wire.Code) *client.Error {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return e
}

func shortDialBack(c *relay.Config) { c.DialBack = time.Second }

func TestSignalLost(t *testing.T) { everywhere(t, testSignalLost) }

func testSignalLost(t *testing.T, nodes int) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		w := newWorld(t, options{nodes: nodes, hub: fake.Config{Mode: mode}, relay: shortDialBack})
		if err := w.hub.SetFaults(fake.Faults{LoseNext: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := client.Dial(w.ctx(), w.client, client.Request{Device: device, Targets: []string{"echo"}})
		wantCode(t, err, wire.DialBackTimeout)
		w.dial("echo") // the next one works
	}
}

// A device that cannot answer its hub says no at the reject URL.
func TestRefusalWithoutAnswer(t *testing.T) { everywhere(t, testRefusalWithoutAnswer) }

func testRefusalWithoutAnswer(t *testing.T, nodes int) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		w := newWorld(t, options{nodes: nodes, hub: fake.Config{Mode: mode}})
		_, err := client.Dial(w.ctx(), w.client, client.Request{Device: device, Targets: []string{"nowhere"}})
		e := wantCode(t, err, wire.DeviceRefused)
		if e.DeviceCode != "target_not_allowed" {
			t.Errorf("got %+v", e)
		}
	}
}

// A raw bridge whose target is down is refused, not opened and dropped.
func TestRawTargetDown(t *testing.T) { everywhere(t, testRawTargetDown) }

func testRawTargetDown(t *testing.T, nodes int) {
	w := newWorld(t, options{nodes: nodes, targets: []string{"dead=tcp:127.0.0.1:1"}})
	_, err := client.DialRaw(w.ctx(), w.client, client.Request{Device: device, Targets: []string{"dead"}})
	e := wantCode(t, err, wire.DeviceRefused)
	if e.DeviceCode != "dial_failed" {
		t.Errorf("got %+v", e)
	}
}
