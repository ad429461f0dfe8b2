package session

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
)

// FuzzFrames feeds arbitrary bytes to the frame parser and to a whole session.
// What parses must re-encode to the same bytes; the session must neither panic
// nor hang nor keep more than its windows allow.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, g := range goldenFrames {
		f.Add(g.frame)
		all = append(all, g.frame...)
	}
	f.Add(all)
	f.Add(bytes.Join([][]byte{opening(1), data(1, 3000), data(1, 10), bare(typeFin, 1), bare(typeStop, 1)}, nil))
	f.Add(bytes.Join([][]byte{opened(2), data(2, 100), appendCredit(nil, typeWindow, 2, 7), appendReason(nil, typeReset, 2, reason{"x", "y"})}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; ; {
			again, next, err := recode(rest)
			if err != nil {
				break
			}
			if !bytes.Equal(again, rest[:len(rest)-len(next)]) {
				t.Fatalf("%x re-encodes as %x", rest[:len(rest)-len(next)], again)
			}
			rest = next
		}
		for _, role := range []Role{Requester, Device} {
			fuzzSession(t, b, role)
		}
	})
}

func fuzzSession(t *testing.T, b []byte, role Role) {
	s, err := New(&tape{bytes.NewReader(b)}, role, Config{InitialWindow: EarlyWindow, MaxStreams: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var calls sync.WaitGroup
	calls.Go(func() {
		if st, err := s.Open(ctx, "own"); err == nil {
			st.Write(make([]byte, 100))
			io.Copy(io.Discard, st)
			st.Close()
		}
	})
	calls.Go(func() {
		var unread []*Stream
		for {
			in, err := s.Accept(ctx)
			if err != nil {
				break
			}
			if st, err := in.Accept(); err == nil {
				unread = append(unread, st)
			}
		}
		for _, st := range unread {
			st.mu.Lock()
			if st.queue.size > EarlyWindow {
				t.Errorf("%d bytes wait", st.queue.size)
			}
			st.mu.Unlock()
			st.Close()
		}
	})
	if err := s.Run(ctx); err == nil && s.Err() == nil {
		t.Error("Run returned and the session lives")
	}
	if s.NumStreams() != 0 {
		t.Error("streams left")
	}
	calls.Wait()
}

// A tape plays bytes to a session and takes whatever it says.
type tape struct{ in *bytes.Reader }

func (p *tape) Read(b []byte) (int, error) { return p.in.Read(b) }
func (p *tape) WriteFrame(b []byte) error  { return nil }
func (p *tape) Headroom() int              { return 0 }
func (p *tape) Close() error               { return nil }
