package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
)

const handoffToken = "0123456789abcdef0123456789abcdef"

// program is the one with the connection to the hub: it hands every signal over
// with give, and answers the hub with what comes back.
func (r *rig) program(t *testing.T, give func(context.Context, []byte) (*signaler.Refusal, error)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		r.hub.Source("pump-7").Run(ctx, func(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
			no, err := give(ctx, d.Payload)
			if err != nil {
				if ctx.Err() == nil { // the agent dials before it answers, and the test may be over by then
					t.Errorf("hand over: %v", err)
				}
				return &signaler.Refusal{Code: "agent_unreachable", Message: err.Error()}
			}
			return no
		})
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	if err := r.hub.WaitOnline(r.ctx, "pump-7"); err != nil {
		t.Fatal(err)
	}
}

// start runs the agent with args, and returns when it listens for signals.
func (r *rig) start(t *testing.T, in io.Reader, out io.Writer, env map[string]string, args ...string) *logged {
	t.Helper()
	all := map[string]string{"AGENT_DEVICE_ID": "pump-7", "AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_TARGETS": "echo"}
	for name, value := range env {
		all[name] = value
	}
	setenv(t, all)
	log := &logged{}
	ctx, stop := untilSignal()
	r.stop, r.ended = stop, make(chan error, 1)
	go func() { r.ended <- run(ctx, args, in, out, log) }()
	log.wait(t, "listening for signals")
	return log
}

// bridges wants a bridge, and a refusal that comes from the agent.
func (r *rig) bridges(t *testing.T) {
	t.Helper()
	sess, err := r.dial("echo")
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	st, err := sess.Open(r.ctx, "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	go io.WriteString(st, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(st, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := r.dial("ssh"); !refusedAs(err, "target_not_allowed") {
		t.Errorf("a target that is not listed: %v", err)
	}
}

// by hands over with package handoff.
func by(to handoff.Address, token string) func(context.Context, []byte) (*signaler.Refusal, error) {
	return func(ctx context.Context, payload []byte) (*signaler.Refusal, error) {
		return handoff.Send(ctx, to, token, payload)
	}
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestHandoffUnix(t *testing.T) {
	r := newRig(t, false)
	at := handoff.Address{Kind: "unix", At: socketPath(t)}
	r.start(t, nil, io.Discard, nil, "--handoff", at.String())
	r.program(t, by(at, ""))
	r.bridges(t)
	r.stop()
	r.wait(t)
}

func TestHandoffHTTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	at := handoff.Address{Kind: "http", At: ln.Addr().String()}
	ln.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(handoffToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, false)
	log := r.start(t, nil, io.Discard, map[string]string{"AGENT_SIGNALS": "handoff", "AGENT_HANDOFF": at.String(), "AGENT_HANDOFF_TOKEN_FILE": file})
	r.program(t, by(at, handoffToken))
	r.bridges(t)
	r.stop()
	r.wait(t)
	if strings.Contains(log.String(), handoffToken) {
		t.Error("the token is in the log")
	}
}

// A parent that runs the agent, and ends it by closing its standard input.
func TestHandoffStdin(t *testing.T) {
	r := newRig(t, false)
	in, feed := io.Pipe()
	answers, out := io.Pipe()
	log := r.start(t, in, out, nil, "--handoff=stdin")
	dec := json.NewDecoder(answers)
	r.program(t, func(_ context.Context, payload []byte) (*signaler.Refusal, error) {
		if _, err := feed.Write(append(bytes.Clone(payload), '\n')); err != nil {
			return nil, err
		}
		var a struct {
			Accepted bool
			signaler.Refusal
		}
		if err := dec.Decode(&a); err != nil || a.Accepted {
			return nil, err
		}
		return &a.Refusal, nil
	})
	r.bridges(t)
	feed.Close()
	r.wait(t)
	log.wait(t, "standard input has ended")
}

