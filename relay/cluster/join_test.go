package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/cluster"
)

// overTLS makes TLS of a pair.
func overTLS(t testing.TB, near, far net.Conn) (*tls.Conn, *tls.Conn) {
	t.Helper()
	client, server := tls.Client(near, selfTLS(t)), tls.Server(far, selfTLS(t))
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// duplex is a connection in memory with half-close.
type duplex struct{ in, out net.Conn }

func duplexPair() (near, far duplex) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	return duplex{a, d}, duplex{c, b}
}

func (d duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d duplex) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d duplex) CloseWrite() error           { return d.out.Close() }
func (d duplex) Close() error                { d.in.Close(); return d.out.Close() }
func (d duplex) LocalAddr() net.Addr         { return d.in.LocalAddr() }
func (d duplex) RemoteAddr() net.Addr        { return d.in.RemoteAddr() }
func (d duplex) SetDeadline(at time.Time) error {
	d.in.SetReadDeadline(at)
	return d.out.SetWriteDeadline(at)
}
func (d duplex) SetReadDeadline(at time.Time) error { return d.in.SetReadDeadline(at) }
func (d duplex) SetWriteDeadline(at time.Time) error {
	return d.out.SetWriteDeadline(at)
}

// A way is a device, the node in the middle, and an owner.
type way struct {
	device, owner net.Conn
	side, conn    net.Conn // the node's ends
	cut           context.CancelFunc
	counts        chan [2]int64 // to device, to owner
}

var kinds = []string{"TCP and TCP", "TLS and TLS", "TLS and TCP", "TCP and TLS", "memory"}

// newWay joins, with heads that the node has read already.
func newWay(t testing.TB, kind string, deviceHead, ownerHead []byte) *way {
	t.Helper()
	w := &way{counts: make(chan [2]int64, 1)}
	if kind == "memory" {
		d, s := duplexPair()
		o, c := duplexPair()
		w.device, w.side, w.owner, w.conn = d, s, o, c
	} else {
		w.device, w.side = tcpPair(t)
		w.conn, w.owner = tcpPair(t)
		if kind[:3] == "TLS" {
			w.device, w.side = overTLS(t, w.device, w.side)
		}
		if kind[len(kind)-3:] == "TLS" {
			w.conn, w.owner = overTLS(t, w.conn, w.owner)
		}
	}
	w.join(t, deviceHead, ownerHead)
	return w
}

func (w *way) join(t testing.TB, deviceHead, ownerHead []byte) {
	ctx, cut := context.WithCancel(context.Background())
	w.cut = cut
	var joined sync.WaitGroup
	joined.Go(func() {
		toDevice, toOwner := cluster.NewAnswer(w.conn, ownerHead).Join(ctx, w.side, deviceHead)
		w.counts <- [2]int64{toDevice, toOwner}
	})
	t.Cleanup(func() {
		w.device.Close()
		w.owner.Close()
		cut()
		joined.Wait()
	})
}

func halfClose(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite() }

