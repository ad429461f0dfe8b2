package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"websocketbridge/test/emulator"
)

// policies are the hub's, in the order that they are printed.
var policies = []string{"iothubowner", "service", "device", "registryRead", "registryReadWrite"}

// description is what --connections-out holds.
type description struct {
	HostName string       `json:"hostName"`
	MQTT     string       `json:"mqtt"` // addresses
	AMQP     string       `json:"amqp"`
	HTTPS    string       `json:"https"`
	Admin    string       `json:"admin,omitempty"`
	CA       string       `json:"ca"` // PEM
	Services []connection `json:"services"`
	Devices  []connection `json:"devices"` // and modules, as device/module
}

type connection struct {
	Name             string `json:"name"`
	ConnectionString string `json:"connectionString"`
}

func describe(hub *emulator.Hub) (description, error) {
	d := description{
		HostName: hub.HostName(), MQTT: hub.MQTTAddr(), AMQP: hub.AMQPAddr(), HTTPS: hub.HTTPSAddr(), Admin: hub.AdminAddr(),
		CA: string(hub.CAPEM()), Devices: []connection{},
	}
	for _, p := range policies {
		d.Services = append(d.Services, connection{p, hub.ServiceConnectionString(p)})
	}
	for _, s := range hub.Devices() {
		name := s.ID
		get := func() (string, error) { return hub.DeviceConnectionString(s.ID) }
		if s.Module != "" {
			name += "/" + s.Module
			get = func() (string, error) { return hub.ModuleConnectionString(s.ID, s.Module) }
		}
		text, err := get()
		if err != nil {
			return description{}, err
		}
		d.Devices = append(d.Devices, connection{name, text})
	}
	return d, nil
}

func (d description) json() []byte {
	b, _ := json.MarshalIndent(d, "", "  ") // of strings
	return append(b, '\n')
}

// print says where the hub is, and the connection strings unless they are in a
// file.
func (d description) print(w io.Writer, o options) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "IoT Hub emulator %s\nMQTT\t%s\nAMQP\t%s\nHTTPS\t%s\n", d.HostName, d.MQTT, d.AMQP, d.HTTPS)
	if d.Admin != "" {
		fmt.Fprintf(t, "admin\thttp://%s\n", d.Admin)
	}
	if o.caOut != "" {
		fmt.Fprintf(t, "CA\t%s\n", o.caOut)
	} else {
		fmt.Fprintf(t, "CA\tclients cannot trust this hub: --ca-out FILE writes its certificate\n")
	}
	for _, where := range []string{o.connectionsOut, o.keysDir} {
		if where != "" {
			fmt.Fprintf(t, "connection strings\t%s\n", where)
		}
	}
	if o.connectionsOut != "" || o.keysDir != "" {
		return
	}
	fmt.Fprintln(t, "\nKeys of this throw-away hub: new at each start, good for nothing else.")
	for _, c := range append(d.Services, d.Devices...) {
		fmt.Fprintf(t, "%s\t%s\n", c.Name, c.ConnectionString)
	}
}

// writeKeys makes a file of each connection string, as settings such as
// RELAY_HUB_CONNECTION_STRING_FILE want it.
func (d description) writeKeys(dir string) error {
	files := make(map[string]string)
	for _, c := range d.Services {
		files[filepath.Join("policies", c.Name)] = c.ConnectionString
	}
	for _, c := range d.Devices {
		kind := "devices"
		if strings.Contains(c.Name, "/") {
			kind = "modules"
		}
		files[filepath.Join(kind, filepath.FromSlash(c.Name))] = c.ConnectionString
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := writeFile(name, []byte(text+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// printEvents prints telemetry until ctx ends.
func printEvents(ctx context.Context, hub *emulator.Hub, w io.Writer) {
	enc := json.NewEncoder(w)
	hub.FollowEvents(ctx, func(e emulator.Event) bool { return enc.Encode(e) == nil })
}

// writeFile replaces a file in one step: who waits for it to be there reads all
// of it.
func writeFile(name string, b []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%d", filepath.Base(name), time.Now().UnixNano())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
