//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- RFC 6455 has no other
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// maxHead bounds what is read of a handshake.
const maxHead = 8 << 10

// readHead reads up to the empty line. more is what came behind it in the same read: a
// relay that joins at once may say something right after its 101.
func readHead(c net.Conn) (head string, more []byte, err error) {
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			if len(b) >= maxHead {
				return "", nil, errors.New("the head of the handshake has no end")
			}
			b = append(b, 0)[:len(b)]
		}
		n, err := c.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
			return string(b[:i+2]), b[i+4:], nil
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", nil, fmt.Errorf("read the handshake: %w", err)
		}
	}
}

// field is the value of a line of a head, or "".
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// acceptKey is the answer to a key (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

var errEager = errors.New("the other end sent frames with its handshake, and a hop has no place for them")

// offer opens a WebSocket on c. lines are of the head, each without its line break.
func offer(c net.Conn, path string, lines []string) error {
	more, err := offerTo(c, loopback, path, lines)
	if err == nil && len(more) > 0 {
		err = errEager
	}
	return err
}

// offerTo is offer with a host; more is what came behind the answer.
func offerTo(c net.Conn, host, path string, lines []string) (more []byte, err error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", path, host, key)
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	head, more, err := readHead(c)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") || field(head, "Sec-WebSocket-Accept") != acceptKey(key) {
		status, _, _ := strings.Cut(head, "\r\n")
		return nil, fmt.Errorf("the handshake was answered with %q, %.300q", status, more)
	}
	return more, nil
}

// accept answers the handshake of a WebSocket on c.
func accept(c net.Conn) error {
	head, more, err := readHead(c)
	if err != nil {
		return err
	}
	if len(more) > 0 {
		return errEager
	}
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(field(head, "Sec-WebSocket-Key")))
	return err
}
