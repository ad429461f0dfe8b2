package deviceagent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

func TestFileSwitch(t *testing.T) {
	dir := t.TempDir()
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	if err := errors.Join(os.WriteFile(at("file"), nil, 0), os.Mkdir(at("folder"), 0o700), os.Symlink(at("nowhere"), at("link"))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		off  string // part of the reason; empty: it is on
	}{
		{at("none"), ""},
		{at("folder", "none"), ""},
		{at("file"), "file is there"}, // whatever it holds, and who may read it
		{at("folder"), "folder is there"},
		{at("link"), "link is there"}, // wherever it leads
		{at("gone", "none"), "cannot tell"},
		{at("file", "none"), "cannot tell"},
		{at(strings.Repeat("x", 300)), "cannot tell"},
		{at("a\x00b"), "cannot tell"},
	} {
		err := deviceagent.FileSwitch(tt.path)()
		if tt.off == "" && err != nil || tt.off != "" && (err == nil || !strings.Contains(err.Error(), tt.off)) {
			t.Errorf("%q: got %v, want %q", tt.path, err, tt.off)
		}
	}
	// A folder that may not be searched, for who is not root.
	if os.Getuid() != 0 {
		if err := os.Chmod(at("folder"), 0); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(at("folder"), 0o700)
		if err := deviceagent.FileSwitch(at("folder", "none"))(); err == nil {
			t.Error("a folder that may not be searched: it is on")
		}
	}
}

// ends waits for a read to fail and says how long that took.
func ends(c io.Reader) time.Duration {
	start := time.Now()
	io.Copy(io.Discard, c)
	return time.Since(start)
}

// The owner switches off: sessions and raw bridges end within a second on both sides,
// also with a target that reads nothing; what is asked then is refused in so many words;
// and when it is on again everything works.
func TestKillSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "off")
		targets := parse(t, "echo")
		locals := make(chan net.Conn, 10) // the targets' ends
		for name, reads := range map[string]bool{"local": true, "stuck": false} {
			if err := targets.Add(name, dialFunc(func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				if reads {
					locals <- far
				} else {
					t.Cleanup(func() { far.Close() })
				}
				return near, nil
			})); err != nil {
				t.Fatal(err)
			}
		}
		l := newLab(t, true, fake.Config{}, targets, func(c *deviceagent.Config) { c.KillSwitch = deviceagent.FileSwitch(file) })
		defer l.stop()
		for range 2 {
			sess := l.session("local", "echo")
			st, err := sess.Open(t.Context(), "local")
			if err != nil {
				t.Fatal(err)
			}
			other, err := sess.Open(t.Context(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, other)
			raw, stuck := l.raw("local"), l.raw("stuck")
			if _, err := stuck.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()

			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for name, c := range map[string]io.Reader{"stream": st, "echo stream": other, "stream's target": <-locals, "raw bridge's target": <-locals} {
				all.Go(func() {
					if took := ends(c); took > time.Second {
						t.Errorf("the %s ended after %v", name, took)
					}
				})
			}
			for name, c := range map[string]io.Reader{"raw bridge": raw, "stuck raw bridge": stuck} {
				all.Go(func() {
					start := time.Now()
					_, err := io.Copy(io.Discard, c)
					if took := time.Since(start); took > time.Second || err == nil || !strings.Contains(err.Error(), "the device's owner has switched remote access off") {
						t.Errorf("the %s ended after %v with %v", name, took, err)
					}
				})
			}
			all.Wait()
			raw.Close()
			stuck.Close()
			sess.Close()
			for range 2 {
				_, err = client.Dial(t.Context(), l.client, client.Request{Device: device, Targets: []string{"echo"}})
				var no *client.Error
				if !errors.As(err, &no) || no.Code != wire.DeviceRefused || no.DeviceCode != "disabled" || !no.Temporary() ||
					!strings.Contains(no.Detail, "the device's owner has switched remote access off") {
					t.Errorf("got %v", err)
				}
				time.Sleep(time.Minute)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			sess = l.session("echo") // it need not be noticed by looking
			if st, err = sess.Open(t.Context(), "echo"); err != nil {
				t.Fatal(err)
			}
			exchange(t, st)
			time.Sleep(time.Minute)
			exchange(t, st)
			sess.Close()
		}
		for _, text := range []string{"remote access is switched off", "remote access is on again"} {
			if n := strings.Count(l.log.String(), text); n != 2 {
				t.Errorf("%d times in the log: %s", n, text)
			}
		}
		if !strings.Contains(l.log.String(), `reason="the device's owner has switched remote access off"`) || strings.Contains(l.log.String(), `reason="the agent stops"`) {
			t.Error("the log does not say why bridges ended")
		}
	})
}

