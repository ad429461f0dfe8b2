package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/socket"
	"websocketbridge/deviceagent/status"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
)

var update = flag.Bool("update", false, "write the golden files")

const patience = 20 * time.Second

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func full() status.Report {
	return status.Report{Version: "1.2.3", PID: 812, Now: now, Status: deviceagent.Status{
		DeviceID: "pump-7", Running: true, Since: now.Add(-50 * time.Hour),
		Source:     &signaler.SourceState{Kind: "hub", To: "hub.example.com:8883", Listening: true, Since: now.Add(-90 * time.Minute), Times: 3, Error: "connection reset", ErrorAt: now.Add(-91 * time.Minute)},
		RelayHosts: []string{"relay.example.com"}, Targets: []string{"ssh", "web"}, SignedOnly: true,
		RemoteAccess: deviceagent.RemoteAccess{On: true},
		Signals:      deviceagent.SignalCounts{Received: 12, Accepted: 9, Refused: map[string]uint64{"target_not_allowed": 2, "expired": 1}},
		Bridges:      deviceagent.BridgeCounts{Open: 2, Opened: 8, Failed: 1, Error: "the relay answered 410 bridge_gone", ErrorAt: now.Add(-30 * time.Second)},
		Streams:      deviceagent.StreamCounts{Open: 3, Opened: 41},
		Bytes:        deviceagent.ByteCounts{FromTargets: 1 << 31, ToTargets: 1234},
		Open: []deviceagent.BridgeStatus{
			{ID: "b1", Principal: "ops", Target: "ssh", Session: true, Since: now.Add(-time.Minute), Streams: 2, Bytes: deviceagent.ByteCounts{FromTargets: 3 << 20, ToTargets: 7}},
			{ID: "b2", Principal: "evil\x1b[2J\n", Since: now.Add(-time.Second), Streams: 1},
		},
	}}
}

// What a person reads.
func TestText(t *testing.T) {
	for name, change := range map[string]func(r *status.Report){
		"full":   func(*status.Report) {},
		"lost":   func(r *status.Report) { r.Source.Listening = false },
		"begun":  func(r *status.Report) { r.Source = &signaler.SourceState{Kind: "fake", Since: now} },
		"silent": func(r *status.Report) { r.Source, r.Open, r.Targets, r.SignedOnly = nil, nil, nil, false },
		"off": func(r *status.Report) {
			r.RemoteAccess = deviceagent.RemoteAccess{Reason: "/run/off is there", Since: now.Add(-time.Hour)}
		},
		"waiting":        func(r *status.Report) { r.Running, r.Waiting = false, "another client has this agent's identity" },
		"stopped":        func(r *status.Report) { r.Running = false },
		"clock set back": func(r *status.Report) { r.Now = now.Add(-1000 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			r := full()
			change(&r)
			var b bytes.Buffer
			b.WriteString(r.Line() + "\n\n")
			if err := r.Text(&b); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_")+".golden")
			if *update {
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("%s differs (go test -update writes it); got:\n%s", path, &b)
			}
			if connected := name == "full" || name == "silent" || name == "off" || name == "clock set back"; r.Connected() != connected {
				t.Errorf("connected: %v", r.Connected())
			}
		})
	}
}

// serve serves at address until the test ends.
func serve(t *testing.T, address string, report func() status.Report) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := status.Listen(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { status.Serve(ctx, ln, slog.New(slog.DiscardHandler), report) })
	stop = func() {
		cancel()
		work.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func TestServe(t *testing.T) {
	addresses := map[string]string{"a file": filepath.Join(t.TempDir(), "s")}
	if runtime.GOOS == "linux" {
		addresses["no file"] = "@websocketbridge-test-" + filepath.Base(t.TempDir()) + "-" + time.Now().Format("150405.000000000")
	}
	for name, at := range addresses {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, err := status.Ask(ctx, at); !errors.Is(err, status.ErrNotRunning) {
				t.Errorf("nobody: %v", err)
			}
			stop := serve(t, at, full)
			for range 3 {
				b, err := status.Ask(ctx, at)
				if err != nil {
					t.Fatal(err)
				}
				r, err := status.Parse(b)
				again, _ := json.Marshal(r)
				if err != nil || string(again)+"\n" != string(b) {
					t.Errorf("%v; asked\n%s, and read\n%s", err, b, again)
				}
			}
			if info, err := os.Lstat(at); name == "a file" && (err != nil || info.Mode().Perm() != 0o600) {
				t.Errorf("%v, %v", info, err)
			}
			if _, err := status.Listen(ctx, at); !errors.Is(err, socket.ErrInUse) {
				t.Errorf("a second agent: %v", err)
			}
			stop()
			if _, err := status.Ask(ctx, at); !errors.Is(err, status.ErrNotRunning) {
				t.Errorf("stopped: %v", err)
			}
		})
	}
}

