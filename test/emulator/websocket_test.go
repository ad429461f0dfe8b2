package emulator

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"

	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// wsPair returns the hub's end of a WebSocket, and the client's.
func wsPair(t *testing.T) (*wsConn, *websocket.Conn) {
	t.Helper()
	got := make(chan *wsConn, 1)
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		got <- &wsConn{ws: ws}
		<-done
	}))
	client, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := <-got
	t.Cleanup(func() {
		client.Close()
		if c != nil {
			c.Close()
		}
		close(done)
		srv.Close()
	})
	return c, client
}

func TestWebSocketIsAStream(t *testing.T) {
	c, client := wsPair(t)
	for _, m := range []string{"ab", "", "c", "defg"} {
		if err := client.WriteMessage(websocket.BinaryMessage, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "abcdefg" {
		t.Errorf("got %s, %v", got, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
	for _, m := range []string{"123", "45"} {
		if n, err := c.Write([]byte(m)); n != len(m) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if kind, b, err := client.ReadMessage(); kind != websocket.BinaryMessage || string(b) != m || err != nil {
			t.Errorf("%d %s, %v", kind, b, err)
		}
	}
	client.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	if _, err := c.Read(got); err != io.EOF {
		t.Errorf("after goodbye: %v", err)
	}
}

func TestWebSocketEnds(t *testing.T) {
	c, client := wsPair(t)
	client.WriteMessage(websocket.TextMessage, []byte("hello"))
	if _, err := c.Read(make([]byte, 10)); err == nil || err == io.EOF {
		t.Errorf("a text message: %v", err)
	}

	c, _ = wsPair(t)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}

	c, _ = wsPair(t)
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for range 1000 { // nobody reads
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
			break
		}
	}

	c, client = wsPair(t)
	c.Close()
	if _, _, err := client.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the client sees %v", err)
	}
}

// The hub speaks both protocols on one path, and answers with the name that the
// client used.
func TestWebSocketSubprotocols(t *testing.T) {
	l := serveHub(t, Config{})
	for _, tt := range []struct {
		offer []string
		want  string
		hello string // what is sent first
		says  []byte // how the hub's answer starts
	}{
		{[]string{"mqtt"}, "mqtt", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", []byte{0x20, 2, 0}},
		{[]string{"chat", "MQTT"}, "MQTT", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", []byte{0x20, 2, 0}},
		{[]string{"AMQPWSB10"}, "AMQPWSB10", "AMQP\x00\x01\x00\x00", []byte("AMQP\x00\x01\x00\x00")},
		{[]string{"amqpwsb10", "chat"}, "amqpwsb10", "AMQP\x03\x01\x00\x00", []byte("AMQP\x03\x01\x00\x00")},
	} {
		d := websocket.Dialer{
			TLSClientConfig: &tls.Config{RootCAs: l.RootCAs(), ServerName: "localhost"}, Subprotocols: tt.offer, EnableCompression: true,
		}
		ws, resp, err := d.Dial("wss://"+l.HTTPSAddr()+"/$iothub/websocket?iothub-no-client-cert=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ws.Subprotocol() != tt.want || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("%v: %q, %v", tt.offer, ws.Subprotocol(), resp.Header)
		}
		for part := range slices.Chunk([]byte(tt.hello), 3) { // a message means nothing
			if err := ws.WriteMessage(websocket.BinaryMessage, part); err != nil {
				t.Fatal(err)
			}
		}
		ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, b, err := ws.ReadMessage(); err != nil || !bytes.HasPrefix(b, tt.says) {
			t.Errorf("%v: %x, %v", tt.offer, b, err)
		}
		ws.Close()
	}
	if _, resp, err := websocket.DefaultDialer.Dial("ws://"+l.HTTPSAddr()+"/$iothub/websocket", nil); err == nil || resp != nil && resp.StatusCode == 101 {
		t.Error("without TLS")
	}
}
