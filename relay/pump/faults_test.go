package pump

import (
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"websocketbridge/relay/wire"
)

var errFault = errors.New("fault")

// faulty fails the given read or write, counted from 1, and all after it. Its
// reads wait for the gate.
type faulty struct {
	net.Conn
	failRead, failWrite int
	gate                chan struct{}
	mu                  sync.Mutex
	reads, writes       int
}

func (f *faulty) Read(p []byte) (int, error) {
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	f.reads++
	fail := f.failRead > 0 && f.reads >= f.failRead
	f.mu.Unlock()
	if fail {
		return 0, errFault
	}
	return f.Conn.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.writes++
	fail := f.failWrite > 0 && f.writes >= f.failWrite
	f.mu.Unlock()
	if fail {
		return 0, errFault
	}
	return f.Conn.Write(p)
}

// TestRunFaults fails each read and each write of a leg. The other side must be
// told.
func TestRunFaults(t *testing.T) {
	talk := func(t *testing.T, f *faulty) (ok bool) {
		synctest.Test(t, func(t *testing.T) {
			requester, left := newPeer(t)
			device, right := newPeer(t)
			f.Conn = right.conn
			right.conn = f
			result := make(chan Result, 1)
			go func() { result <- Run(t.Context(), left, right, quiet) }()
			go func() { // echo
				for {
					g, err := device.next()
					if err == nil {
						_, err = device.Write(clientFrame(g.finOp, g.payload))
					}
					if err != nil || g.finOp == 0x88 {
						device.Close()
						return
					}
				}
			}()
			var last frame
			for i := range 5 {
				if i == 4 {
					requester.sendClose(4000, "")
				} else {
					requester.send(0x82, "question")
				}
				var err error
				if last, err = requester.next(); err != nil {
					t.Fatalf("%+v: %v", f, err)
				}
				if last.finOp == 0x88 {
					break
				}
			}
			if last.finOp != 0x88 {
				t.Errorf("%+v: got %#x, want a close frame", f, last.finOp)
			}
			if ok = last.payload == closing(4000, ""); !ok && last.payload != closing(1001, "peer_lost: the device's connection ended without a close frame") {
				t.Errorf("%+v: closed with %q", f, last.payload)
			}
			requester.Close()
			device.Close()
			if res := <-result; ok != (res.Reason == wire.Done) {
				t.Errorf("%+v: %+v", f, res)
			}
		})
		return ok
	}
	for n := 1; !talk(t, &faulty{failRead: n}); n++ {
	}
	for n := 1; !talk(t, &faulty{failWrite: n}); n++ {
	}
}
