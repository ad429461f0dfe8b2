package fake_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// A wire is a hub's endpoint on a pipe inside a bubble.
type wire struct {
	*pipe
	stop func() error // ends Serve and returns what it did
}

func serveOn(t *testing.T, hub *fake.Hub) *wire {
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire{pipe: newPipe()}
	done := make(chan error, 1)
	go func() { done <- hub.ServeOn(ctx, w.pipe) }()
	w.stop = func() error {
		cancel()
		return <-done
	}
	return w
}

// dial connects a device by hand. The hub knows it as online then.
func (w *wire) dial(t *testing.T) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{NetDialContext: w.Dial}
	ws, _, err := d.DialContext(t.Context(), "ws://localhost/signals?deviceId=pump-7", nil)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

// closedWith reads until the connection ends.
func closedWith(t *testing.T, ws *websocket.Conn, code int, reason string) {
	t.Helper()
	defer ws.Close()
	for {
		_, _, err := ws.ReadMessage()
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*websocket.CloseError](err)
		if !ok || e.Code != code || !strings.Contains(e.Text, reason) {
			t.Errorf("closed with %v, want %d %q", err, code, reason)
		}
		return
	}
}

func read(t *testing.T, ws *websocket.Conn, want string) {
	t.Helper()
	_, b, err := ws.ReadMessage()
	if err != nil || string(b) != want {
		t.Errorf("read %s, %v; want %s", b, err, want)
	}
}

func write(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// TestWire holds the bytes of doc.go.
func TestWire(t *testing.T) {
	const payload = `{"acceptUrl":"wss://relay.example/?a=1&b=<2>","requestData":"ä","deviceId":"pump-7"}`
	s, err := signaler.Parse([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		ws := w.dial(t)
		first := asked(t, hub, s)
		second := asked(t, hub, s)
		read(t, ws, `{"id":1,"answers":true,"signal":`+payload+`}`)
		read(t, ws, `{"id":2,"answers":true,"signal":`+payload+`}`)
		write(t, ws, `{"id":99}`) // nobody's
		write(t, ws, `{"id":2,"refuse":{"code":"busy","message":"no"}}`)
		if e, ok := errors.AsType[*signaler.RefusedError](<-second); !ok || e.Refusal != (signaler.Refusal{Code: "busy", Message: "no"}) {
			t.Errorf("got %v", e)
		}
		write(t, ws, `{"id":1}`)
		want(t, <-first, nil)
		write(t, ws, `{"id":1,"refuse":{"code":"busy"}}`) // again
		go closedWith(t, ws, websocket.CloseGoingAway, "the hub stops")
		want(t, w.stop(), nil)
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)
	})
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message, AnyDevice: true})
		want(t, hub.Signal(t.Context(), s), nil)
		want(t, hub.Signal(t.Context(), s), nil)
		w := serveOn(t, hub)
		ws := w.dial(t)
		read(t, ws, `{"id":1,"signal":`+payload+`}`)
		write(t, ws, `{"id":1,"refuse":{"code":"busy","message":"no"}}`)
		read(t, ws, `{"id":2,"signal":`+payload+`}`)
		ws.Close()
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)
		ws = w.dial(t)
		read(t, ws, `{"id":2,"signal":`+payload+`}`) // was not done
		ws.Close()
		want(t, w.stop(), nil)
	})
}

func TestGarbage(t *testing.T) {
	for name, in := range map[string]string{
		"no JSON": "secret", "array": "[1]", "no id": "{}", "null id": `{"id":null}`, "negative id": `{"id":-1}`,
		"unknown member": `{"id":1,"secret":2}`, "refuse text": `{"id":1,"refuse":"secret"}`, "two": `{"id":1}{"id":2}`,
		"empty": "", "too big": `{"id":1}` + strings.Repeat(" ", fake.MaxReply),
		"far too big": strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := fake.New(fake.Config{})
				w := serveOn(t, hub)
				ws := w.dial(t)
				other := listen(t, hub.Source("pump-8"), nil)
				call := asked(t, hub, signal("pump-7", "b1"))
				// The hub may hang up while it is written to.
				go ws.WriteMessage(websocket.TextMessage, []byte(in))
				closedWith(t, ws, websocket.ClosePolicyViolation, "an answer is")
				want(t, <-call, signaler.ErrDeviceOffline)
				want(t, hub.Signal(t.Context(), signal("pump-8", "b2")), nil) // the others live on
				received(t, other, "b2")
				want(t, w.stop(), nil)
			})
		})
	}
}

func TestBinaryIsGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serveOn(t, fake.New(fake.Config{}))
		ws := w.dial(t)
		ws.WriteMessage(websocket.BinaryMessage, []byte(`{"id":1}`))
		closedWith(t, ws, websocket.ClosePolicyViolation, "an answer is")
		want(t, w.stop(), nil)
	})
}

func TestTakeoverOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		ws := w.dial(t)
		d := listen(t, hub.Source("pump-7"), nil)
		closedWith(t, ws, 4001, "taken_over")
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), nil)
		received(t, d, "b1")
		want(t, w.stop(), nil)
	})
}