// Who asks and does not take the answer holds nobody up, nor the end.
func TestServeStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // or a busy machine would take longer than an answer may
		ctx, cancel := context.WithCancel(context.Background())
		ln := netfault.NewListener()
		served := make(chan struct{})
		go func() {
			defer close(served)
			status.Serve(ctx, ln, slog.New(slog.DiscardHandler), full)
		}()
		ask := func() net.Conn {
			synctest.Wait() // who was answered is forgotten
			c, err := ln.Dial(ctx, "", "")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		stuck := func() {
			c := ask()
			t.Cleanup(func() { c.Close() })
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		for range 7 {
			stuck()
		}
		start := time.Now()
		if b, err := io.ReadAll(ask()); len(b) == 0 || err != nil { // the eighth
			t.Errorf("%d bytes, %v", len(b), err)
		}
		stuck()
		if b, err := io.ReadAll(ask()); len(b) > 0 || err != nil { // the ninth
			t.Errorf("one too many: %d bytes, %v", len(b), err)
		}
		cancel()
		<-served
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// What answers may be something else, or may hang.
func TestAsk(t *testing.T) {
	for name, tt := range map[string]struct{ says, want string }{
		"nothing": {"", "without an answer"},
		"no JSON": {"220 mail.example.com\r\n", "is no JSON"},
		"endless": {strings.Repeat("[", 5<<20), "does not end"},
		"hanging": {"hang", "enough of it"},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", at)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			var work sync.WaitGroup
			work.Go(func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				if tt.says == "hang" {
					cancel(errors.New("enough of it"))
					io.Copy(io.Discard, c)
				} else {
					io.WriteString(c, tt.says)
				}
			})
			if _, err := status.Ask(ctx, at); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), at) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			ln.Close()
			work.Wait()
		})
	}
	if _, err := status.Ask(t.Context(), status.Off); !errors.Is(err, status.ErrNotRunning) {
		t.Errorf("off: %v", err)
	}
	if ln, err := status.Listen(t.Context(), status.Off); ln != nil || err != nil {
		t.Errorf("off: %v, %v", ln, err)
	}
}

func TestCheck(t *testing.T) {
	for address, want := range map[string]string{
		"/run/s": "", "off": "", "s": "not a whole path", "@": "needs a name", "/" + strings.Repeat("x", 103): "longer than",
	} {
		err := status.Check(address)
		if (err == nil) != (want == "") || err != nil && runtime.GOOS == "linux" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		goos string
		uid  int
		env  map[string]string
		want []string
	}{
		{"linux", 0, nil, []string{"/run/deviceagent/status.sock", "/var/run/deviceagent/status.sock", "@deviceagent-status-0"}},
		{"linux", 998, map[string]string{"RUNTIME_DIRECTORY": "/run/deviceagent:/run/more"}, []string{"/run/deviceagent/status.sock", "/run/deviceagent/status.sock", "/var/run/deviceagent/status.sock", "@deviceagent-status-998"}},
		{"linux", 1000, map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000"}, []string{"/run/user/1000/deviceagent/status.sock", "/run/deviceagent/status.sock", "/var/run/deviceagent/status.sock", "@deviceagent-status-1000"}},
		{"linux", 0, map[string]string{"XDG_RUNTIME_DIR": "/run/user/0"}, []string{"/run/deviceagent/status.sock", "/var/run/deviceagent/status.sock", "@deviceagent-status-0"}},
		{"darwin", 0, nil, []string{"/var/db/deviceagent/status.sock"}},
		{"windows", -1, map[string]string{"ProgramData": "/ProgramData"}, []string{"/ProgramData/deviceagent/status.sock"}},
		{"windows", -1, nil, nil},
	} {
		if got := status.DefaultsOn(tt.goos, tt.uid, func(name string) string { return tt.env[name] }); !slices.Equal(got, tt.want) {
			t.Errorf("%s %d %v: got %q, want %q", tt.goos, tt.uid, tt.env, got, tt.want)
		}
	}
}

// Nothing that an agent, or whoever sits at its socket, says breaks the command.
func FuzzParse(f *testing.F) {
	b, err := json.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(b), "", "{}", `{"source":{}}`, `{"open":[{}],"signals":{"refused":{"":0}}}`, `{"bytes":{"fromTargets":18446744073709551615}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := status.Parse(b)
		if err != nil {
			return
		}
		var text bytes.Buffer
		if err := r.Text(&text); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(text.Bytes(), "\x1b\x07\r") || strings.Contains(r.Line(), "\n") {
			t.Errorf("a terminal would obey %q", text.String())
		}
	})
}
