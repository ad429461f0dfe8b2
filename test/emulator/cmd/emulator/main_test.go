package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }

// A output is what a running emulator prints.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// wait returns the output once it matches.
func (o *output) wait(t *testing.T, pattern string) []string {
	t.Helper()
	re, end := regexp.MustCompile(pattern), time.After(30*time.Second)
	for {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m
		}
		select {
		case <-o.changed:
		case <-end:
			t.Fatalf("no %s in\n%s", pattern, o)
		}
	}
}

// start runs the command on free ports until the test ends or stop is called,
// which returns the exit code.
func start(t *testing.T, args ...string) (out, errOut *output, stop func() int) {
	t.Helper()
	out, errOut = newOutput(), newOutput()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"--mqtt-port", "0", "--amqp-port", "0", "--https-port", "0"}, args...), out, errOut)
	}()
	stop = sync.OnceValue(func() int {
		cancel()
		select {
		case code := <-done:
			return code
		case <-time.After(30 * time.Second):
			t.Error("it does not end")
			return -1
		}
	})
	t.Cleanup(func() { stop() })
	return out, errOut, stop
}

func TestPrints(t *testing.T) {
	out, errOut, stop := start(t, "--device", "pump-7", "--device", "pump-8/bridge", "--admin", "127.0.0.1:0")
	m := out.wait(t, `(?s)HTTPS +(\S+)\nadmin +http://(\S+)\n.*throw-away.*\nservice +(\S+)\n.*\npump-7 +(\S+)\npump-8 +\S+\npump-8/bridge +(\S+)\n`)
	if c, err := sas.ParseConnectionString(m[5]); err != nil || c.DeviceID != "pump-8" || c.ModuleID != "bridge" || c.HostName != "localhost" {
		t.Errorf("%v, %v", c, err)
	}
	if !strings.Contains(out.String(), "--ca-out") {
		t.Errorf("without --ca-out it does not say so:\n%s", out)
	}
	resp, err := http.Get("http://" + m[2] + "/devices")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if code := stop(); code != exitOK || errOut.String() != "" {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
}

func TestKeysDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	out, _, stop := start(t, "--device", "pump-7", "--device", "pump-7/bridge", "--keys-dir", dir)
	out.wait(t, `connection strings +`+regexp.QuoteMeta(dir))
	for name, want := range map[string]string{
		"policies/service": "localhost", "devices/pump-7": "localhost/devices/pump-7", "modules/pump-7/bridge": "localhost/devices/pump-7/modules/bridge",
	} {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := sas.ParseConnectionString(string(b)); err != nil || c.Resource() != want {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if strings.Contains(out.String(), "SharedAccessKey") {
		t.Errorf("keys are printed:\n%s", out)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	ca, connections, devices := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "hub.json"), filepath.Join(dir, "devices.json")
	const key = "c2VjcmV0LWtleS1vZi0zMi1ieXRlcy0wMDAwMDAwMDA="
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(devices, `[{"id":"pump-7","primaryKey":"`+key+`","modules":[{"id":"m"}]},{"id":"old","disabled":true},{"id":"cert","thumbprints":["`+strings.Repeat("ab", 32)+`"]}]`)
	write(connections, "old")
	out, _, stop := start(t, "--ca-out", ca, "--connections-out", connections, "--devices-file", devices, "--device", "pump-7/bridge",
		"--hostname", "hub.example", "--faults", `{"rest":{"error":"unavailable"}}`)
	out.wait(t, `connection strings +`)
	if strings.Contains(out.String(), key) || strings.Contains(out.String(), "SharedAccessKey=") {
		t.Errorf("it prints keys although they are in a file:\n%s", out)
	}
	info, err := os.Stat(connections)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	var d description
	b, _ := os.ReadFile(connections)
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range d.Devices {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "cert old pump-7 pump-7/bridge pump-7/m" || d.Devices[2].ConnectionString != "HostName=hub.example;DeviceId=pump-7;SharedAccessKey="+key {
		t.Errorf("devices %s", got)
	}
	if d.Devices[0].ConnectionString != "HostName=hub.example;DeviceId=cert;x509=true" {
		t.Errorf("cert: %s", d.Devices[0].ConnectionString)
	}
	pem, _ := os.ReadFile(ca)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) || string(pem) != d.CA {
		t.Error("the CA's files differ")
	}
	c, err := tls.Dial("tcp", d.HTTPS, &tls.Config{RootCAs: pool, ServerName: "hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestWrongFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	file := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(file, []byte(`[{"id":"a","key":"c2VjcmV0"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--port", "1"}, exitUsage, "unknown flag: --port"},
		{[]string{"serve"}, exitUsage, `unknown command "serve"`},
		{[]string{"--listen", "localhost"}, exitUsage, `"localhost" is not an IP address`},
		{[]string{"--mqtt-port", "70000"}, exitUsage, "70000 is no port"},
		{[]string{"--tier", "S9"}, exitUsage, "--tier"},
		{[]string{"--units", "300"}, exitFailed, "Units is 300"},
		{[]string{"--faults", `{"x":1}`}, exitUsage, `unknown field "x"`},
		{[]string{"--faults", "@/nowhere"}, exitUsage, "/nowhere"},
		{[]string{"--device", "/m"}, exitUsage, "neither ID nor ID/module"},
		{[]string{"--device", "a/m", "--device", "a/m"}, exitUsage, "a/m is there twice"},
		{[]string{"--device", "a b"}, exitFailed, "no device ID"},
		{[]string{"--devices-file", "/nowhere"}, exitUsage, "/nowhere"},
		{[]string{"--devices-file", file}, exitUsage, `unknown field "key"`},
		{[]string{"--admin", "0.0.0.0:1"}, exitFailed, "not a loopback address"},
		{[]string{"--amqp-port", port}, exitFailed, "hint: another program listens there; end it, or choose --amqp-port 0"},
		{[]string{"--listen", "192.0.2.1"}, exitFailed, "an address of this machine"},
		{[]string{"--ca-out", "/nowhere/ca.pem"}, exitFailed, "--ca-out: open"},
		{[]string{"--connections-out", "/nowhere/hub.json"}, exitFailed, "--connections-out: open"},
	} {
		_, errOut, stop := start(t, tt.args...)
		errOut.wait(t, "emulator: ")
		if code := stop(); code != tt.code || !strings.Contains(errOut.String(), tt.want) || strings.Contains(errOut.String(), "c2VjcmV0") {
			t.Errorf("%v: exit code %d\n%s", tt.args, code, errOut)
		}
	}
}

func TestNoRightForPort(t *testing.T) {
	err := options{}.explain(&emulator.ListenError{What: "HTTPS", Field: "HTTPSAddr", Addr: "127.0.0.1:443", Err: syscall.EACCES})
	for _, want := range []string{"permission denied", "127.0.0.1:443 is a port of root's", "setcap", "--https-port 8443", "Node SDKs need 443"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func TestHelp(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &out, &errOut); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"NODE_EXTRA_CA_CERTS", "--devices-file", "CAP_NET_BIND_SERVICE", "Exit codes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help has no %s", want)
		}
	}
}

