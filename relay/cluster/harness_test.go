package cluster_test

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
)

const (
	ownerAddr = "10.0.0.1:7443"
	ownAddr   = "10.0.0.9:7443"
	secret    = "the-bridge-token" // never in a log, nor at a stranger's
)

// ring has the keys of these numbers.
func ring(t testing.TB, numbers ...byte) *token.Ring {
	t.Helper()
	var keys []token.Key
	for _, n := range numbers {
		var b [32]byte
		for i := range b {
			b[i] = n + byte(7*i)
		}
		keys = append(keys, token.KeyFrom(b))
	}
	r, err := token.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parsePeers(t testing.TB, list ...string) *cluster.Peers {
	t.Helper()
	p, err := cluster.ParsePeers(list, 7443)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// node is one that knows the owner's address, and whatever set says.
func node(t testing.TB, set func(*cluster.Config)) *cluster.Node {
	t.Helper()
	cfg := cluster.Config{Address: ownAddr, Peers: parsePeers(t, "10.0.0.1"), Keys: ring(t, 1)}
	if set != nil {
		set(&cfg)
	}
	n, err := cluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// serve answers on n's node port until the test ends.
func serve(t testing.TB, n *cluster.Node, ln net.Listener, h http.HandlerFunc) {
	l := n.Listen(ln)
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		serving.Wait()
	})
}

// accept is what a node passes on.
func accept(t testing.TB) *http.Request {
	r, err := http.NewRequest("GET", "/bridge/accept?bridgeToken="+secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	return r
}

// tcpPair is the two ends of a connection through the kernel.
func tcpPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// A logBook keeps log lines.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
