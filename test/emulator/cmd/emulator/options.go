package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"websocketbridge/test/emulator"
)

// options are the flags.
type options struct {
	listen, hostname              string
	mqttPort, amqpPort, httpsPort int
	admin                         string
	devices                       []string
	devicesFile                   string
	tier                          string
	units                         int
	throttle                      bool
	faults                        string
	caOut, connectionsOut         string
	keysDir                       string
	printEvents, verbose          bool
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", "127.0.0.1", "`IP` address to listen on")
	f.IntVar(&o.mqttPort, "mqtt-port", 8883, "for MQTT over TLS; 0: any")
	f.IntVar(&o.amqpPort, "amqp-port", 5671, "for AMQP over TLS; 0: any")
	f.IntVar(&o.httpsPort, "https-port", 443, "for REST, and MQTT and AMQP over WebSocket; 0: any")
	f.StringVar(&o.hostname, "hostname", "localhost", "`NAME` of the hub in connection strings and its certificate; clients have to resolve it to --listen")
	f.StringArrayVar(&o.devices, "device", nil, "`ID` of a device, or ID/module; repeatable; its keys are made")
	f.StringVar(&o.devicesFile, "devices-file", "", "JSON `FILE` with devices, for keys and thumbprints of yours: [{\"id\":…,\"primaryKey\":…,\"thumbprints\":[…],\"modules\":[{\"id\":…}]}]")
	f.StringVar(&o.caOut, "ca-out", "", "write the CA's certificate to `FILE`, as PEM")
	f.StringVar(&o.connectionsOut, "connections-out", "", "write addresses and connection strings to `FILE`, as JSON that only you may read, and do not print them")
	f.StringVar(&o.keysDir, "keys-dir", "", "write each connection string to a file of its own, that only you may read, in `DIR`/policies, DIR/devices and DIR/modules/DEVICE")
	f.StringVar(&o.tier, "tier", "S1", "free, basic, S1, S2 or S3")
	f.IntVar(&o.units, "units", 1, "of the tier")
	f.BoolVar(&o.throttle, "throttle", false, "keep to the tier's rates and daily quota")
	f.StringVar(&o.faults, "faults", "", "`JSON` of what goes wrong from the start, or @FILE; the admin API changes it")
	f.StringVar(&o.admin, "admin", "", "loopback `ADDR`, such as 127.0.0.1:7072, for the admin API: /faults, /actions, /devices, /events, /stats")
	f.BoolVar(&o.printEvents, "print-events", false, "print telemetry as JSON lines")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log connections")
}

// config turns flags into the hub's configuration. Every fault is reported.
func (o options) config(logTo io.Writer) (emulator.Config, error) {
	var errs []error
	bad := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	if net.ParseIP(o.listen) == nil {
		bad("listen", fmt.Errorf("%q is not an IP address", o.listen))
	}
	for flag, port := range map[string]int{"mqtt-port": o.mqttPort, "amqp-port": o.amqpPort, "https-port": o.httpsPort} {
		if port < 0 || port > 65535 {
			bad(flag, fmt.Errorf("%d is no port", port))
		}
	}
	cfg := emulator.Config{
		HostName: o.hostname, AdminAddr: o.admin, Units: o.units, Throttle: o.throttle, Logger: o.logger(logTo),
		MQTTAddr: o.addr(o.mqttPort), AMQPAddr: o.addr(o.amqpPort), HTTPSAddr: o.addr(o.httpsPort),
	}
	var err error
	cfg.Tier, err = emulator.ParseTier(o.tier)
	bad("tier", err)
	cfg.Faults, err = o.readFaults()
	bad("faults", err)
	cfg.Devices, err = o.readDevices()
	errs = append(errs, err)
	return cfg, errors.Join(errs...)
}

func (o options) readFaults() (emulator.Faults, error) {
	text := []byte(o.faults)
	if name, ok := strings.CutPrefix(o.faults, "@"); ok {
		var err error
		if text, err = os.ReadFile(name); err != nil {
			return emulator.Faults{}, err
		}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return emulator.Faults{}, nil
	}
	return emulator.ParseFaults(text)
}

// readDevices merges --devices-file and --device.
func (o options) readDevices() ([]emulator.Device, error) {
	var devices []emulator.Device
	if o.devicesFile != "" {
		b, err := os.ReadFile(o.devicesFile)
		if err == nil {
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.DisallowUnknownFields()
			if err = dec.Decode(&devices); err == nil && dec.More() {
				err = errors.New("there is more behind the list")
			}
		}
		if err != nil {
			return nil, fmt.Errorf("--devices-file: %w", err)
		}
	}
	for _, name := range o.devices {
		id, module, isModule := strings.Cut(name, "/")
		if id == "" || isModule && module == "" {
			return nil, fmt.Errorf("--device: %q is neither ID nor ID/module", name)
		}
		i := slices.IndexFunc(devices, func(d emulator.Device) bool { return d.ID == id })
		if i < 0 {
			i = len(devices)
			devices = append(devices, emulator.Device{ID: id})
		}
		d := &devices[i]
		if slices.ContainsFunc(d.Modules, func(m emulator.Module) bool { return m.ID == module }) {
			return nil, fmt.Errorf("--device: %s is there twice", name)
		}
		if isModule {
			d.Modules = append(d.Modules, emulator.Module{ID: module})
		}
	}
	return devices, nil
}
