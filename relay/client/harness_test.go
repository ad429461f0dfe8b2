package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
)

const device = "pump-7"

// answers is a client.Config whose every connection f serves, after the request
// was read.
func answers(f func(c net.Conn, r *http.Request)) client.Config {
	return client.Config{URL: "ws://relay.test", AllowPlain: true, Dialer: ws.Dialer{Proxy: netfault.NoProxy, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			if r, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				f(far, r)
			}
		}()
		return near, nil
	}}}
}

// says answers with text, as it is.
func says(text string) client.Config {
	return answers(func(c net.Conn, _ *http.Request) { io.WriteString(c, text) })
}

// A lab is a relay, a fake hub and a device of the test's own making, in memory
// if the test is in a bubble.
type lab struct {
	t       *testing.T
	hub     *fake.Hub
	srv     *relay.Server
	client  client.Config
	dialer  ws.Dialer
	signals atomic.Int32
	// The device answers a signal with refuse, or else serves its bridge.
	refuse  func(s *signaler.Signal) *signaler.Refusal
	session func(s *session.Session) // while it runs
	stream  func(target string, in *session.Incoming)
	raw     func(c *ws.Conn)

	node        *node              // the last relay's listener
	mem         *netfault.Listener // the same, in memory
	address     atomic.Pointer[netfault.Listener]
	stopRelay   func()
	goneOffline func()
	work        sync.WaitGroup
}

// newLab starts a relay and a device that echoes. stop must be called at the
// end of a bubble.
func newLab(t *testing.T, inMemory bool, change func(*relay.Config)) *lab {
	t.Helper()
	l := &lab{t: t, hub: fake.New(fake.Config{Devices: []string{device}}), dialer: ws.Dialer{Proxy: netfault.NoProxy}}
	l.stream = func(_ string, in *session.Incoming) {
		st, err := in.Accept()
		if err != nil {
			return
		}
		defer st.Close()
		if _, err := io.Copy(st, st); err == nil {
			st.CloseWrite()
		}
	}
	l.raw = func(c *ws.Conn) {
		io.Copy(c, c)
		c.Close()
	}
	var ln net.Listener
	host := "relay.test"
	if inMemory {
		l.mem = netfault.NewListener()
		l.address.Store(l.mem)
		ln = l.mem
		l.dialer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return l.address.Load().Dial(ctx, network, addr)
		}
	} else {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		host = ln.Addr().String()
	}
	l.node = &node{Listener: ln}
	cfg := relay.Config{PublicURL: "ws://" + host, Auth: auth.AllowAll{}, Keys: mustRing(t), Drain: -1, Signaler: l.hub}
	if change != nil {
		change(&cfg)
	}
	var err error
	if l.srv, err = relay.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.work.Go(func() { l.srv.Run(ctx, relay.Listeners{Public: l.node}) })
	l.stopRelay = cancel
	l.client = client.Config{URL: "ws://" + host, AllowPlain: true, Dialer: l.dialer}
	l.online()
	if !inMemory {
		t.Cleanup(l.stop)
	}
	return l
}

// online makes the device listen.
func (l *lab) online() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.hub.Source(device).Run(ctx, l.handle)
	}()
	l.goneOffline = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	if err := l.hub.WaitOnline(ctx, device); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) handle(_ context.Context, d signaler.Delivery) *signaler.Refusal {
	s, err := signaler.Parse(d.Payload)
	if err != nil {
		return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
	}
	l.signals.Add(1)
	if l.refuse != nil {
		if no := l.refuse(s); no != nil {
			return no
		}
	}
	l.work.Go(func() { l.serve(s) })
	return nil
}

func (l *lab) serve(s *signaler.Signal) {
	var protocols []string
	if l.stream != nil {
		protocols = []string{wire.SessionV1}
	}
	c, err := l.dialer.DialWebSocket(context.Background(), s.AcceptURL, nil, protocols...)
	if err != nil {
		return
	}
	if c.Subprotocol() == "" {
		l.raw(c)
		return
	}
	sess, err := session.New(c, session.Device, session.Config{})
	if err != nil {
		panic(err)
	}
	l.work.Go(func() {
		for {
			in, err := sess.Accept(context.Background())
			if err != nil {
				return
			}
			l.work.Go(func() { l.stream(in.Target(), in) })
		}
	})
	if l.session != nil {
		l.work.Go(func() { l.session(sess) })
	}
	sess.Run(context.Background())
}

func (l *lab) stop() {
	l.goneOffline()
	l.stopRelay()
	if l.mem != nil {
		defer time.Sleep(time.Second) // the bubble's: net/http holds a connection for a while after an early answer
	}
	l.work.Wait()
}

func request(targets ...string) client.Request {
	return client.Request{Device: device, Targets: targets}
}

// inBubble runs f with a lab in a bubble; a goroutine that is left fails the test.
func inBubble(t *testing.T, change func(*relay.Config), f func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, true, change)
		defer l.stop()
		f(t, l)
	})
}

// wantError returns err as an *Error with this code.
func wantError(t *testing.T, err error, code wire.Code) *client.Error {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want an error with code %q", err, code)
	}
	return e
}

// exchange sends a word and wants it back.
func exchange(t *testing.T, c io.ReadWriter) {
	t.Helper()
	go io.WriteString(c, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
}

func problem(status int, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%sContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), header, len(body), body)
}

func mustRing(t *testing.T) *token.Ring {
	t.Helper()
	r, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