// TestMuteDevice: the device's bytes are taken by something on the way, say, and
// nothing comes back.
func TestMuteDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		start := time.Now()
		ws := w.dial(t)
		ws.SetPingHandler(func(string) error { return nil })
		go ws.ReadMessage()
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)
		if got := time.Since(start); got != fake.DeadAfter {
			t.Errorf("after %v", got)
		}
		ws.Close()
		want(t, w.stop(), nil)
	})
}

// TestDeadDevice: a device that reads no more.
func TestDeadDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		start := time.Now()
		ws := w.dial(t)
		want(t, hub.WaitOffline(t.Context(), "pump-7"), nil)
		if got := time.Since(start); got > fake.DeadAfter {
			t.Errorf("after %v", got)
		}
		ws.Close()
		want(t, w.stop(), nil)
	})
}

func TestGuard(t *testing.T) {
	hub := fake.New(fake.Config{})
	for _, tt := range []struct {
		name, method, target, host, origin, body string
		status                                   int
	}{
		{"loopback", "GET", "/faults", "127.0.0.1:7071", "", "", 200},
		{"localhost", "GET", "/devices", "LOCALHOST:7071", "", "", 200},
		{"without port", "GET", "/faults", "localhost", "", "", 200},
		{"IPv6", "GET", "/faults", "[::1]:7071", "", "", 200},
		{"IPv6 without port", "GET", "/faults", "[::1]", "", "", 200},
		{"page", "GET", "/faults", "127.0.0.1:7071", "https://evil.example", "", 403},
		{"page on loopback", "GET", "/faults", "127.0.0.1:7071", "http://127.0.0.1:7071", "", 403},
		{"file", "GET", "/faults", "127.0.0.1:7071", "null", "", 403},
		{"page's WebSocket", "GET", "/signals?deviceId=pump-7", "127.0.0.1:7071", "https://evil.example", "", 403},
		{"page that writes", "PUT", "/faults", "127.0.0.1:7071", "https://evil.example", `{"loseAll":true}`, 403},
		{"rebound name", "GET", "/faults", "evil.example:7071", "", "", 403},
		{"name like ours", "GET", "/faults", "localhost.evil.example", "", "", 403},
		{"address like ours", "GET", "/faults", "127.0.0.1.evil.example", "", "", 403},
		{"LAN", "GET", "/faults", "192.168.1.7:7071", "", "", 403},
		{"no name", "GET", "/faults", "", "", "", 403},
		{"no device", "GET", "/signals", "localhost", "", "", 400},
		{"long device", "GET", "/signals?deviceId=" + strings.Repeat("x", 258), "localhost", "", "", 400},
		{"no WebSocket", "GET", "/signals?deviceId=pump-7", "localhost", "", "", 400},
		{"POST", "POST", "/faults", "localhost", "", "{}", 405},
		{"elsewhere", "GET", "/", "localhost", "", "", 404},
		{"misspelt fault", "PUT", "/faults", "localhost", "", `{"looseAll":true}`, 400},
		{"bad fault", "PUT", "/faults", "localhost", "", `{"error":"bad"}`, 400},
		{"two faults", "PUT", "/faults", "localhost", "", `{}{}`, 400},
		{"big faults", "PUT", "/faults", "localhost", "", strings.Repeat(" ", fake.MaxFaults+1), 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			hub.Handler().ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
		})
	}
	if got := hub.Faults(); got != (fake.Faults{}) {
		t.Errorf("a refused request set %+v", got)
	}
}

// TestFaultsOverHTTP uses a real socket, as a person with curl does.
func TestFaultsOverHTTP(t *testing.T) {
	hub := fake.New(fake.Config{Devices: []string{"pump-7"}})
	url := "http" + strings.TrimPrefix(serve(t, hub), "ws")
	do := func(method, path, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, b, err)
		}
		return string(b)
	}
	same := func(got, want string) {
		t.Helper()
		var g, w any
		if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
			t.Fatalf("%s or %s is not JSON", got, want)
		}
		gb, _ := json.Marshal(g)
		if wb, _ := json.Marshal(w); string(gb) != string(wb) {
			t.Errorf("got %s, want %s", gb, wb)
		}
	}
	same(do("GET", "/faults", ""), `{}`)
	same(do("PUT", "/faults", allFaults), allFaults)
	same(do("GET", "/faults", ""), allFaults)
	same(do("PUT", "/faults", `{"error":"unavailable"}`), `{"error":"unavailable"}`)
	want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrUnavailable)
	same(do("PUT", "/faults", `{}`), `{}`)
	want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrDeviceOffline)
	same(do("GET", "/devices", ""), `[{"deviceId":"pump-7","online":false,"queued":0}]`)
}

func TestServeRefusesOtherListeners(t *testing.T) {
	all, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range []net.Listener{all, newPipe()} {
		err := fake.New(fake.Config{}).Serve(t.Context(), ln)
		if err == nil || !strings.Contains(err.Error(), "no authentication and listens on a loopback address only") {
			t.Errorf("got %v", err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is open: %v", err)
		}
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		w := serveOn(t, hub)
		ws := w.dial(t)
		synctest.Wait()
		w.Close()
		closedWith(t, ws, websocket.CloseGoingAway, "the hub stops")
		if err := w.stop(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}
