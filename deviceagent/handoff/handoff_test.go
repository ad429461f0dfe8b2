package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
	"websocketbridge/test/testlog"
)

const (
	patience = 20 * time.Second
	token    = "0123456789abcdef0123456789abcdef"
	good     = `{"acceptUrl":"wss://relay.example.com/bridge/accept?bridgeToken=SECRET"}`
)

// rig is a source that runs, and what its handler heard.
type rig struct {
	t    *testing.T
	src  *handoff.Source
	at   handoff.Address
	log  testlog.Buffer
	stop func() error

	mu     sync.Mutex // guards the two below
	heard  []string
	answer func(payload string) *signaler.Refusal
	inside atomic.Int32
}

func (r *rig) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	if r.inside.Add(1) != 1 {
		r.t.Error("the handler is called before the last call has returned")
	}
	defer r.inside.Add(-1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, string(d.Payload))
	if d.Answers {
		r.t.Error("a delivery says that its answer reaches the relay, which nobody here knows")
	}
	if r.answer != nil {
		return r.answer(string(d.Payload))
	}
	if _, err := signaler.Parse(d.Payload); err != nil {
		return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
	}
	return nil
}

func (r *rig) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.heard)
}

func newRig(t *testing.T, address string, change func(*handoff.Config)) *rig {
	t.Helper()
	r := &rig{t: t}
	cfg := handoff.Config{Address: parse(t, address), Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if cfg.Address.Kind == handoff.HTTP {
		cfg.Token = token
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.src, err = handoff.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, secret := range []string{"SECRET", token} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("a secret is in the log:\n%s", &r.log)
			}
		}
	})
	return r
}

// start runs the source until the test ends, or stop.
func (r *rig) start() *rig {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.src.Run(ctx, r.handle) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ran:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	})
	r.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	wait, done := context.WithTimeout(context.Background(), patience)
	defer done()
	var err error
	if r.at, err = r.src.Wait(wait); err != nil {
		r.t.Fatal(err)
	}
	return r
}

func (r *rig) send(signal string) (*signaler.Refusal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return handoff.Send(ctx, r.at, token, []byte(signal))
}

