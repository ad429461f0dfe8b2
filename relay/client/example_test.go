package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// One session to a device, and a stream to a target on it.
func Example() {
	relayURL, stop := exampleRelay()
	defer stop()
	ctx := context.Background()

	sess, err := client.Dial(ctx, client.Config{URL: relayURL}, client.Request{Device: "pump-7", Targets: []string{"clock"}})
	if err != nil {
		panic(err)
	}
	defer sess.Close()
	st, err := sess.Open(ctx, "clock")
	if err != nil {
		panic(err)
	}
	defer st.Close()
	io.WriteString(st, "What time is it?")
	st.CloseWrite() // the question is over, the answer is to come
	answer, err := io.ReadAll(st)
	fmt.Printf("%s %v\n", answer, err)

	_, err = client.Dial(ctx, client.Config{URL: relayURL}, client.Request{Device: "pump-8"})
	var no *client.Error
	if errors.As(err, &no) {
		fmt.Println(no.Code, no.Status, no)
	}
	// Output:
	// What time is it? It is noon. <nil>
	// device_not_found 404 the hub does not know device "pump-8"
}

// exampleRelay starts a relay with one device behind it, which has a clock. A
// real device runs package deviceagent.
func exampleRelay() (url string, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	hub := fake.New(fake.Config{})
	running.Go(func() {
		hub.Source("pump-7").Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
			s, err := signaler.Parse(d.Payload)
			if err != nil {
				return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
			}
			running.Go(func() { exampleDevice(ctx, s.AcceptURL) })
			return nil
		})
	})
	hub.WaitOnline(ctx, "pump-7")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		panic(err)
	}
	url = "ws://" + ln.Addr().String()
	node, err := relay.New(relay.Config{PublicURL: url, Signaler: hub, Keys: ring, Auth: auth.AllowAll{}, Drain: -1})
	if err != nil {
		panic(err)
	}
	running.Go(func() { node.Run(ctx, relay.Listeners{Public: ln}) })
	return url, func() {
		cancel()
		running.Wait()
	}
}

func exampleDevice(ctx context.Context, acceptURL string) {
	c, err := new(ws.Dialer).DialWebSocket(ctx, acceptURL, nil, wire.SessionV1)
	if err != nil {
		panic(err)
	}
	sess, err := session.New(c, session.Device, session.Config{})
	if err != nil {
		panic(err)
	}
	go sess.Run(ctx)
	in, err := sess.Accept(ctx)
	if err != nil {
		panic(err)
	}
	st, err := in.Accept()
	if err != nil {
		panic(err)
	}
	question, _ := io.ReadAll(st)
	fmt.Fprintf(st, "%s It is noon.", question)
	st.Close()
	<-sess.Done()
}
