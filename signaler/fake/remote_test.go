package fake_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// messages returns the messages logged.
func (l *lines) messages() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, m := range regexp.MustCompile(`msg="([^"]*)"`).FindAllStringSubmatch(l.b.String(), -1) {
		all = append(all, m[1])
	}
	return strings.Join(all, "\n")
}

// A road leads to the listener that it has at the moment, or nowhere.
type road struct {
	mu sync.Mutex // guards to and n
	to *pipe
	n  int
}

func (r *road) set(p *pipe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = p
}

func (r *road) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r.mu.Lock()
	r.n++
	to := r.to
	r.mu.Unlock()
	if to == nil {
		return nil, errors.New("connection refused")
	}
	return to.Dial(ctx, network, addr)
}

func (r *road) source(t *testing.T, log *lines) *fake.RemoteSource {
	src, err := fake.NewRemoteSource(fake.RemoteConfig{
		URL: "ws://127.0.0.1:7071", DeviceID: "pump-7", Logger: log.logger(), Dial: r.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestRemoteComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			r   road
			log lines
		)
		d := listen(t, r.source(t, &log), nil) // before the hub is there
		time.Sleep(time.Minute)
		for range 3 {
			hub := fake.New(fake.Config{})
			w := serveOn(t, hub)
			r.set(w.pipe)
			want(t, hub.WaitOnline(t.Context(), "pump-7"), nil)
			time.Sleep(10 * time.Minute) // pings keep it
			want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), nil)
			r.set(nil)
			want(t, w.stop(), nil)
			time.Sleep(10 * time.Minute)
		}
		received(t, d, "b1", "b1", "b1")
		d.stop()
		want(t, <-d.done, nil)
		const lost, back = "fake hub lost; dialling until it is back", "fake hub is back"
		if got, want := log.messages(), strings.Join([]string{lost, back, lost, back, lost, back, lost}, "\n"); got != want {
			t.Errorf("logged\n%s\nwant\n%s", got, want)
		}
		if r.n < 100 || r.n > 2000 { // half an hour, 2.5 s on average
			t.Errorf("dialled %d times", r.n)
		}
	})
}

// TestRemoteDeadHub: the hub's machine sleeps, say. No frame comes, and none is
// refused.
func TestRemoteDeadHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			r   road
			log lines
		)
		dead := newPipe()
		r.set(dead)
		srv := &http.Server{Handler: http.HandlerFunc(upgradeAndSleep)}
		go srv.Serve(dead)
		d := listen(t, r.source(t, &log), nil)
		time.Sleep(fake.DeadAfter - time.Second)
		if got := log.messages(); got != "listening for signals of the fake hub" {
			t.Errorf("logged %s", got)
		}
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		r.set(w.pipe)
		want(t, hub.WaitOnline(t.Context(), "pump-7"), nil)
		d.stop()
		want(t, <-d.done, nil)
		srv.Close()
		want(t, w.stop(), nil)
	})
}

func TestRemoteTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			r   road
			log lines
		)
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		r.set(w.pipe)
		first := listen(t, r.source(t, &log), nil)
		second := listen(t, r.source(t, &log), nil)
		want(t, <-first.done, signaler.ErrTakenOver)
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), nil)
		received(t, second, "b1")
		second.stop()
		want(t, <-second.done, nil)
		want(t, w.stop(), nil)
	})
}

func TestRemoteRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			r   road
			log lines
		)
		p := newPipe()
		r.set(p)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not for you", http.StatusForbidden)
		})}
		go srv.Serve(p)
		err := r.source(t, &log).Run(t.Context(), nil)
		if err == nil || err.Error() != "fake hub answered 403 Forbidden: not for you" {
			t.Errorf("got %v", err)
		}
		srv.Close()
	})
}

func TestNewRemoteSourceRefuses(t *testing.T) {
	for _, tt := range []struct{ url, id, want string }{
		{"ws://127.0.0.1:7071", "", "deviceId is missing"},
		{"ws://127.0.0.1:7071", strings.Repeat("x", 258), "257 are allowed"},
		{"", "pump-7", "scheme"},
		{"127.0.0.1:7071", "pump-7", "like ws://127.0.0.1:7071"},
		{"wss://127.0.0.1:7071", "pump-7", "neither ws nor http"},
		{"ws://relay.example:7071", "pump-7", "not a loopback address"},
		{"ws://10.0.0.1:7071", "pump-7", "not a loopback address"},
		{"ws://user:secret@127.0.0.1:7071", "pump-7", "like ws://127.0.0.1:7071"},
		{"ws://127.0.0.1:7071/signals", "pump-7", "like ws://127.0.0.1:7071"},
		{"ws://127.0.0.1:7071?deviceId=x", "pump-7", "like ws://127.0.0.1:7071"},
	} {
		_, err := fake.NewRemoteSource(fake.RemoteConfig{URL: tt.url, DeviceID: tt.id})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %q", tt.url, err, tt.want)
		}
	}
	for _, url := range []string{"ws://127.0.0.1:7071", "http://localhost:7071/", "ws://[::1]:7071"} {
		if _, err := fake.NewRemoteSource(fake.RemoteConfig{URL: url, DeviceID: "pump-7/bridge"}); err != nil {
			t.Error(err)
		}
	}
}
