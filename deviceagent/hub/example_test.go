package hub_test

import (
	"context"
	"fmt"
	"os"

	"websocketbridge/deviceagent/hub"
	"websocketbridge/signaler"
)

// A program of one's own that hears the signals of a device. The agent does the
// same with its Handler: deviceagent.Config{Source: source, …}.
func Example() {
	text, err := os.ReadFile("/etc/deviceagent/device.txt") // of the device, from its page in the hub
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg, err := hub.FromConnectionString(string(text))
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.WebSocket = true // where only port 443 is open
	source, err := hub.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = source.Run(context.Background(), func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
		return &signaler.Refusal{Code: "not_today", Message: "this device is asleep"}
	})
	fmt.Println(err)
}
