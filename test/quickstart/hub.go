package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strconv"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/hub"
	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/fake"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
)

// hubMode is how the signal goes to the device: "" is the fake, in memory; the
// others are IoT Hub's protocols, spoken with the emulator.
type hubMode string

const (
	fakeMode   hubMode = ""
	c2dMode    hubMode = "c2d"
	methodMode hubMode = "method"
)

// String, Set and IsBoolFlag make hubMode a flag.Value: -hub alone is c2d, the
// relay's default.
func (m *hubMode) String() string { return string(*m) }

func (m *hubMode) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		s = map[bool]string{true: string(c2dMode), false: ""}[on]
	}
	switch hubMode(s) {
	case fakeMode, c2dMode, methodMode:
		*m = hubMode(s)
		return nil
	}
	return fmt.Errorf("%q is neither %s nor %s", s, c2dMode, methodMode)
}

// IsBoolFlag lets -hub stand alone.
func (*hubMode) IsBoolFlag() bool { return true }

// via tells what the signal goes through.
func (m hubMode) via() string {
	return map[hubMode]string{
		c2dMode:    ", as a cloud-to-device message by AMQP",
		methodMode: ", as a direct method by HTTPS",
	}[m]
}

// aHub is both ends of the way a signal takes.
type aHub struct {
	// signaler makes one for a node: as processes of their own, no two would share one.
	signaler func(start starter, log *slog.Logger) (signaler.Signaler, error)
	source   deviceagent.SignalSource
	online   func(ctx context.Context, deviceID string) error // waits for it
	more     string                                           // what to try with this hub
}

// makeHub makes the hub of d.hub. start runs its parts.
func (d *demo) makeHub(start starter) (*aHub, error) {
	if d.hub == fakeMode {
		h := fake.New(fake.Config{})
		same := func(starter, *slog.Logger) (signaler.Signaler, error) { return h, nil } // it is the hub itself
		return &aHub{signaler: same, source: h.Source(device), online: h.WaitOnline}, h.SetFaults(d.faults)
	}
	e, err := emulator.New(emulator.Config{Devices: []emulator.Device{{ID: device}}, Logger: d.log.With("part", "hub")})
	if err != nil {
		return nil, err
	}
	start("hub", e.Run)
	trust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: e.RootCAs()}

	// The device has its own key, and MQTT.
	cs, err := e.DeviceConnectionString(device)
	if err != nil {
		return nil, err
	}
	self, err := sas.ParseConnectionString(cs)
	if err != nil {
		return nil, err
	}
	source, err := hub.New(hub.Config{
		HostName: self.HostName, DeviceID: self.DeviceID, Key: self.Key, Addr: e.MQTTAddr(), TLS: trust, Logger: d.log.With("part", "agent"),
	})
	if err != nil {
		return nil, err
	}
	out := &aHub{source: source, more: fmt.Sprintf(hubMore, e.HostName(), e.MQTTAddr(), e.AMQPAddr(), e.HTTPSAddr())}

	// The nodes have a key of the policy service.
	policy, err := sas.ParseConnectionString(e.ServiceConnectionString("service"))
	if err != nil {
		return nil, err
	}
	cred, err := credential.FromConnectionString(policy, 0)
	if err != nil {
		return nil, err
	}
	listens := emulator.ListenMessages
	out.signaler = func(start starter, log *slog.Logger) (signaler.Signaler, error) {
		s, err := c2d.New(c2d.Config{HostName: policy.HostName, Addr: e.AMQPAddr(), Credential: cred, TLS: trust, Logger: log})
		if err == nil {
			start("signaler", s.Run)
		}
		return s, err
	}
	if d.hub == methodMode {
		listens = emulator.ListenMethods
		out.signaler = func(_ starter, log *slog.Logger) (signaler.Signaler, error) {
			return method.New(method.Config{HostName: policy.HostName, Addr: e.HTTPSAddr(), Credential: cred, TLS: trust, Logger: log})
		}
	}
	out.online = func(ctx context.Context, id string) error {
		return e.WaitListening(ctx, cmp.Or(id, device), "", listens)
	}
	return out, nil
}

const hubMore = `
The hub of this demo is an emulator of Azure IoT Hub, %s: MQTT at %s, AMQP at %s,
HTTPS at %s. To have one for programs of your own:

  go run ./test/emulator/cmd/emulator --help
`
