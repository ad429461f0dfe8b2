package cluster_test

import (
	"crypto/tls"
	"io"
	"testing"
	"time"

	"websocketbridge/relay/cluster"
)

// BenchmarkJoin passes 64 KiB from a device to an owner: over plain TCP,
// and with TLS on either side.
func BenchmarkJoin(b *testing.B) {
	for _, kind := range []string{"TCP and TCP", "TLS and TCP", "TCP and TLS", "TLS and TLS"} {
		b.Run(kind, func(b *testing.B) {
			w := newWay(b, kind, nil, nil)
			const size = 64 << 10
			done := make(chan int64)
			go func() {
				n, _ := io.Copy(io.Discard, struct{ io.Reader }{w.owner})
				done <- n
			}()
			piece := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.device.Write(piece); err != nil {
					b.Fatal(err)
				}
			}
			halfClose(w.device)
			if got := <-done; got != int64(b.N)*size {
				b.Fatalf("%d bytes arrived", got)
			}
			halfClose(w.owner)
			<-w.counts
		})
	}
}

// BenchmarkAsk is one request that the owner refuses: what a device's late accept costs
// two nodes together.
func BenchmarkAsk(b *testing.B) {
	ca := newAuthority(b, "ours")
	for _, kind := range []struct {
		name string
		*tls.Config
	}{{"plain", nil}, {"TLS", selfTLS(b)}, {"mutual TLS", identity(ca.issue(b, time.Hour), ca.pool())}} {
		b.Run(kind.name, func(b *testing.B) {
			c := kind.Config
			addr, _ := ownerOn(b, withTLS(c))
			n := node(b, func(cfg *cluster.Config) { cfg.TLS, cfg.Peers = c, parsePeers(b, addr) })
			r := accept(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.Ask(b.Context(), addr, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
