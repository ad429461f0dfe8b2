package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"websocketbridge/relay/session"
)

// The device offers one target, "clock"; the requester asks for it and for
// another one.
func Example() {
	bridge, bridgeEnd := net.Pipe() // in the product: a WebSocket each, joined by a relay
	ctx := context.Background()

	device, err := session.New(session.NetTransport(bridgeEnd), session.Device, session.Config{})
	if err != nil {
		panic(err)
	}
	deviceRan := make(chan error)
	go func() { deviceRan <- device.Run(ctx) }()
	go func() {
		for {
			in, err := device.Accept(ctx)
			if err != nil {
				return // the session has ended
			}
			go func() { // dialling one target must not hold up the others
				if in.Target() != "clock" {
					in.Refuse("target_unknown", "no target of that name")
					return
				}
				st, err := in.Accept()
				if err != nil {
					return
				}
				defer st.Close()
				question, _ := io.ReadAll(st) // to the other side's CloseWrite
				fmt.Fprintf(st, "%s It is noon.", question)
			}()
		}
	}()

	requester, err := session.New(session.NetTransport(bridge), session.Requester, session.Config{
		MaxStreams: -1, // it opens streams and takes none
	})
	if err != nil {
		panic(err)
	}
	requesterRan := make(chan error)
	go func() { requesterRan <- requester.Run(ctx) }()

	st, err := requester.Open(ctx, "clock")
	if err != nil {
		panic(err)
	}
	io.WriteString(st, "What time is it?")
	st.CloseWrite()
	answer, err := io.ReadAll(st)
	st.Close()
	fmt.Printf("%s %v\n", answer, err)

	_, err = requester.Open(ctx, "fridge")
	var refused *session.OpenError
	fmt.Println(errors.As(err, &refused), refused.Code)

	requester.Close()
	fmt.Println(<-requesterRan, <-deviceRan)
	// Output:
	// What time is it? It is noon. <nil>
	// true target_unknown
	// <nil> <nil>
}
