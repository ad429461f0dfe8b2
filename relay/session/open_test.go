package session_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/session"
)

func TestOpenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		go func() {
			in, err := dev.Accept(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			if in.Target() != "ssh" {
				t.Errorf("got target %q", in.Target())
			}
			wantErr(t, "refuse", in.Refuse("target_failed", "127.0.0.1:22 connection refused"), nil)
			wantErr(t, "refuse again", in.Refuse("x", ""), session.ErrAnswered)
			_, err = in.Accept()
			wantErr(t, "accept after refuse", err, session.ErrAnswered)
		}()
		_, err := req.Open(context.Background(), "ssh")
		want := &session.OpenError{Target: "ssh", Code: "target_failed", Message: "127.0.0.1:22 connection refused"}
		if got, ok := err.(*session.OpenError); !ok || *got != *want {
			t.Errorf("got %v, want %v", err, want)
		}
		synctest.Wait()
		if req.NumStreams() != 0 || dev.NumStreams() != 0 || dev.Held() != 0 {
			t.Error("the refused stream was not forgotten")
		}
	})
}

// An opener that gives up resets its stream, before and after the device's
// application has taken it up; a late answer is ignored.
func TestOpenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, dev, stop := pipePair(t, session.Config{})
		defer stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := req.Open(ctx, "a")
		wantErr(t, "open a", err, context.DeadlineExceeded)
		_, err = req.Open(ctx, "a")
		wantErr(t, "open with a dead ctx", err, context.DeadlineExceeded)
		synctest.Wait()

		ctx, cancelB := context.WithCancelCause(context.Background())
		opened := make(chan error)
		go func() { _, err := req.Open(ctx, "b"); opened <- err }()
		in, err := dev.Accept(context.Background())
		if err != nil || in.Target() != "b" { // a is gone already
			t.Fatalf("got %v, %v", in, err)
		}
		gaveUp := errors.New("gave up")
		cancelB(gaveUp)
		wantErr(t, "open b", <-opened, gaveUp)
		synctest.Wait()
		_, err = in.Accept()
		var reset *session.ResetError
		if !errors.As(err, &reset) || reset.Code != session.CodeCancelled {
			t.Errorf("accept: %v", err)
		}

		if req.NumStreams() != 0 || dev.NumStreams() != 0 {
			t.Error("streams left")
		}
	})
}

// The answer to an OPEN crosses the RESET of an opener that gave up.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := longPath(time.Second)
		req := start(t, x, session.Requester, session.Config{})
		dev := start(t, y, session.Device, session.Config{})
		wait := serve(dev, func(st *session.Stream) { st.Write([]byte("late")); echo(st) })
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
		defer cancel()
		_, err := req.Open(ctx, "c")
		wantErr(t, "open", err, context.DeadlineExceeded)
		if _, err := req.Ping(context.Background()); err != nil {
			t.Error(err)
		}
		if req.NumStreams() != 0 || dev.NumStreams() != 0 || dev.Held() != 0 {
			t.Error("streams left")
		}
		req.Close()
		dev.Close()
		wait()
	})
}

func TestLimits(t *testing.T) {
	refused := func(t *testing.T, s *side, code string) {
		t.Helper()
		_, err := s.Open(context.Background(), "x")
		var refusal *session.OpenError
		if !errors.As(err, &refusal) || refusal.Code != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	t.Run("streams", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			req, dev, stop := pipePair(t, session.Config{MaxStreams: 2})
			defer stop()
			open(t, req, dev)
			a, b := open(t, req, dev)
			refused(t, req, session.CodeLimitReached)
			// Ended by the opener alone it still counts, whatever the opener does.
			a.Reset("x", "")
			synctest.Wait()
			refused(t, req, session.CodeLimitReached)
			b.Close()
			a, b = open(t, req, dev)
			a.Close()
			io.Copy(io.Discard, b) // read to its end, and ended by the answer to STOP
			synctest.Wait()
			open(t, req, dev)
		})
	})
	t.Run("backlog", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			req, dev, stop := pipePair(t, session.Config{AcceptBacklog: 1})
			defer stop()
			ctx, cancel := context.WithCancel(context.Background())
			opened := make(chan error)
			go func() { _, err := req.Open(ctx, "x"); opened <- err }()
			synctest.Wait()
			refused(t, req, session.CodeLimitReached)
			cancel()
			<-opened
			synctest.Wait()
			if dev.Held() != 1 {
				t.Errorf("%d streams count, want that in the backlog", dev.Held())
			}
			ctx, cancel = context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := dev.Accept(ctx)
			wantErr(t, "accept", err, context.DeadlineExceeded)
			if dev.Held() != 0 {
				t.Errorf("%d streams count", dev.Held())
			}
		})
	})
	t.Run("none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			req, dev, stop := pipePair(t, session.Config{MaxStreams: -1})
			defer stop()
			refused(t, dev, session.CodeLimitReached)
			refused(t, req, session.CodeLimitReached)
		})
	})
	t.Run("IDs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			req, dev, stop := pipePair(t, session.Config{})
			defer stop()
			req.SetNextID(1<<31 - 1)
			open(t, req, dev)
			_, err := req.Open(context.Background(), "x")
			wantErr(t, "open", err, session.ErrSpent)
			open(t, dev, req)
		})
	})
}
