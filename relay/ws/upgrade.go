package ws

import (
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
)

// ErrNoUpgrade: the request is no WebSocket handshake.
var ErrNoUpgrade = errors.New("not a WebSocket handshake")

// CheckUpgrade says why Upgrade would refuse r: ErrNoUpgrade, or a fault in a
// handshake. A relay asks this long before it answers, so that a request that
// could never be upgraded signals no device.
func CheckUpgrade(r *http.Request) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return ErrNoUpgrade
	}
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return errors.New("a WebSocket handshake is a GET in HTTP/1.1")
	}
	if r.Header.Get("Sec-Websocket-Version") != "13" {
		return errors.New("Sec-WebSocket-Version is not 13")
	}
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	if err != nil || len(key) != 16 {
		return errors.New("Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return nil
}

// Offered returns the subprotocols of r, best first.
func Offered(r *http.Request) []string {
	var out []string
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

// Upgrade answers 101 with the chosen subprotocol ("" for none) and returns the
// connection below. Nothing of the peer's has been read past its request. The
// origin has been judged by the caller.
func Upgrade(w http.ResponseWriter, r *http.Request, subprotocol string, header http.Header) (net.Conn, error) {
	u := websocket.Upgrader{
		HandshakeTimeout: CloseTimeout, // to write 200 bytes
		CheckOrigin:      func(*http.Request) bool { return true },
		Error:            func(http.ResponseWriter, *http.Request, int, error) {}, // the caller answers
	}
	if subprotocol != "" {
		// Not as u.Subprotocols: gorilla would look for it in the first of several
		// header lines only (RFC 6455 section 11.3.4 allows several).
		if header = header.Clone(); header == nil {
			header = make(http.Header)
		}
		header.Set("Sec-Websocket-Protocol", subprotocol)
	}
	c, err := u.Upgrade(w, r, header)
	if err != nil {
		return nil, err
	}
	return c.NetConn(), nil
}
