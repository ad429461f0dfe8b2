package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"websocketbridge/relay/session"
)

// A side is a session whose Run runs.
type side struct {
	*session.Session
	ran chan error // what Run returned
}

func start(t testing.TB, tr session.Transport, role session.Role, cfg session.Config) *side {
	t.Helper()
	s, err := session.New(tr, role, cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := &side{s, make(chan error, 1)}
	go func() { x.ran <- s.Run(context.Background()) }()
	return x
}

// pair joins a requester and a device. They are closed when the test ends;
// inside of a synctest bubble that is too late, call stop there.
func pair(t testing.TB, a, b net.Conn, cfg session.Config) (req, dev *side, stop func()) {
	t.Helper()
	req = start(t, session.NetTransport(a), session.Requester, cfg)
	dev = start(t, session.NetTransport(b), session.Device, cfg)
	stop = sync.OnceFunc(func() {
		req.Close()
		dev.Close()
		<-req.ran
		<-dev.ran
	})
	return req, dev, stop
}

func pipePair(t testing.TB, cfg session.Config) (req, dev *side, stop func()) {
	t.Helper()
	a, b := net.Pipe()
	return pair(t, a, b, cfg)
}

// tcpPipe is a loopback TCP connection.
func tcpPipe(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// open opens a stream from one side to the other.
func open(t testing.TB, from, to *side) (a, b *session.Stream) {
	t.Helper()
	accepted := make(chan *session.Stream, 1)
	go func() {
		var st *session.Stream
		if in, err := to.Accept(context.Background()); err == nil {
			st, _ = in.Accept()
		}
		accepted <- st
	}()
	a, err := from.Open(context.Background(), "target")
	if err != nil {
		t.Fatal(err)
	}
	if b = <-accepted; b == nil {
		t.Fatal("accept failed")
	}
	return a, b
}

// serve accepts every stream and handles it in a goroutine of its own; the
// returned function waits for them, after the session has ended.
func serve(s *side, handle func(*session.Stream)) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := s.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() {
				st, err := in.Accept()
				if err != nil {
					return
				}
				defer st.Close()
				handle(st)
			})
		}
	})
	return wg.Wait
}

func echo(st *session.Stream) {
	if _, err := io.Copy(st, st); err == nil {
		st.CloseWrite()
		io.Copy(io.Discard, st)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}
