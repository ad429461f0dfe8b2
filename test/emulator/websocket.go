package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// The subprotocols of /$iothub/websocket. They are compared without case: the C
// SDK says MQTT.
const (
	subprotocolMQTT = "mqtt"
	subprotocolAMQP = "AMQPWSB10"
)

// serveWebSocket is MQTT or AMQP within a WebSocket. What the query says does not
// matter.
func (h *Hub) serveWebSocket(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	var (
		serve protocol
		kind  socketKind
		name  string
	)
	for _, p := range websocket.Subprotocols(r) {
		switch {
		case strings.EqualFold(p, subprotocolMQTT):
			serve, kind, name = h.serveMQTT, socketMQTT, p
		case strings.EqualFold(p, subprotocolAMQP):
			serve, kind, name = h.serveAMQP, socketAMQP, p
		}
		if serve != nil {
			break
		}
	}
	if serve == nil || !websocket.IsWebSocketUpgrade(r) {
		h.answerError(w, formOld, errArgument("This is a WebSocket of the subprotocol %s or %s.", subprotocolMQTT, subprotocolAMQP))
		return
	}
	u := websocket.Upgrader{
		HandshakeTimeout: h.cfg.HandshakeTimeout,
		CheckOrigin:      func(*http.Request) bool { return true }, // the token is the check, and browsers may speak MQTT
	}
	ws, err := u.Upgrade(w, r, http.Header{"Sec-Websocket-Protocol": {name}})
	if err != nil {
		return // it has answered
	}
	c := &wsConn{ws: ws}
	defer c.Close()
	if !h.enter(c, kind) {
		return
	}
	defer h.leave(c)
	serve(ctx, c, r.TLS)
}

// wsConn is a WebSocket as a stream of bytes. A message is a piece of it and
// means nothing: neither a packet nor a frame. Reads are for one goroutine, as
// with gorilla; writes are for any.
type wsConn struct {
	ws      *websocket.Conn
	message io.Reader // what is left of it; nil: none

	write    sync.Mutex   // held while a message is written
	deadline atomic.Int64 // for writes, in Unix nanoseconds; 0: none
	closed   sync.Once
}

func (c *wsConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.message == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				return 0, endOf(err)
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a text message, where bytes are expected")
			}
			c.message = r
		}
		n, err := c.message.Read(p)
		switch {
		case err == io.EOF:
			c.message = nil
			err = nil
		case err != nil:
			err = endOf(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// endOf makes a WebSocket's goodbye the end of the stream, and a timeout what it
// is elsewhere: gorilla hides the error of the net.Conn.
func endOf(err error) error {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	}
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
		return io.EOF
	}
	return err
}

func (c *wsConn) Write(p []byte) (int, error) {
	c.write.Lock()
	defer c.write.Unlock()
	var t time.Time
	if ns := c.deadline.Load(); ns != 0 {
		t = time.Unix(0, ns)
	}
	c.ws.SetWriteDeadline(t)
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, endOf(err)
	}
	return len(p), nil
}

// goodbye is how long a close frame may take.
const goodbye = time.Second

// Close says goodbye if the peer still reads, and closes.
func (c *wsConn) Close() (err error) {
	c.closed.Do(func() {
		c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(goodbye))
		hardClose(c.ws.NetConn())
	})
	return nil
}

// NetConn is what hardClose looks for.
func (c *wsConn) NetConn() net.Conn { return c.ws.NetConn() }

func (c *wsConn) LocalAddr() net.Addr  { return c.ws.LocalAddr() }
func (c *wsConn) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *wsConn) SetReadDeadline(t time.Time) error { return c.ws.NetConn().SetReadDeadline(t) }

func (c *wsConn) SetWriteDeadline(t time.Time) error {
	ns := int64(0)
	if !t.IsZero() {
		ns = t.UnixNano()
	}
	c.deadline.Store(ns)
	return c.ws.NetConn().SetWriteDeadline(t) // for a write that is under way
}
