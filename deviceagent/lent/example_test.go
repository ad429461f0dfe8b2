package lent_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/amenzhinsky/iothub/iotdevice"
	"github.com/amenzhinsky/iothub/iotdevice/transport/mqtt"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/lent"
)

// A program with a client of its own, which has a method and reads its messages,
// lends it to an agent. It runs until ctx ends.
func Example() {
	run := func(ctx context.Context, connectionString string) error {
		guard := new(lent.Guard)
		client, err := iotdevice.NewFromConnectionString(mqtt.New(guard.Option()), connectionString)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.Connect(context.Background()); err != nil { // a deadline here would leave a connection behind
			return err
		}

		// The program's own, as before. The context is the client's: it lives as long.
		own := context.Background()
		err = client.RegisterMethod(own, "Reboot", func(map[string]any) (int, map[string]any, error) {
			return 200, nil, nil
		})
		if err != nil {
			return err
		}
		messages, err := client.SubscribeEvents(own)
		if err != nil {
			return err
		}
		var running sync.WaitGroup
		defer running.Wait()
		defer client.UnsubscribeEvents(messages)
		running.Go(func() {
			for m := range messages.C() {
				if _, signal := m.Properties[lent.Property]; !signal {
					fmt.Printf("message: %s\n", m.Payload)
				}
			}
		})

		source, err := lent.New(lent.Config{Client: client, Guard: guard})
		if err != nil {
			return err
		}
		targets, err := deviceagent.ParseTargets([]string{"ssh=tcp:127.0.0.1:22"})
		if err != nil {
			return err
		}
		agent, err := deviceagent.New(deviceagent.Config{
			DeviceID: client.DeviceID(), Source: source, RelayHosts: []string{"relay.example.com"}, Targets: targets,
		})
		if err != nil {
			return err
		}
		return agent.Run(ctx)
	}

	err := run(context.Background(), "HostName=hub.example.com;DeviceId=pump-7") // somebody forgot the key
	fmt.Println(err)
	// Output: SharedAccessKey is required
}
