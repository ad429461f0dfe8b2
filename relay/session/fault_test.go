package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"websocketbridge/relay/session"
)

var errFault = errors.New("injected fault")

// A faulty transport fails its Nth read or write and all after it.
type faulty struct {
	session.Transport
	failRead, failWrite int64 // 0: never
	reads, writes       atomic.Int64
	hit                 atomic.Bool
}

func (f *faulty) Read(p []byte) (int, error) {
	if n := f.reads.Add(1); f.failRead != 0 && n >= f.failRead {
		f.hit.Store(true)
		return 0, errFault
	}
	return f.Transport.Read(p)
}

func (f *faulty) WriteFrame(b []byte) error {
	if n := f.writes.Add(1); f.failWrite != 0 && n >= f.failWrite {
		f.hit.Store(true)
		// The frame was cut: what the other side gets is half of it.
		f.Transport.WriteFrame(b[:len(b)/2])
		return errFault
	}
	return f.Transport.WriteFrame(b)
}

// Each read and each write of either side fails once: every call returns, both
// sessions end and say why, and no goroutine stays behind (synctest finds it).
func TestFaultWalk(t *testing.T) {
	for _, role := range []string{"requester", "device"} {
		for _, op := range []string{"read", "write"} {
			t.Run(role+"/"+op, func(t *testing.T) {
				n := int64(1)
				for ; ; n++ {
					hit := false
					f := &faulty{}
					if op == "read" {
						f.failRead = n
					} else {
						f.failWrite = n
					}
					synctest.Test(t, func(t *testing.T) { hit = faultRun(t, f, role) })
					if t.Failed() {
						t.Fatalf("with fault %d", n)
					}
					if !hit {
						break
					}
				}
				if n < 10 {
					t.Errorf("only %d faults were tried", n-1)
				}
			})
		}
	}
}

// faultRun plays a whole session over f and reports whether the fault was hit.
func faultRun(t *testing.T, f *faulty, role string) bool {
	a, b := net.Pipe()
	x, y := session.NetTransport(a), session.NetTransport(b)
	if role == "requester" {
		f.Transport, x = x, f
	} else {
		f.Transport, y = y, f
	}
	cfg := session.Config{InitialWindow: session.EarlyWindow, MaxBuffered: -1}
	req := start(t, x, session.Requester, cfg)
	dev := start(t, y, session.Device, cfg)

	// The device echoes, refuses, or leaves streams alone.
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			in, err := dev.Accept(context.Background())
			if err != nil {
				return
			}
			calls.Go(func() {
				switch in.Target() {
				case "refuse":
					in.Refuse("no", "")
				case "forget":
				default:
					st, err := in.Accept()
					if err != nil {
						return
					}
					if in.Target() == "echo" {
						echo(st)
					} else {
						<-dev.Done()
					}
					st.Close()
				}
			})
		}
	})
	// Calls that wait until the session ends.
	parked := map[string]func(*session.Stream) error{
		"read":  func(st *session.Stream) error { _, err := st.Read(make([]byte, 1)); return err },
		"write": func(st *session.Stream) error { _, err := st.Write(make([]byte, 1<<20)); return err },
		"open":  func(*session.Stream) error { _, err := req.Open(context.Background(), "forget"); return err },
		"accept": func(*session.Stream) error {
			_, err := req.Accept(context.Background())
			return err
		},
	}
	for name, call := range parked {
		calls.Go(func() {
			st, err := req.Open(context.Background(), "park")
			if err == nil {
				err = call(st)
				st.Close()
			}
			if err == nil {
				t.Errorf("%s returned without an error", name)
			}
		})
	}
	err := faultTalk(req)
	if err != nil && !f.hit.Load() {
		t.Errorf("without a fault: %v", err)
	}
	if err != nil && !errors.Is(err, errFault) && !errors.Is(err, session.ErrLost) {
		t.Errorf("the error does not say that the transport failed: %v", err)
	}
	if f.hit.Load() { // both ends must notice by themselves
		for _, err := range []error{<-req.ran, <-dev.ran} {
			wantErr(t, "run", err, session.ErrLost)
		}
	}
	hit := f.hit.Load()
	req.Close()
	dev.Close()
	calls.Wait()
	if n := req.NumStreams() + dev.NumStreams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
	return hit
}

// faultTalk uses everything once.
func faultTalk(req *side) error {
	ctx := context.Background()
	st, err := req.Open(ctx, "echo")
	if err != nil {
		return err
	}
	defer st.Close()
	want := bytes.Repeat([]byte("abcdefgh"), 5<<10)
	sent := make(chan error, 1)
	go func() {
		_, err := st.Write(want[:20<<10])
		if err == nil {
			_, err = st.ReadFrom(bytes.NewReader(want[20<<10:]))
		}
		sent <- errors.Join(err, st.CloseWrite())
	}()
	var got bytes.Buffer
	_, err = io.Copy(&got, st)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got.Bytes(), want) {
		return fmt.Errorf("got %d bytes, want %d, or they differ", got.Len(), len(want))
	}
	_, err = req.Open(ctx, "refuse")
	if refusal := new(session.OpenError); !errors.As(err, &refusal) {
		return err
	}
	_, err = req.Ping(ctx)
	return err
}
