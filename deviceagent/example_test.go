package deviceagent_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/signaler/fake"
)

// A gauge is a target that is no socket: it lives in this program.
type gauge struct{ bar float64 }

func (g gauge) String() string { return "the pressure gauge" }

func (g gauge) Dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		far.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(far, "%.1f bar\n", g.bar)
	}()
	return near, nil
}

// A program embeds an agent and offers a target of its own. Here the relay and
// the hub are in the same program; on a device there is only the middle part.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	hub := fake.New(fake.Config{})
	relayURL := startRelay(ctx, &running, hub)

	var targets deviceagent.Targets
	if err := targets.Add("pressure", gauge{2.5}); err != nil {
		panic(err)
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID:   "pump-7",
		Source:     hub.Source("pump-7"), // or the device's own connection to its hub
		RelayHosts: []string{"127.0.0.1"},
		Targets:    &targets,
	})
	if err != nil {
		panic(err)
	}
	running.Go(func() { agent.Run(ctx) })
	hub.WaitOnline(ctx, "pump-7")

	sess, err := client.Dial(ctx, client.Config{URL: relayURL}, client.Request{Device: "pump-7", Targets: []string{"pressure"}})
	if err != nil {
		panic(err)
	}
	defer sess.Close()
	st, err := sess.Open(ctx, "pressure")
	if err != nil {
		panic(err)
	}
	defer st.Close()
	answer, err := io.ReadAll(st)
	fmt.Printf("%s%v\n", answer, err)
	_, err = sess.Open(ctx, "ssh")
	fmt.Println(err)
	// Output:
	// 2.5 bar
	// <nil>
	// session: open "ssh" refused: target_not_allowed: target "ssh" is not on this device's list
}

func startRelay(ctx context.Context, running *sync.WaitGroup, hub *fake.Hub) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		panic(err)
	}
	url := "ws://" + ln.Addr().String()
	node, err := relay.New(relay.Config{PublicURL: url, Signaler: hub, Keys: ring, Auth: auth.AllowAll{}, Drain: -1})
	if err != nil {
		panic(err)
	}
	running.Go(func() { node.Run(ctx, relay.Listeners{Public: ln}) })
	return url
}
