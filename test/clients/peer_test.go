package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// patience bounds every wait for something that has to happen.
const patience = 30 * time.Second

var errPatience = fmt.Errorf("nothing came within %v", patience)

// A library is an implementation of WebSocket clients that is not ours.
type library interface {
	// dial returns a *refused when the answer was no 101.
	dial(url string, header http.Header, protocols ...string) (peer, error)
	// post is an HTTP POST of JSON by the same author's means, and returns the status.
	post(url string, body []byte) (int, error)
}

// A peer is one WebSocket of a library. Only one goroutine sends.
type peer interface {
	send(m message) error
	// fragment sends a part of one message.
	fragment(text bool, part []byte, fin bool) error
	// ping sends a ping, also in the middle of a message, and waits for its pong.
	ping() error
	// close says goodbye; code 0 with an empty close frame. What came in return
	// is got like everything else.
	close(code int, reason string) error
	// abort ends the connection without a word.
	abort()
	protocol() string
	header() http.Header
	box() *inbox
}

// A message is as an application sees it.
type message struct {
	text bool
	data []byte
}

func (m message) String() string {
	return fmt.Sprintf("%s message of %d bytes", map[bool]string{true: "text", false: "binary"}[m.text], len(m.data))
}

// ended is how a WebSocket ended; 1005 without a code, 1006 without a close frame.
type ended struct {
	code   int
	reason string
}

func (e *ended) Error() string { return fmt.Sprintf("the WebSocket ended: %d %q", e.code, e.reason) }

// refused is the answer to a handshake that failed.
type refused struct {
	status int
	header http.Header
	body   []byte
}

func (r *refused) Error() string { return fmt.Sprintf("refused: %d %s", r.status, r.body) }

// inbox keeps what a peer got until the test asks for it. It has no limit:
// back-pressure is not what these tests are about.
type inbox struct {
	mu      sync.Mutex // guards all below
	got     []message
	partial []byte // of the message under way, where the library shows it
	end     *ended
	changed chan struct{}
}

func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

func (b *inbox) update(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// wait calls f, which may take something out, at each change until it is done.
func (b *inbox) wait(f func() (done bool, err error)) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		b.mu.Lock()
		done, err := f()
		changed := b.changed
		b.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-late.C:
			return errPatience
		}
	}
}

// next returns the next message, or an *ended when there is none any more.
func (b *inbox) next() (m message, err error) {
	err = b.wait(func() (bool, error) {
		if len(b.got) > 0 {
			m, b.got = b.got[0], b.got[1:]
			return true, nil
		}
		if b.end != nil {
			return true, b.end
		}
		return false, nil
	})
	return m, err
}

// prefix waits for the first n bytes of a message that may never end.
func (b *inbox) prefix(n int) (p []byte, err error) {
	err = b.wait(func() (bool, error) {
		if len(b.partial) >= n {
			p = b.partial[:n:n]
			return true, nil
		}
		if b.end != nil {
			return true, b.end
		}
		return false, nil
	})
	return p, err
}

// coder is github.com/coder/websocket, which shows the parts of a message as
// they come.
type coder struct{}

func (coder) dial(url string, header http.Header, protocols ...string) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPHeader: header, Subprotocols: protocols,
		CompressionMode: websocket.CompressionContextTakeover, // offered, and never accepted
	})
	if err != nil {
		if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, err
		}
		body, _ := io.ReadAll(resp.Body)
		return nil, &refused{resp.StatusCode, resp.Header, body}
	}
	c.SetReadLimit(-1)
	p := &coderPeer{c: c, answer: resp.Header, in: newInbox(), gone: make(chan struct{})}
	go p.read()
	return p, nil
}

func (coder) post(url string, body []byte) (int, error) { return post(url, body) }

type coderPeer struct {
	c      *websocket.Conn
	answer http.Header
	in     *inbox
	w      io.WriteCloser // of the message under way
	gone   chan struct{}  // closed when read has returned
}

func (p *coderPeer) read() {
	defer close(p.gone)
	buf := make([]byte, 32<<10)
	for {
		typ, r, err := p.c.Reader(context.Background())
		for n := 0; err == nil; {
			n, err = r.Read(buf)
			p.in.update(func() { p.in.partial = append(p.in.partial, buf[:n]...) })
		}
		if errors.Is(err, io.EOF) && r != nil {
			p.in.update(func() {
				p.in.got = append(p.in.got, message{typ == websocket.MessageText, p.in.partial})
				p.in.partial = nil
			})
			continue
		}
		end := &ended{1006, err.Error()}
		if ce := (websocket.CloseError{}); errors.As(err, &ce) {
			end = &ended{int(ce.Code), ce.Reason}
		}
		p.in.update(func() { p.in.end = end })
		return
	}
}

func coderType(text bool) websocket.MessageType {
	if text {
		return websocket.MessageText
	}
	return websocket.MessageBinary
}

func (p *coderPeer) send(m message) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.c.Write(ctx, coderType(m.text), m.data)
}

// fragment leaves up to 4 KiB unsent, which the end of the message or a ping sends.
func (p *coderPeer) fragment(text bool, part []byte, fin bool) (err error) {
	if p.w == nil {
		if p.w, err = p.c.Writer(context.Background(), coderType(text)); err != nil {
			return err
		}
	}
	if _, err = p.w.Write(part); err == nil && fin {
		err = p.w.Close()
		p.w = nil
	}
	return err
}

func (p *coderPeer) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.c.Ping(ctx)
}

func (p *coderPeer) close(code int, reason string) error {
	if code == 0 {
		code = int(websocket.StatusNoStatusRcvd)
	}
	err := p.c.Close(websocket.StatusCode(code), reason)
	<-p.gone
	// Close and read compete for the answering close frame; Close returns nil if
	// the frame it saw had the same code.
	p.in.update(func() {
		if err == nil && p.in.end.code == 1006 {
			p.in.end = &ended{code, ""}
		}
	})
	return err
}

func (p *coderPeer) abort() {
	p.c.CloseNow()
	<-p.gone
}

func (p *coderPeer) protocol() string    { return p.c.Subprotocol() }
func (p *coderPeer) header() http.Header { return p.answer }
func (p *coderPeer) box() *inbox         { return p.in }
