package emulator_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
)

// A hub on free ports, and a direct method to a device that is not connected.
func Example() {
	hub, err := emulator.New(emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error)
	go func() { done <- hub.Run(ctx) }()

	c, _ := sas.ParseConnectionString(hub.ServiceConnectionString("service"))
	token, _ := sas.Sign(c.Resource(), c.PolicyName, c.Key, time.Now().Add(time.Hour))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: hub.RootCAs()}}
	r, _ := http.NewRequest("POST", "https://"+hub.HTTPSAddr()+"/twins/pump-7/methods?api-version=2021-04-12", strings.NewReader(`{"methodName":"Bridge"}`))
	r.Header.Set("Authorization", token)
	answer, err := transport.RoundTrip(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	fmt.Println(answer.StatusCode, answer.Header.Get("iothub-errorcode"))

	transport.CloseIdleConnections()
	cancel()
	fmt.Println(<-done)
	// Output:
	// 404 DeviceNotOnline
	// <nil>
}
