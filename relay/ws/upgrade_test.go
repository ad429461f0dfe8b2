package ws

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestUpgrade(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offered := Offered(r)
		c, err := Upgrade(w, r, offered[len(offered)-1], http.Header{"Bridge-Id": {"b1"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.Write(server(0x82, "at once"))
		p := &peer{t, c, bufio.NewReader(c)}
		p.want(OpBinary, "and back")
		p.want(OpClose, "\x03\xe8")
		c.Write(closeFrame(1000, ""))
	}))
	defer s.Close()
	c, err := (&Dialer{}).DialWebSocket(t.Context(), wsURL(s), nil, "one", "two")
	if err != nil {
		t.Fatal(err)
	}
	if c.Subprotocol() != "two" || c.Header().Get("Bridge-Id") != "b1" {
		t.Errorf("subprotocol %q, header %v", c.Subprotocol(), c.Header())
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "at once" {
		t.Errorf("read %q, %v", got, err)
	}
	c.Write([]byte("and back"))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestCheckUpgrade compares with what gorilla does.
func TestCheckUpgrade(t *testing.T) {
	good := func() *http.Request {
		r := httptest.NewRequest("GET", "/bridge/connect", nil)
		r.Header = http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		return r
	}
	for _, test := range []struct {
		name  string
		spoil func(r *http.Request)
		want  string
	}{
		{"good", func(r *http.Request) {}, ""},
		{"good, other case", func(r *http.Request) { r.Header.Set("Upgrade", "WebSocket"); r.Header.Set("Connection", "upgrade") }, ""},
		{"good, with an origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, ""},
		{"no Upgrade", func(r *http.Request) { r.Header.Del("Upgrade") }, "not a WebSocket handshake"},
		{"no Connection", func(r *http.Request) { r.Header.Del("Connection") }, "not a WebSocket handshake"},
		{"h2c", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, "not a WebSocket handshake"},
		{"POST", func(r *http.Request) { r.Method = "POST" }, "is a GET"},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, "is a GET in HTTP/1.1"},
		{"version 8", func(r *http.Request) { r.Header.Set("Sec-Websocket-Version", "8") }, "Version is not 13"},
		{"no version", func(r *http.Request) { r.Header.Del("Sec-Websocket-Version") }, "Version is not 13"},
		{"no key", func(r *http.Request) { r.Header.Del("Sec-Websocket-Key") }, "not 16 bytes"},
		{"short key", func(r *http.Request) { r.Header.Set("Sec-Websocket-Key", "AAAA") }, "not 16 bytes"},
		{"key is not base64", func(r *http.Request) { r.Header.Set("Sec-Websocket-Key", "!!!!!!!!!!!!!!!!!!!!!!!!") }, "not 16 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := good()
			test.spoil(r)
			err := CheckUpgrade(r)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if errors.Is(err, ErrNoUpgrade) != strings.Contains(test.want, "not a WebSocket") {
				t.Errorf("%v is ErrNoUpgrade: %v", err, errors.Is(err, ErrNoUpgrade))
			}
			rec := httptest.NewRecorder() // cannot be hijacked: a good handshake fails at that
			_, upErr := Upgrade(rec, r, "", nil)
			passed := upErr != nil && strings.Contains(upErr.Error(), "Hijacker")
			if err == nil && !passed {
				t.Errorf("CheckUpgrade is content, Upgrade says %v", upErr)
			}
			if err != nil && passed && r.ProtoMinor == 1 {
				t.Errorf("CheckUpgrade says %v, Upgrade is content", err)
			}
			if rec.Body.Len() > 0 || rec.Code != 200 {
				t.Errorf("Upgrade answered %d %q itself", rec.Code, rec.Body)
			}
		})
	}
}

func TestOffered(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	if got := Offered(r); got != nil {
		t.Errorf("Offered of none is %q", got)
	}
	r.Header["Sec-Websocket-Protocol"] = []string{"a, b ,,c", " ", "d"}
	if got, want := Offered(r), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("Offered = %q, want %q", got, want)
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "localhost.example": false, "10.0.0.1": false, "::": false, "0.0.0.0": false, "127.0.0.1.nip.io": false} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %v", host, got)
		}
	}
}
