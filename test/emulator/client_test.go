package emulator

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/amenzhinsky/iothub/iotdevice"
	iotmqtt "github.com/amenzhinsky/iothub/iotdevice/transport/mqtt"
	"github.com/amenzhinsky/iothub/iotservice"
	"github.com/amenzhinsky/iothub/logger"
	mqttclient "github.com/eclipse/paho.mqtt.golang"
)

// refusedWith says whether an error is REST's answer with a status.
func refusedWith(err error, status int) bool {
	e, ok := errors.AsType[*iotservice.RequestError](err)
	return ok && e.Code == status
}

// The REST client of amenzhinsky/iothub, unchanged.
func TestServiceLibraryREST(t *testing.T) {
	l := serveHub(t, Config{})
	quiet := logger.New(logger.LevelOff, func(logger.Level, string) {})
	svc, err := iotservice.NewFromConnectionString(l.ServiceConnectionString("iothubowner"), iotservice.WithHTTPClient(l.client), iotservice.WithLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	ctx := t.Context()

	const id = "pump@7%(1)"
	d, err := svc.CreateDevice(ctx, &iotservice.Device{DeviceID: id, Status: iotservice.Enabled})
	if err != nil || d.Authentication.Type != iotservice.AuthSAS || !goodKey(d.Authentication.SymmetricKey.PrimaryKey) {
		t.Fatalf("create: %+v, %v", d, err)
	}
	if _, err := svc.CreateDevice(ctx, &iotservice.Device{DeviceID: id}); !refusedWith(err, http.StatusConflict) {
		t.Errorf("create again: %v", err)
	}
	d.Status, d.StatusReason = iotservice.Disabled, "maintenance"
	updated, err := svc.UpdateDevice(ctx, d)
	if err != nil || updated.Status != iotservice.Disabled || updated.ETag == d.ETag || updated.Authentication.SymmetricKey.PrimaryKey != d.Authentication.SymmetricKey.PrimaryKey {
		t.Fatalf("update: %+v, %v", updated, err)
	}
	if _, err := svc.UpdateDevice(ctx, d); !refusedWith(err, http.StatusPreconditionFailed) {
		t.Errorf("update with an old etag: %v", err)
	}
	updated.Status = iotservice.Enabled
	if d, err = svc.UpdateDevice(ctx, updated); err != nil {
		t.Fatal(err)
	}
	m, err := svc.CreateModule(ctx, &iotservice.Module{DeviceID: id, ModuleID: "bridge"})
	if err != nil || m.Authentication.SymmetricKey.PrimaryKey == "" {
		t.Fatalf("create module: %+v, %v", m, err)
	}
	if all, err := svc.ListModules(ctx, id); err != nil || len(all) != 1 {
		t.Errorf("modules: %v, %v", all, err)
	}
	if all, err := svc.ListDevices(ctx); err != nil || len(all) != 3 {
		t.Errorf("devices: %v, %v", all, err)
	}
	twin, err := svc.UpdateDeviceTwin(ctx, &iotservice.Twin{DeviceID: id, Tags: map[string]any{"site": "north"}, Properties: &iotservice.Properties{Desired: map[string]any{"rate": 3}}})
	if err != nil || twin.Tags["site"] != "north" || twin.Properties.Desired["rate"] != 3. {
		t.Errorf("twin: %+v, %v", twin, err)
	}
	if twin, err := svc.GetModuleTwin(ctx, id, "bridge"); err != nil || twin.ModuleID != "bridge" {
		t.Errorf("module twin: %+v, %v", twin, err)
	}
	var found []string
	if err := svc.QueryDevices(ctx, "SELECT * FROM devices WHERE tags.site = 'north'", func(v map[string]any) error {
		found = append(found, fmt.Sprint(v["deviceId"]))
		return nil
	}); err != nil || !slices.Equal(found, []string{id}) {
		t.Errorf("query: %v, %v", found, err)
	}
	if s, err := svc.DeviceStats(ctx); err != nil || s.TotalDeviceCount != 3 || s.EnabledDeviceCount != 3 {
		t.Errorf("statistics: %+v, %v", s, err)
	}
	if s, err := svc.ServiceStats(ctx); err != nil || s.ConnectedDeviceCount != 0 {
		t.Errorf("statistics: %+v, %v", s, err)
	}
	if r, err := svc.PurgeQueue(ctx, id); err != nil || r.TotalMessagesPurged != 0 {
		t.Errorf("purge: %+v, %v", r, err)
	}
	if _, err := svc.CallModuleMethod(ctx, id, "bridge", &iotservice.MethodCall{MethodName: "Bridge", ResponseTimeout: 5}); !refusedWith(err, http.StatusNotFound) {
		t.Errorf("method of an offline module: %v", err)
	}
	if err := svc.DeleteModule(ctx, m); err != nil {
		t.Error(err)
	}
	if err := svc.DeleteDevice(ctx, d); err != nil {
		t.Error(err)
	}
	if _, err := svc.GetDevice(ctx, id); !refusedWith(err, http.StatusNotFound) {
		t.Errorf("get a deleted device: %v", err)
	}
}

// A direct method from that library to its own device client, over MQTT.
func TestServiceLibraryMethod(t *testing.T) {
	l := serveHub(t, Config{})
	quiet := logger.New(logger.LevelOff, func(logger.Level, string) {})
	text, err := l.DeviceConnectionString("d")
	if err != nil {
		t.Fatal(err)
	}
	device, err := iotdevice.NewFromConnectionString(iotmqtt.New(
		iotmqtt.WithLogger(quiet),
		iotmqtt.WithClientOptionsConfig(func(o *mqttclient.ClientOptions) {
			o.Servers = []*url.URL{{Scheme: "tls", Host: l.MQTTAddr()}}
			o.SetTLSConfig(&tls.Config{RootCAs: l.RootCAs(), ServerName: l.HostName()}).SetOrderMatters(false).SetAutoReconnect(false)
		})), text, iotdevice.WithLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	ctx := t.Context()
	if err := device.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if err := device.RegisterMethod(ctx, "Bridge", func(p map[string]any) (int, map[string]any, error) {
		return 207, map[string]any{"you": p["say"]}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitListening(ctx, "d", "", ListenMethods); err != nil {
		t.Fatal(err)
	}
	svc, err := iotservice.NewFromConnectionString(l.ServiceConnectionString("service"), iotservice.WithHTTPClient(l.client), iotservice.WithLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	r, err := svc.CallDeviceMethod(ctx, "d", &iotservice.MethodCall{MethodName: "Bridge", Payload: map[string]any{"say": "hello"}})
	if err != nil || r.Status != 207 || r.Payload["you"] != "hello" {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := device.SendEvent(ctx, []byte("21.5"), iotdevice.WithSendProperty("unit", "C")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "telemetry", func() bool { return len(l.Events()) == 1 })
	if e := l.Events()[0]; string(e.Body) != "21.5" || e.Properties["unit"] != "C" || e.Device != "d" || time.Since(e.Time) > time.Minute {
		t.Errorf("telemetry %+v", e)
	}
}