func parse(t *testing.T, s string) handoff.Address {
	t.Helper()
	a, err := handoff.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// socket is a short path: a socket's may have about a hundred bytes.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "handoff")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, s := range []string{"unix:/run/x.sock", "unix:x.sock", `unix:C:\x.sock`, "http:127.0.0.1:7072", "http:[::1]:7072", "http:localhost:0", "http:127.8.8.8:1", "stdin"} {
		if a, err := handoff.ParseAddress(s); err != nil || a.String() != s {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
	for s, want := range map[string]string{
		"": "none of", "unix": "needs a path", "unix:": "needs a path", "unix:@x": "abstract", "unix:///run/x": "no URL",
		"http": "host and a port", "http:127.0.0.1": "host and a port", "http://127.0.0.1:1": "no URL", "http:127.0.0.1:x": "host and a port",
		"http:127.0.0.1:99999": "host and a port", "http::7072": "not a loopback address", "http:0.0.0.0:7072": "not a loopback address", "http:example.com:80": "not a loopback",
		"stdin:x": "no address", "tcp:127.0.0.1:1": "none of",
	} {
		if _, err := handoff.ParseAddress(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	unix, http, stdin := handoff.Address{Kind: "unix", At: "/x"}, handoff.Address{Kind: "http", At: "127.0.0.1:1"}, handoff.Address{Kind: "stdin"}
	for _, tt := range []struct {
		cfg  handoff.Config
		want string
	}{
		{handoff.Config{}, "Address: "},
		{handoff.Config{Address: http}, "Token: is missing"},
		{handoff.Config{Address: http, Token: "short"}, "Token: has 5 characters; 32 are needed"},
		{handoff.Config{Address: unix, Token: token}, "Token: is for http: only"},
		{handoff.Config{Address: stdin}, "In and Out"},
		{handoff.Config{Address: unix, MaxConns: -1}, "MaxConns"},
	} {
		if _, err := handoff.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), token) {
			t.Errorf("%+v: %v", tt.cfg, err)
		}
	}
}

// Both networks do the same.
func TestSend(t *testing.T) {
	for _, address := range []string{"unix:" + socket(t), "http:127.0.0.1:0"} {
		t.Run(address[:4], func(t *testing.T) {
			r := newRig(t, address, nil).start()
			if no, err := r.send(good); no != nil || err != nil {
				t.Errorf("a good one: %v, %v", no, err)
			}
			if no, err := r.send(" \n" + good + "\r\n"); no != nil || err != nil {
				t.Errorf("with space around: %v, %v", no, err)
			}
			pretty := strings.ReplaceAll(good, `{`, "{\n  ")
			if no, err := r.send(pretty); no != nil || err != nil {
				t.Errorf("over two lines: %v, %v", no, err)
			}
			r.mu.Lock()
			if r.heard[1] != good || r.heard[2] != pretty {
				t.Errorf("the agent got %q", r.heard)
			}
			r.answer = func(string) *signaler.Refusal {
				return &signaler.Refusal{Code: "target_not_allowed", Message: "target \"<web>\" is\nnot"}
			}
			r.mu.Unlock()
			if no, err := r.send(good); err != nil || no == nil || *no != *r.answer("") {
				t.Errorf("a refusal: %v, %v", no, err)
			}
			r.mu.Lock()
			r.answer = nil
			r.mu.Unlock()
			for _, bad := range []string{"hello", "[]", `{"acceptUrl":`, `{}`, `{"acceptUrl":"` + strings.Repeat("x", signaler.MaxSize) + `"}`, strings.Repeat(" {", 9000)} {
				if no, err := r.send(bad); err != nil || no == nil || no.Code != "bad_signal" || no.Message == "" {
					t.Errorf("%.20q: %v, %v", bad, no, err)
				}
			}
			if no, err := r.send(good); no != nil || err != nil {
				t.Errorf("a good one after garbage: %v, %v", no, err)
			}
			// Many at once, and the handler one after the other.
			var work sync.WaitGroup
			for range 10 {
				work.Go(func() {
					for range 20 {
						if no, err := r.send(good); no != nil || err != nil {
							t.Errorf("%v, %v", no, err)
						}
					}
				})
			}
			work.Wait()
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if no, err := r.send(good); err == nil {
				t.Errorf("after the end: %v", no)
			}
			n := r.count()
			if r.at.Kind == handoff.Unix { // whose port is not another one
				r.start()
				if no, err := r.send(good); no != nil || err != nil || r.count() != n+1 {
					t.Errorf("another Run: %v, %v", no, err)
				}
			}
		})
	}
}

func TestSendFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for address, want := range map[string]string{
		"unix:/nowhere/s":  "hand over to unix:/nowhere/s: no agent listens there",
		"http:127.0.0.1:1": "hand over to http:127.0.0.1:1: ",
		"stdin":            "needs unix:PATH or http:HOST:PORT",
	} {
		_, err := handoff.Send(ctx, parse(t, address), token, []byte(good))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", address, err)
		}
	}
	gone, cancelGone := context.WithCancelCause(ctx)
	why := errors.New("lunch")
	cancelGone(why)
	if _, err := handoff.Send(gone, parse(t, "unix:/nowhere/s"), "", nil); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestRunTwice(t *testing.T) {
	r := newRig(t, "unix:"+socket(t), nil).start()
	if err := r.src.Run(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r = newRig(t, "unix:"+socket(t), nil)
	if err := r.src.Run(ended, nil); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := newRig(t, "unix:/x", nil).src.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Lines on standard input, each with its answer, whatever the one before was.
func TestStdin(t *testing.T) {
	in, feed := io.Pipe()
	answers, out := io.Pipe()
	r := newRig(t, "stdin", func(c *handoff.Config) { c.In, c.Out = in, out })
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.src.Run(ctx, r.handle) }()
	say := func(line string) string {
		t.Helper()
		fmt.Fprint(feed, line)
		b := make([]byte, 4096)
		n, err := answers.Read(b) // one answer is one Write
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for _, tt := range []struct{ in, want string }{
		{good + "\n", `{"accepted":true}` + "\n"},
		{"hello\n", `{"code":"bad_signal","message":"signal: is not a JSON object"}` + "\n"},
		{"{\n", `{"code":"bad_signal","message":"signal: does not end on its line"}` + "\n"},
		{"{}\n", `{"code":"bad_signal","message":"signal: acceptUrl is missing"}` + "\n"},
		{good, `{"accepted":true}` + "\n"}, // its newline may come later
		{"\n" + strings.Repeat("{", 5000), `{"code":"bad_signal","message":"signal: has more than 4096 bytes"}` + "\n"},
		{"\n" + good + "\n", `{"accepted":true}` + "\n"},
	} {
		if got := say(tt.in); got != tt.want {
			t.Errorf("%.20q: got %s, want %s", tt.in, got, tt.want)
		}
	}
	// The next Run goes on where this one has stopped.
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	go func() { ran <- r.src.Run(context.Background(), r.handle) }()
	if got := say(good + "\n"); got != `{"accepted":true}`+"\n" {
		t.Errorf("the second Run: %s", got)
	}
	feed.Close()
	if err := <-ran; !errors.Is(err, handoff.ErrEnded) {
		t.Errorf("the end of the input: %v", err)
	}
	if err := r.src.Run(context.Background(), r.handle); !errors.Is(err, handoff.ErrEnded) {
		t.Errorf("after the end of the input: %v", err)
	}
}

func TestStdinBreaks(t *testing.T) {
	broken := errors.New("broken")
	in, feed := io.Pipe()
	r := newRig(t, "stdin", func(c *handoff.Config) { c.In, c.Out = in, io.Discard })
	feed.CloseWithError(broken)
	if err := r.src.Run(context.Background(), r.handle); !errors.Is(err, broken) {
		t.Errorf("in: %v", err)
	}
	_, out := io.Pipe()
	out.CloseWithError(broken)
	r = newRig(t, "stdin", func(c *handoff.Config) { c.In, c.Out = strings.NewReader(good), out })
	if err := r.src.Run(context.Background(), r.handle); err == nil || !strings.Contains(err.Error(), "standard output") {
		t.Errorf("out: %v", err)
	}
	// What is left in the channel belongs to the next Run.
	if err := r.src.Run(context.Background(), r.handle); !errors.Is(err, handoff.ErrEnded) {
		t.Errorf("then: %v", err)
	}
}
