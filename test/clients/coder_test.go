package clients

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/signaler/fake"
)

// newLab runs a relay in this process.
func newLab(t *testing.T, dialBack time.Duration) lab {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	public, hubLn := listen(), listen()
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.ParseKeys("test " + hash)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	hub := fake.New(fake.Config{})
	node, err := relay.New(relay.Config{
		PublicURL: "ws://" + public.Addr().String(), Signaler: hub, Keys: ring, Auth: keys, DialBack: dialBack, Drain: -1,
		Ping: -1, Dead: -1, // data that waits for the next ping to come through is late
	})
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	run("fake hub", func() error { return hub.Serve(ctx, hubLn) })
	run("relay", func() error { return node.Run(ctx, relay.Listeners{Public: public}) })
	return lab{relay: "ws://" + public.Addr().String(), hub: "ws://" + hubLn.Addr().String(), key: key}
}

func TestCoder(t *testing.T) {
	testMatrix(t, newLab(t, 0), pair{coder{}, coder{}})
}

func TestCoderFailures(t *testing.T) {
	testFailures(t, newLab(t, time.Second), pair{coder{}, coder{}})
}
