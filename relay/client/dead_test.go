package client_test

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
)

// After a silence that was long enough nobody waits for an answer to a goodbye.
func TestCloseDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := answers(func(c net.Conn, r *http.Request) {
			key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 1.3
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(key[:]), wire.SessionV1)
			io.Copy(io.Discard, c)
		})
		cfg.Session.KeepAlive, cfg.Session.DeadAfter = 10*time.Second, 20*time.Second
		began := time.Now()
		s, err := client.Dial(t.Context(), cfg, client.Request{Device: device})
		if err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		s.Close()
		if took := time.Since(began); !errors.Is(s.Why(), session.ErrDead) || took != 20*time.Second {
			t.Errorf("closed after %v because of %v", took, s.Why())
		}
	})
}
