package hub_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/hub"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/test/emulator"
	"websocketbridge/test/netfault"
	"websocketbridge/test/process"
	"websocketbridge/test/process/processtest"
	"websocketbridge/test/testlog"
)

// build builds a program, and returns its path.
func build(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	if err := process.Build(t.Context(), dir, "websocketbridge/"+program); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, path.Base(program))
}

// relayProcess runs the program with a hub's settings until the test ends, and returns
// its URL. No secret may be in what it prints.
func (r *methodRig) relayProcess(t *testing.T, program string, env ...string) (url string, log *testlog.Buffer) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca.pem": r.hub.CAPEM(), "hub": []byte(r.hub.ServiceConnectionString("service") + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program)
	cmd.Env = append(env, "RELAY_LISTEN=127.0.0.1:0", "RELAY_ADMIN_LISTEN=", "RELAY_AUTH=none", "RELAY_PLAIN=true", "RELAY_LOG_LEVEL=debug",
		"RELAY_HUB_CONNECTION_STRING_FILE="+filepath.Join(dir, "hub"), "RELAY_HUB_CA_FILE="+filepath.Join(dir, "ca.pem"))
	p := processtest.Start(t, cmd, processtest.Config{Patience: townPatience})
	t.Cleanup(func() {
		if m := regexp.MustCompile(`SharedAccess\w*|bridgeToken|sig=`).FindString(p.String()); m != "" {
			t.Errorf("%s is in the log", m)
		}
	})
	p.Lasts(p.Terminate)
	log = &p.Out.Buffer
	return log.Wait(t, townPatience, `msg="relay listens".* url=(\S+) signaler=\w+ hub=\S+`)[1], log
}

// bridgeAgent runs an agent with the target echo.
func (r *methodRig) bridgeAgent(t *testing.T, device, module string) {
	t.Helper()
	text, err := r.hub.DeviceConnectionString(device)
	if module != "" {
		text, err = r.hub.ModuleConnectionString(device, module)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := hub.FromConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr, cfg.TLS, cfg.Proxy = r.hub.MQTTAddr(), r.tls, netfault.NoProxy
	src, err := hub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := deviceagent.ParseTargets([]string{"echo"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := deviceagent.New(deviceagent.Config{DeviceID: device, Source: src, RelayHosts: []string{"127.0.0.1"}, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, a.Run)
	r.listening(t, device, module, emulator.ListenMethods)
}

// The program reaches devices in each way that its settings name, and says what the
// hub says where it does not.
func TestRelayProcess(t *testing.T) {
	t.Parallel()
	r := newMethodRig(t, emulator.Config{Devices: []emulator.Device{
		{ID: "pump-7"}, {ID: "pump-8", Modules: []emulator.Module{{ID: "bridge"}}}, {ID: "off", Modules: []emulator.Module{{ID: "bridge"}}},
	}})
	r.bridgeAgent(t, "pump-7", "")
	r.bridgeAgent(t, "pump-8", "bridge")
	program := build(t, "relay/cmd/relay")
	amqp, https := "RELAY_HUB_AMQP_ADDR="+r.hub.AMQPAddr(), "RELAY_HUB_HTTPS_ADDR="+r.hub.HTTPSAddr()
	for _, tt := range []struct {
		name   string
		env    []string
		device string
		off    wire.Code // of a device that is off
	}{
		{"c2d", []string{amqp}, "pump-7", wire.DialBackTimeout},
		{"c2d over WebSocket", []string{"RELAY_HUB_AMQP_ADDR=" + r.hub.HTTPSAddr(), "RELAY_HUB_WEBSOCKET=true", "RELAY_HUB_FEEDBACK=true"}, "pump-7", wire.DialBackTimeout},
		{"method", []string{https}, "pump-7", wire.DeviceOffline},
		{"method in a module", []string{https, "RELAY_HUB_MODULE=bridge"}, "pump-8", wire.DeviceOffline},
		{"auto", []string{amqp, https}, "pump-7", wire.DialBackTimeout},
		{"auto in a module", []string{amqp, https, "RELAY_HUB_MODULE=bridge"}, "pump-8", wire.DialBackTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			via, _, _ := strings.Cut(tt.name, " ")
			url, log := r.relayProcess(t, program, append(tt.env, "RELAY_SIGNALER="+via, "RELAY_DIAL_BACK=5s")...)
			ctx, cancel := context.WithTimeout(t.Context(), townPatience)
			defer cancel()
			s, err := client.Dial(ctx, client.Config{URL: url}, client.Request{Device: tt.device, Targets: []string{"echo"}})
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			if slices.Contains(tt.env, "RELAY_HUB_FEEDBACK=true") {
				log.Wait(t, townPatience, `msg=feedback bridge=\S+ device=pump-7 status=Success`)
			}
			for device, want := range map[string]wire.Code{"off": tt.off, "none": wire.DeviceNotFound} {
				_, err := client.Dial(ctx, client.Config{URL: url}, client.Request{Device: device, Targets: []string{"echo"}})
				if e := (*client.Error)(nil); !errors.As(err, &e) || e.Code != want {
					t.Errorf("%s: got %v, want %s", device, err, want)
				}
			}
		})
	}
}
