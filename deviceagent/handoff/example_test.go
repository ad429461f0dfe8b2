package handoff_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
)

// The agent's side and the program's, which are two processes otherwise.
func Example() {
	dir, err := os.MkdirTemp("", "handoff")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	source, err := handoff.New(handoff.Config{Address: handoff.Address{Kind: handoff.Unix, At: filepath.Join(dir, "s")}})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error)
	go func() { // an agent does that, if it is its Source
		ran <- source.Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
			if _, err := signaler.Parse(d.Payload); err != nil {
				return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
			}
			return nil
		})
	}()

	at, err := source.Wait(ctx)
	if err != nil {
		panic(err)
	}
	for _, payload := range []string{`{"acceptUrl":"wss://relay.example.com/bridge/accept?bridgeToken=…"}`, `{}`} {
		no, err := handoff.Send(ctx, at, "", []byte(payload))
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s", handoff.Answer(no))
	}
	stop()
	fmt.Println(<-ran)
	// Output:
	// {"accepted":true}
	// {"code":"bad_signal","message":"signal: acceptUrl is missing"}
	// <nil>
}