// trickle writes b in odd pieces.
func trickle(c net.Conn, b []byte, random *rand.Rand) {
	for len(b) > 0 {
		n := min(len(b), 1+random.IntN(1<<random.IntN(18)))
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}

func randomBytes(n int, random *rand.Rand) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestJoinBytes(t *testing.T) {
	for _, kind := range kinds {
		for _, size := range []int{0, 1, 4095, 1<<20 + 17} {
			random := rand.New(rand.NewPCG(1, uint64(size)))
			up, down := randomBytes(size, random), randomBytes(size/2, random)
			upHead, downHead := up[:size/3], down[:size/5]
			w := newWay(t, kind, upHead, downHead)
			var ends sync.WaitGroup
			for _, end := range []struct {
				net.Conn
				says, hears []byte
				seed        uint64
			}{{w.device, up[len(upHead):], down, 1}, {w.owner, down[len(downHead):], up, 2}} {
				ends.Go(func() {
					trickle(end, end.says, rand.New(rand.NewPCG(end.seed, 1)))
					halfClose(end.Conn)
				})
				ends.Go(func() {
					if got, err := io.ReadAll(end); err != nil || !bytes.Equal(got, end.hears) {
						t.Errorf("%s: %d bytes and %v, not the %d that were sent", kind, len(got), err, len(end.hears))
					}
				})
			}
			ends.Wait()
			if got := <-w.counts; got != [2]int64{int64(len(down)), int64(len(up))} {
				t.Errorf("%s: counted %d, not %d and %d", kind, got, len(down), len(up))
			}
		}
	}
}

// Each end may be the first to say that it has no more; what the other still says arrives.
func TestJoinHalfClose(t *testing.T) {
	for _, kind := range kinds {
		for _, deviceFirst := range []bool{true, false} {
			w := newWay(t, kind, nil, nil)
			first, second := w.owner, w.device
			if deviceFirst {
				first, second = w.device, w.owner
			}
			var farewell sync.WaitGroup
			farewell.Go(func() {
				io.WriteString(first, "bye")
				halfClose(first)
			})
			if got, err := io.ReadAll(second); string(got) != "bye" || err != nil {
				t.Errorf("%s: %q, %v", kind, got, err)
			}
			farewell.Go(func() {
				io.WriteString(second, "and bye")
				halfClose(second)
			})
			if got, err := io.ReadAll(first); string(got) != "and bye" || err != nil {
				t.Errorf("%s: %q, %v", kind, got, err)
			}
			farewell.Wait()
			<-w.counts
		}
	}
}

// A reset of one end is an end to the other.
func TestJoinReset(t *testing.T) {
	for _, kind := range kinds[:4] {
		for _, deviceFirst := range []bool{true, false} {
			w := newWay(t, kind, nil, nil)
			first, second := w.owner, w.device
			if deviceFirst {
				first, second = w.device, w.owner
			}
			raw := first
			if c, ok := first.(*tls.Conn); ok {
				raw = c.NetConn()
			}
			raw.(*net.TCPConn).SetLinger(0)
			raw.Close()
			if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("%s: %d bytes, %v", kind, n, err)
			}
			second.Close()
			<-w.counts
		}
	}
}

// Once one direction has ended, the other has Linger and no more, whether its sender is
// silent or its receiver does not read.
func TestJoinLinger(t *testing.T) {
	for _, overTLS := range []bool{false, true} {
		for name, babble := range map[string]bool{"silent": false, "not reading": true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := memoryWay(t, overTLS)
					if babble { // the device talks, and the owner does not listen
						go func() {
							for b := make([]byte, 1000); ; {
								if _, err := w.device.Write(b); err != nil {
									return
								}
							}
						}()
					}
					time.Sleep(time.Hour)
					began := time.Now()
					halfClose(w.owner)
					if got, err := io.ReadAll(w.device); len(got) > 0 || err != nil {
						t.Errorf("the device hears %d bytes, %v", len(got), err)
					}
					<-w.counts
					if took := time.Since(began); took != cluster.Linger {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// memoryWay is one through memory that can also be TLS.
func memoryWay(t *testing.T, withTLS bool) *way {
	if !withTLS {
		return newWay(t, "memory", nil, nil)
	}
	w := &way{counts: make(chan [2]int64, 1)}
	d, s := duplexPair()
	o, c := duplexPair()
	w.device, w.side = overTLS(t, d, s)
	w.conn, w.owner = overTLS(t, c, o)
	w.join(t, nil, nil)
	return w
}

// A cut waits for nobody: not for those who do not read either, to whom TLS would like
// to say goodbye.
func TestJoinCut(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := memoryWay(t, withTLS)
			var talk sync.WaitGroup
			for _, c := range []net.Conn{w.device, w.owner} {
				talk.Go(func() {
					for b := make([]byte, 1000); ; {
						if _, err := c.Write(b); err != nil {
							return
						}
					}
				})
			}
			time.Sleep(time.Hour)
			began := time.Now()
			w.cut()
			<-w.counts
			if took := time.Since(began); took > 0 {
				t.Errorf("TLS: %t: took %v", withTLS, took)
			}
			talk.Wait()
		})
	}
}

// A cut ends also what is under way, and both ends learn of it.
func TestJoinCutKinds(t *testing.T) {
	for _, kind := range kinds {
		w := newWay(t, kind, nil, nil)
		w.cut()
		<-w.counts
		for _, c := range []net.Conn{w.device, w.owner} {
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("%s: %d bytes, %v", kind, n, err)
			}
		}
	}
}
