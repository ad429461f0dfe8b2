package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

const (
	hubKey      = "aHViLWtleS1odWIta2V5LWh1Yi1rZXktaHViLWtleS0="
	serviceOf   = "HostName=hub.example.com;SharedAccessKeyName=service;SharedAccessKey=" + hubKey
	hunter2     = "hunter2-is-the-client-secret"
	aDevicesKey = "HostName=hub.example.com;DeviceId=pump-7;SharedAccessKey=" + hubKey
)

// Every wrong combination of a hub's settings, by the variables' names. {} stands for
// RELAY_HUB_.
func TestHubFaults(t *testing.T) {
	dir := t.TempDir()
	junk, pfx := filepath.Join(dir, "junk"), filepath.Join(dir, "pfx")
	os.WriteFile(junk, []byte("junk"), 0o600)
	os.WriteFile(pfx, []byte{0x30, 0x82, 1, 2, 3}, 0o600)
	for _, tt := range []struct {
		name, env string
		want      []string
	}{
		{"nothing", "", []string{"{}CONNECTION_STRING: is missing; the portal"}},
		{"a connection string", "{}CONNECTION_STRING=" + serviceOf, nil},
		{"said twice", "{}CONNECTION_STRING=" + serviceOf + " {}CREDENTIAL=connection-string", nil},
		{"half a one", "{}CONNECTION_STRING=HostName=hub.example.com;SharedAccessKeyName=service;SharedAccessKey=" + hubKey[:9], []string{"{}CONNECTION_STRING: connection string: has a SharedAccessKey that is not base64"}},
		{"a device's", "{}CONNECTION_STRING=" + aDevicesKey, []string{"{}CONNECTION_STRING: the connection string is a device's; a service needs one with a SharedAccessKeyName"}},
		{"a policy without the right", "{}CONNECTION_STRING=" + strings.Replace(serviceOf, "=service", "=registryRead", 1), []string{"{}CONNECTION_STRING: the policy registryRead has no ServiceConnect"}},
		{"and a host", "{}CONNECTION_STRING=" + serviceOf + " {}HOST=hub.example.com", []string{"{}HOST: is set, but the connection string names the hub"}},
		{"and an identity", "{}CONNECTION_STRING=" + serviceOf + " {}CREDENTIAL=managed-identity {}HOST=hub.example.com", []string{"{}CONNECTION_STRING: is set, but RELAY_HUB_CREDENTIAL is managed-identity"}},
		{"and a secret", "{}CONNECTION_STRING=" + serviceOf + " {}CLIENT_SECRET=" + hunter2 + " {}TENANT_ID=t", []string{"{}TENANT_ID: is set, but a connection string", "{}CLIENT_SECRET: is set, but a connection string"}},
		{"a file that is not there", "{}CONNECTION_STRING_FILE=" + dir + "/none", []string{"{}CONNECTION_STRING_FILE: open"}},
		{"a connection string is wanted", "{}CREDENTIAL=connection-string {}HOST=hub.example.com", []string{"{}CONNECTION_STRING: is missing; RELAY_HUB_CREDENTIAL=connection-string needs it", "{}HOST: is set, but"}},

		{"a managed identity", "{}HOST=hub.example.com {}CREDENTIAL=managed-identity", nil},
		{"a host alone", "{}HOST=hub.example.com", []string{"{}CREDENTIAL: is missing; one of connection-string, managed-identity, workload-identity, client-secret, client-certificate, azure-cli"}},
		{"no host", "{}CREDENTIAL=managed-identity", []string{"{}HOST: is missing"}},
		{"a URL", "{}CREDENTIAL=managed-identity {}HOST=https://hub.example.com", []string{`{}HOST: "https://hub.example.com" is not a hub's name`}},
		{"an unknown one", "{}HOST=hub.example.com {}CREDENTIAL=default", []string{`{}CREDENTIAL: "default" is not one of`}},
		{"a secret", "{}HOST=hub.example.com {}CREDENTIAL=client-secret {}TENANT_ID=t {}CLIENT_ID=c {}CLIENT_SECRET=" + hunter2, nil},
		{"a secret is missing", "{}HOST=hub.example.com {}CREDENTIAL=client-secret", []string{"{}TENANT_ID: is missing", "{}CLIENT_ID: is missing", "{}CLIENT_SECRET: is missing"}},
		{"of another kind", "{}HOST=hub.example.com {}CREDENTIAL=managed-identity {}CLIENT_SECRET=" + hunter2, []string{"{}CLIENT_SECRET: is set, but managed-identity has no use for it"}},
		{"no certificate", "{}HOST=hub.example.com {}CREDENTIAL=client-certificate {}TENANT_ID=t {}CLIENT_ID=c {}CLIENT_CERTIFICATE=" + junk, []string{"{}CLIENT_CERTIFICATE: " + junk}},
		{"no PFX", "{}HOST=hub.example.com {}CREDENTIAL=client-certificate {}TENANT_ID=t {}CLIENT_ID=c {}CLIENT_CERTIFICATE=" + pfx + " {}CLIENT_CERTIFICATE_PASSWORD=" + hunter2, []string{"{}CLIENT_CERTIFICATE: " + pfx}},
		{"a workload without a pod", "{}HOST=hub.example.com {}CREDENTIAL=workload-identity", []string{"{}TENANT_ID: is missing", "{}CLIENT_ID: is missing", "{}FEDERATED_TOKEN: is missing"}},
		{"no authority", "{}HOST=hub.example.com {}CREDENTIAL=client-secret {}TENANT_ID=t {}CLIENT_ID=c {}CLIENT_SECRET=" + hunter2 + " {}AUTHORITY=login.example", []string{`{}AUTHORITY: "login.example" is not a URL`}},

		{"the Basic tier", "{}CONNECTION_STRING=" + serviceOf + " {}TIER=B2", []string{"{}TIER: B2 is the Basic tier, which has neither"}},
		{"no tier", "{}CONNECTION_STRING=" + serviceOf + " {}TIER=S9", []string{`{}TIER: tier "S9" is not one of`}},
		{"too many units", "{}CONNECTION_STRING=" + serviceOf + " {}TIER=F1 {}UNITS=2", []string{"{}UNITS: a hub of tier F1 has 1 to 1 units, not 2"}},
		{"a negative rate", "RELAY_SIGNALER=method {}CONNECTION_STRING=" + serviceOf + " {}RATE=-1", []string{"{}RATE: -1 is negative"}},
		{"no CA", "{}CONNECTION_STRING=" + serviceOf + " {}CA_FILE=" + junk, []string{"{}CA_FILE: " + junk + " holds no PEM certificate"}},
		{"no port", "RELAY_SIGNALER=auto {}CONNECTION_STRING=" + serviceOf + " {}AMQP_ADDR=gateway {}HTTPS_ADDR=:443", []string{`{}AMQP_ADDR: "gateway"`, `{}HTTPS_ADDR: ":443"`}},
		{"no module", "RELAY_SIGNALER=method {}CONNECTION_STRING=" + serviceOf + " {}MODULE=a/b", []string{"{}MODULE: has '/'"}},

		{"of no use for messages", "{}CONNECTION_STRING=" + serviceOf + " {}MODULE=bridge {}HTTPS_ADDR=x:1 {}RATE=3", []string{"{}MODULE: is of no use with RELAY_SIGNALER=c2d; it is for method, auto", "{}RATE: is of no use", "{}HTTPS_ADDR: is of no use"}},
		{"of no use for methods", "RELAY_SIGNALER=method {}CONNECTION_STRING=" + serviceOf + " {}WEBSOCKET=true {}FEEDBACK=false {}AMQP_ADDR=x:1", []string{"{}WEBSOCKET: is of no use with RELAY_SIGNALER=method; it is for c2d, auto", "{}FEEDBACK: is of no use", "{}AMQP_ADDR: is of no use"}},
		{"of no use without a hub", "RELAY_SIGNALER=fake {}CONNECTION_STRING_FILE=" + junk + " {}TIER=S1", []string{"{}CONNECTION_STRING: is of no use with RELAY_SIGNALER=fake; it is for c2d, method, auto", "{}TIER: is of no use"}},
		{"of no use with a hub", "{}CONNECTION_STRING=" + serviceOf + " RELAY_FAKE_LISTEN=127.0.0.1:0 RELAY_FAKE_DEVICES=pump-7", []string{"RELAY_FAKE_LISTEN: is of no use with RELAY_SIGNALER=c2d; it is for fake", "RELAY_FAKE_DEVICES: is of no use"}},
		{"everything at once", "RELAY_SIGNALER=auto {}CREDENTIAL=client-secret {}TIER=B1 {}CA_FILE=" + junk + " {}AMQP_ADDR=x {}RATE=fast", []string{"{}RATE: \"fast\"", "{}HOST: is missing", "{}TENANT_ID: is missing", "{}CLIENT_ID: is missing", "{}CLIENT_SECRET: is missing", "{}CA_FILE: ", "{}AMQP_ADDR: ", "{}TIER: B1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "AZURE_TENANT_ID": "", "AZURE_CLIENT_ID": "", "AZURE_FEDERATED_TOKEN_FILE": ""}
			for _, pair := range strings.Fields(strings.ReplaceAll(tt.env, "{}", "RELAY_HUB_")) {
				name, value, _ := strings.Cut(pair, "=")
				env[name] = value
			}
			setenv(t, env)
			_, _, err := load(io.Discard)
			text := ""
			if err != nil {
				text = err.Error()
			}
			n := strings.Count(text, "\n  RELAY_")
			if n == 0 && text != "" {
				n = 1
			}
			if n != len(tt.want) {
				t.Errorf("%d faults, want %d", n, len(tt.want))
			}
			for _, want := range tt.want {
				if want = strings.ReplaceAll(want, "{}", "RELAY_HUB_"); strings.Count(text, want) != 1 {
					t.Errorf("%q is not there once", want)
				}
			}
			if strings.Contains(text, hunter2) || strings.Contains(text, hubKey[:9]) {
				t.Error("a secret is quoted")
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

// A gateway is dialled where nothing else is said; the hub's name stays.
func TestGateway(t *testing.T) {
	for _, tt := range []struct{ env, amqp, https string }{
		{"", "gateway.example:5671", "gateway.example:443"},
		{"RELAY_HUB_WEBSOCKET=true", "gateway.example:443", "gateway.example:443"},
		{"RELAY_HUB_AMQP_ADDR=a:1 RELAY_HUB_HTTPS_ADDR=b:2", "a:1", "b:2"},
	} {
		env := map[string]string{"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "auto", "RELAY_HUB_CONNECTION_STRING": serviceOf + ";GatewayHostName=gateway.example"}
		for _, pair := range strings.Fields(tt.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		setenv(t, env)
		_, p, err := load(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if p.hub.name != "hub.example.com" || p.hub.amqpAddr != tt.amqp || p.hub.httpsAddr != tt.https || p.hub.rate != 32 {
			t.Errorf("%s: %+v", tt.env, p.hub)
		}
	}
}

// hubRelay is a relay with a hub, which run starts with its defaults but for env.
func hubRelay(t *testing.T, env map[string]string) (url string, log *lines) {
	t.Helper()
	all := map[string]string{"RELAY_LISTEN": "127.0.0.1:0", "RELAY_ADMIN_LISTEN": "", "RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_LOG_LEVEL": "debug"}
	for name, value := range env {
		all[name] = value
	}
	setenv(t, all)
	log = &lines{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, nil, nil, io.Discard, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, secret := range []string{hubKey, "SharedAccessSignature", "bridgeToken"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%s is in the log:\n%s", secret, log.String())
			}
		}
	})
	return log.wait(t, `msg="relay listens".* url=(\S+) signaler=\w+ hub=hub.example.com`)[1], log
}

// ask makes a request that the relay answers without a bridge.
func ask(t *testing.T, url string) wire.Problem {
	t.Helper()
	req, _ := http.NewRequest("GET", strings.Replace(url, "ws", "http", 1)+wire.PathConnect+"?deviceId=pump-7", nil)
	for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p wire.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// The relay calls the module's method at the address that it was given, trusts the CA
// that it was given, and passes the device's words on.
func TestServeMethod(t *testing.T) {
	cert, key, ca := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Payload json.RawMessage }
		json.NewDecoder(r.Body).Decode(&in)
		s, err := signaler.Parse(in.Payload)
		if err != nil || s.DeviceID != "pump-7" || r.Host != "hub.example.com" || r.URL.Path != "/twins/pump-7/modules/bridge/methods" ||
			!strings.HasPrefix(r.Header.Get("Authorization"), "SharedAccessSignature sr=hub.example.com&") {
			t.Errorf("%s %s: %v, %v", r.Host, r.URL, s, err)
		}
		io.WriteString(w, `{"status":409,"payload":{"code":"busy","message":"the pump is being cleaned"}}`)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	defer srv.Close()
	url, log := hubRelay(t, map[string]string{
		"RELAY_SIGNALER": "method", "RELAY_HUB_CONNECTION_STRING": serviceOf, "RELAY_HUB_MODULE": "bridge",
		"RELAY_HUB_HTTPS_ADDR": srv.Listener.Addr().String(), "RELAY_HUB_CA_FILE": ca,
	})
	if p := ask(t, url); p.Code != wire.DeviceRefused || !strings.Contains(p.Detail, "busy: the pump is being cleaned") {
		t.Errorf("got %+v", p)
	}
	log.wait(t, `msg=signal device=pump-7 bridge=\S+ .*busy: the pump is being cleaned`)
}

// A hub that cannot be reached is no reason not to start: the log says so, and so does
// the answer to a requester.
func TestServeWithoutHub(t *testing.T) {
	gone := httptest.NewServer(nil)
	addr := gone.Listener.Addr().String()
	gone.Close()
	for via, env := range map[string]map[string]string{
		viaMethod: {"RELAY_HUB_HTTPS_ADDR": addr}, viaC2D: {"RELAY_HUB_AMQP_ADDR": addr, "RELAY_HUB_FEEDBACK": "true", "RELAY_DIAL_BACK": "2s"},
		viaAuto: {"RELAY_HUB_HTTPS_ADDR": addr, "RELAY_HUB_AMQP_ADDR": addr},
	} {
		t.Run(via, func(t *testing.T) {
			env["RELAY_SIGNALER"], env["RELAY_HUB_CONNECTION_STRING"] = via, strings.Replace(serviceOf, "=service", "=iothubowner", 1)
			url, log := hubRelay(t, env)
			log.wait(t, "iothubowner, which may do everything; the policy service is enough")
			if p := ask(t, url); p.Code != wire.HubFailed && !(via == viaC2D && p.Code == wire.DialBackTimeout) {
				t.Errorf("got %+v", p)
			}
		})
	}
}