// The command that hands one signal over.
func TestHandOver(t *testing.T) {
	r := newRig(t, false)
	at := "unix:" + socketPath(t)
	r.start(t, nil, io.Discard, map[string]string{"AGENT_TARGETS": "echo"}, "--handoff", at)
	give := func(signal string, args ...string) (string, error) {
		var out bytes.Buffer
		err := run(r.ctx, append([]string{"handoff"}, args...), strings.NewReader(signal), &out, io.Discard)
		return out.String(), err
	}
	future := time.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05Z")
	good := `{"acceptUrl":"ws://127.0.0.1:1/bridge/accept?bridgeToken=SECRET","v":1,"target":"echo","deviceId":"pump-7","expiresAt":"` + future + `"}`
	if out, err := give(good+"\n", at); out != `{"accepted":true}`+"\n" || err != nil {
		t.Errorf("accepted: %q, %v", out, err)
	}
	out, err := give(strings.NewReplacer(`"echo"`, `"<ssh>"`, "SECRET", "SECRET2").Replace(good), at)
	if err == nil || !strings.Contains(err.Error(), "device refused: target_not_allowed") || !strings.HasPrefix(out, `{"code":"target_not_allowed","message":"target \"<ssh>\"`) {
		t.Errorf("refused: %q, %v", out, err)
	}
	t.Setenv("AGENT_HANDOFF", at)
	if out, err := give("hello"); err == nil || !strings.HasPrefix(out, `{"code":"bad_signal"`) {
		t.Errorf("garbage, to the address of the environment: %q, %v", out, err)
	}
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		want string
		out  string
	}{
		{"no agent", []string{"unix:/nowhere/s"}, nil, "no agent listens there", `{"code":"agent_unreachable"`},
		{"no address", nil, nil, "needs the agent's address", ""},
		{"two addresses", []string{at, at}, nil, "takes one address", ""},
		{"no such address", []string{"tcp:x"}, nil, "none of unix:PATH", ""},
		{"not stdin", []string{"stdin"}, nil, "needs unix:PATH or http:HOST:PORT", `{"code":"agent_unreachable"`},
		{"two tokens", []string{at}, map[string]string{"AGENT_HANDOFF_TOKEN": "x", "AGENT_HANDOFF_TOKEN_FILE": "y"}, "keep one", ""},
		{"the agent's other settings are wrong", []string{"unix:/nowhere/s"}, map[string]string{"AGENT_MAX_BRIDGES": "x"}, "no agent listens", `{"code":`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, tt.env)
			out, err := give(good, tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") || !strings.HasPrefix(out, tt.out) || (tt.out == "") != (out == "") {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	r.stop()
	r.wait(t)
}

func TestHandoffFaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"no address", map[string]string{"AGENT_SIGNALS": "handoff"}, nil, "AGENT_HANDOFF: is missing"},
		{"a wrong one", map[string]string{"AGENT_SIGNALS": "handoff", "AGENT_HANDOFF": "http:0.0.0.0:80"}, nil, "AGENT_HANDOFF: 0.0.0.0 is not a loopback address"},
		{"a wrong one as an argument", nil, []string{"--handoff", "nonsense"}, `AGENT_HANDOFF: "nonsense" is none of`},
		{"no token", nil, []string{"--handoff", "http:127.0.0.1:0"}, "AGENT_HANDOFF_TOKEN: is missing; every user"},
		{"a short token", map[string]string{"AGENT_HANDOFF_TOKEN": "secret"}, []string{"--handoff", "http:127.0.0.1:0"}, "AGENT_HANDOFF_TOKEN: has 6 characters"},
		{"a token for nothing", map[string]string{"AGENT_HANDOFF_TOKEN": handoffToken}, []string{"--handoff", "unix:/x"}, "AGENT_HANDOFF_TOKEN: is for http: only"},
		{"an address for nothing", map[string]string{"AGENT_SIGNALS": "fake", "AGENT_HANDOFF": "stdin"}, nil, "AGENT_HANDOFF: is for AGENT_SIGNALS=handoff, which is fake"},
		{"an empty argument", nil, []string{"--handoff="}, "--handoff takes one address"},
		{"no argument", nil, []string{"--handoff"}, "--handoff takes one address"},
		{"too many", nil, []string{"--handoff", "stdin", "x"}, "--handoff takes one address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"AGENT_DEVICE_ID": "pump-7", "AGENT_RELAY_HOSTS": "127.0.0.1"}
			for name, value := range tt.env {
				env[name] = value
			}
			setenv(t, env)
			err := run(context.Background(), tt.args, nil, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), handoffToken) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A path that is taken is a fault of the agent's start, in its own words.
func TestHandoffPathIsTaken(t *testing.T) {
	r := newRig(t, false)
	at := "unix:" + socketPath(t)
	r.start(t, nil, io.Discard, nil, "--handoff", at)
	err := run(r.ctx, []string{"--handoff", at}, nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("got %v", err)
	}
	r.stop()
	r.wait(t)
}