// Telemetry is printed as lines of JSON.
func TestPrintsEvents(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.json")
	out, _, _ := start(t, "--device", "pump-7", "--connections-out", file, "--print-events")
	out.wait(t, "connection strings")
	var d description
	b, _ := os.ReadFile(file)
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	c, err := sas.ParseConnectionString(d.Devices[0].ConnectionString)
	if err != nil {
		t.Fatal(err)
	}
	password, err := sas.Sign(c.Resource(), "", c.Key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(d.CA))
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tls://" + d.MQTT).SetClientID("pump-7").SetProtocolVersion(4).
		SetUsername("localhost/pump-7/?api-version=2021-04-12").SetPassword(password).
		SetTLSConfig(&tls.Config{RootCAs: pool, ServerName: "localhost"}).SetAutoReconnect(false))
	if k := client.Connect(); !k.WaitTimeout(30*time.Second) || k.Error() != nil {
		t.Fatalf("connect: %v", k.Error())
	}
	defer client.Disconnect(0)
	if k := client.Publish("devices/pump-7/messages/events/unit=C", 1, false, "21.5"); !k.WaitTimeout(30*time.Second) || k.Error() != nil {
		t.Fatalf("publish: %v", k.Error())
	}
	out.wait(t, `\{"seq":1,"time":"[^"]+","deviceId":"pump-7","properties":\{"unit":"C"\},"body":"21.5"\}\n`)
}

// What the help shows of faults is right, and complete.
func TestHelpOnFaults(t *testing.T) {
	var all []byte
	for line := range strings.Lines(faultLines) {
		end := strings.LastIndex(line, "}") + 1
		if cut := strings.Index(line, "}  "); cut >= 0 {
			end = cut + 1
		}
		text := []byte(strings.TrimSpace(line[:end]))
		if _, err := emulator.ParseFaults(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		all = append(all, line...)
	}
	var walk func(s reflect.Type)
	walk = func(s reflect.Type) {
		for f := range s.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && !bytes.Contains(all, []byte(name)) {
				t.Errorf("the help does not know %s", name)
			}
			if f.Type.Kind() == reflect.Struct && !f.Anonymous {
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[emulator.Faults]())
	for _, m := range regexp.MustCompile(`-d '([^']+)'`).FindAllStringSubmatch(example, -1) {
		if _, err := emulator.ParseFaults([]byte(m[1])); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
}