// Off when the agent starts, and off again in its next run.
func TestKillSwitchFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Bool
		off.Store(true)
		l := newLab(t, true, fake.Config{}, parse(t, "echo"), func(c *deviceagent.Config) {
			c.KillSwitch = func() error {
				if off.Load() {
					return errors.New("by a button")
				}
				return nil
			}
		})
		defer l.stop()
		for range 2 {
			l.says(`reason="by a button"`)
			if _, err := client.Dial(t.Context(), l.client, client.Request{Device: device}); err == nil || !strings.Contains(err.Error(), "switched remote access off") {
				t.Errorf("got %v", err)
			}
			if err := l.stopAgent(); err != nil {
				t.Fatal(err)
			}
			l.startAgent()
		}
		off.Store(false)
		sess := l.session("echo")
		sess.Close()
	})
}

// A bridge that is being made when the switch goes off is not made, or ends.
func TestKillSwitchWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Bool
		begun := make(chan struct{})
		ended := make(chan error, 1)
		targets := parse(t)
		if err := targets.Add("slow", dialFunc(func(ctx context.Context) (net.Conn, error) {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})); err != nil {
			t.Fatal(err)
		}
		handling(t, func(c *deviceagent.Config) {
			c.Targets = targets
			c.KillSwitch = func() error {
				if off.Load() {
					return errors.New("off")
				}
				return nil
			}
		}, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
			s := good()
			s.Target, s.Subprotocols, s.RejectURL = "slow", nil, ""
			if got := handle(s); got != "" {
				t.Fatalf("got %q", got)
			}
			<-begun
			off.Store(true)
			start := time.Now()
			<-ended
			if took := time.Since(start); took > time.Second {
				t.Errorf("it ended after %v", took)
			}
			if s.BridgeID = "another"; handle(s) != "disabled" {
				t.Error("the next one is not refused")
			}
		})
	})
}

// Signals and the switch at the same time: whatever was accepted ends when it is off.
func TestKillSwitchRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Bool
		var open atomic.Int32
		targets := parse(t)
		if err := targets.Add("held", dialFunc(func(ctx context.Context) (net.Conn, error) {
			open.Add(1)
			defer open.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		})); err != nil {
			t.Fatal(err)
		}
		handling(t, func(c *deviceagent.Config) {
			c.Targets, c.MaxBridges, c.DialTimeout = targets, 1000, time.Hour
			c.KillSwitch = func() error {
				if off.Load() {
					return errors.New("off")
				}
				return nil
			}
		}, func(_ *deviceagent.Agent, handle func(*signaler.Signal) string) {
			flips := make(chan struct{})
			go func() {
				defer close(flips)
				for range 50 {
					off.Store(!off.Load())
					time.Sleep(7 * time.Millisecond)
				}
				off.Store(true)
			}()
			for i := range 300 {
				s := good()
				s.BridgeID, s.Target, s.Subprotocols, s.RejectURL = string(rune('a'+i%26))+time.Now().String(), "held", nil, ""
				handle(s)
				time.Sleep(time.Millisecond)
			}
			<-flips
			time.Sleep(time.Second)
			synctest.Wait()
			if n := open.Load(); n != 0 {
				t.Errorf("%d bridges are open although remote access is off", n)
			}
		})
	})
}
