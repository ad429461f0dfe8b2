package ws

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

var errFault = errors.New("fault")

// faulty fails the given read or write, counted from 1, and all after it. A
// write that is torn sends one byte.
type faulty struct {
	net.Conn
	failRead, failWrite, tear int
	mu                        sync.Mutex
	reads, writes             int
}

func (f *faulty) Read(p []byte) (int, error) {
	f.mu.Lock()
	f.reads++
	n := f.reads
	f.mu.Unlock()
	if f.failRead > 0 && n >= f.failRead {
		return 0, errFault
	}
	return f.Conn.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.writes++
	n := f.writes
	f.mu.Unlock()
	if f.tear > 0 && n == f.tear {
		f.Conn.Write(p[:1])
		return 1, errFault
	}
	if f.failWrite > 0 && n >= f.failWrite {
		return 0, errFault
	}
	return f.Conn.Write(p)
}

// TestFaults fails each read and each write of a talk.
func TestFaults(t *testing.T) {
	talk := func(t *testing.T, f *faulty) (ok bool) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			f.Conn = a
			c := NewClient(f, nil, Config{})
			p := &peer{t, b, bufio.NewReader(b)}
			var wg sync.WaitGroup
			wg.Go(func() {
				defer p.Close()
				for range 5 {
					if f, err := p.next(); err != nil || f.Opcode != OpBinary {
						return
					}
					if _, err := p.Write(slices.Concat(server(0x02, "an"), server(0x80, "swer"))); err != nil {
						return
					}
				}
				p.next()
				p.Write(closeFrame(1000, ""))
			})
			err := func() error {
				for range 5 {
					if _, err := c.Write([]byte("question")); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
						return err
					}
				}
				return nil
			}()
			c.Close()
			wg.Wait()
			if ok = err == nil; err != nil && !errors.Is(err, errFault) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v: %v", f, err)
			}
		})
		return ok
	}
	for n := 1; !talk(t, &faulty{failRead: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{failWrite: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{tear: n}); n++ {
	}
}
