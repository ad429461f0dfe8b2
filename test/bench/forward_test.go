package main

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// signals is a hub that hands signals to whoever reads the channel.
type signals chan *signaler.Signal

func (c signals) Signal(_ context.Context, s *signaler.Signal) error {
	c <- s
	return nil
}

// site is a relay of two nodes.
type site struct {
	b       *testing.B
	addrs   []string // public
	signals signals
}

func newSite(b *testing.B, nodeTLS bool) *site {
	b.Helper()
	s := &site{b: b, signals: make(signals, 1)}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		b.Fatal(err)
	}
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		return ln
	}
	on := []relay.Listeners{{Public: listen(), Node: listen()}, {Public: listen(), Node: listen()}}
	peers, err := cluster.ParsePeers([]string{on[0].Node.Addr().String(), on[1].Node.Addr().String()}, 1)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.Cleanup(running.Wait)
	b.Cleanup(stop)
	for _, l := range on {
		cfg := cluster.Config{Address: l.Node.Addr().String(), Peers: peers, Keys: ring}
		if nodeTLS {
			if cfg.TLS, err = cluster.SelfTLS(); err != nil {
				b.Fatal(err)
			}
		}
		node, err := cluster.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		srv, err := relay.New(relay.Config{
			PublicURL: "ws://" + l.Public.Addr().String(), Signaler: s.signals, Keys: ring, Auth: auth.AllowAll{}, Drain: -1, Cluster: node,
			ConnectsPerDevice: -1, ConnectsPerAddress: -1, MaxPerDevice: -1,
		})
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() { srv.Run(ctx, l) })
		s.addrs = append(s.addrs, l.Public.Addr().String())
	}
	return s
}

// open makes a bridge whose owner is the first node and whose device comes to node at.
func (s *site) open(at int) (requester, device *ws.Conn) {
	s.b.Helper()
	var d, back ws.Dialer
	back.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addrs[at])
	}
	done := make(chan error, 1)
	go func() {
		var err error
		requester, err = d.DialWebSocket(context.Background(), "ws://"+s.addrs[0]+wire.PathConnect+"?deviceId=d", nil)
		done <- err
	}()
	device, err := back.DialWebSocket(context.Background(), (<-s.signals).AcceptURL, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	if err := <-done; err != nil {
		s.b.Fatal(err)
	}
	return requester, device
}

// ways are a bridge at its owner, and one through another node.
var ways = []struct {
	name    string
	at      int
	nodeTLS bool
}{{"direct", 0, false}, {"forwarded", 1, false}, {"forwarded-tls", 1, true}}

// BenchmarkForward is one stream of 64 KiB messages to the device. README claims
// what forwarded makes of direct.
func BenchmarkForward(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			requester, device := newSite(b, way.nodeTLS).open(way.at)
			defer requester.CloseNow()
			defer device.CloseNow()
			const size = 64 << 10
			b.SetBytes(size)
			frame := make([]byte, requester.Headroom()+size)
			received := make(chan int64, 1)
			go func() {
				n, _ := io.Copy(io.Discard, device)
				received <- n
			}()
			var sent int64
			defer reportCPU(b)()
			for b.Loop() {
				if err := requester.WriteFrame(frame); err != nil {
					b.Fatal(err)
				}
				sent += size
			}
			requester.CloseWith(wire.CloseNormal, "")
			if n := <-received; n != sent {
				b.Fatalf("%d of %d bytes arrived", n, sent)
			}
		})
	}
}

// BenchmarkForwardMany is sixteen of them at once.
func BenchmarkForwardMany(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			const bridges, size = 16, 64 << 10
			s := newSite(b, way.nodeTLS)
			b.SetBytes(bridges * size)
			var start, done sync.WaitGroup
			start.Add(1)
			for range bridges {
				requester, device := s.open(way.at)
				defer requester.CloseNow()
				defer device.CloseNow()
				done.Go(func() { io.Copy(io.Discard, device) })
				done.Go(func() {
					frame := make([]byte, requester.Headroom()+size)
					start.Wait()
					for range b.N {
						if err := requester.WriteFrame(frame); err != nil {
							b.Error(err)
							return
						}
					}
					requester.CloseWith(wire.CloseNormal, "")
				})
			}
			b.ResetTimer()
			defer reportCPU(b)()
			start.Done()
			done.Wait()
		})
	}
}

// BenchmarkForwardRTT is a question of 64 bytes and its answer.
func BenchmarkForwardRTT(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			requester, device := newSite(b, way.nodeTLS).open(way.at)
			defer requester.CloseNow()
			defer device.CloseNow()
			go io.Copy(device, device)
			buf := make([]byte, 64)
			defer reportCPU(b)()
			for b.Loop() {
				if _, err := requester.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(requester, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkForwardJoin is a whole bridge: connect, signal, dial back, join, close.
func BenchmarkForwardJoin(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			s := newSite(b, way.nodeTLS)
			defer reportCPU(b)()
			for b.Loop() {
				requester, device := s.open(way.at)
				requester.CloseNow()
				device.CloseNow()
			}
		})
	}
}
