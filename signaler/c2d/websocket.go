package c2d

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gorilla/websocket"
)

// A webSocketConn is a byte stream over a WebSocket: where one message ends and
// the next begins means nothing.
type webSocketConn struct {
	*websocket.Conn
	message io.Reader // the one under way
}

const (
	// maxMessage is for one WebSocket message. The hub's hold a frame or a few.
	maxMessage = 1 << 20
	// goodbye is how long a close frame may take to leave.
	goodbye = time.Second
)

func newWebSocketConn(ws *websocket.Conn) *webSocketConn {
	ws.SetReadLimit(maxMessage)
	return &webSocketConn{Conn: ws}
}

// Read implements net.Conn.
func (c *webSocketConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			kind, m, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("%w: a WebSocket message of text", errProtocol)
			}
			c.message = m
		}
		n, err := c.message.Read(p)
		if err == io.EOF {
			c.message = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

// Write implements net.Conn.
func (c *webSocketConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn.
func (c *webSocketConn) Close() error {
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(goodbye))
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *webSocketConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
