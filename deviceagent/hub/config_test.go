package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler/sas"
)

func TestFromConnectionString(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Config
		addr       string // that is dialled
		server     string // whose certificate is asked for
	}{
		{"device", "HostName=hub.azure-devices.net;DeviceId=pump-7;SharedAccessKey=" + key,
			Config{HostName: "hub.azure-devices.net", DeviceID: device, Key: key}, "hub.azure-devices.net:8883", "hub.azure-devices.net"},
		{"module", "HostName=hub.azure-devices.net;DeviceId=pump-7;ModuleId=bridge;SharedAccessKey=" + key,
			Config{HostName: "hub.azure-devices.net", DeviceID: device, ModuleID: "bridge", Key: key}, "hub.azure-devices.net:8883", "hub.azure-devices.net"},
		{"certificate", "HostName=h;DeviceId=d;x509=true", Config{HostName: "h", DeviceID: "d"}, "h:8883", "h"},
		{"a policy's key", "HostName=h;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey=" + key, Config{HostName: "h", DeviceID: "d", Key: key, KeyName: "device"}, "h:8883", "h"},
		{"a port", "HostName=h:18883;DeviceId=d;SharedAccessKey=" + key, Config{HostName: "h", DeviceID: "d", Key: key, Addr: "h:18883"}, "h:18883", "h"},
		{"a gateway", "HostName=h;GatewayHostName=edge;DeviceId=d;SharedAccessKey=" + key,
			Config{HostName: "h", GatewayHostName: "edge", DeviceID: "d", Key: key}, "edge:8883", "edge"},
		{"a gateway's port", "HostName=h:1;GatewayHostName=edge:2;DeviceId=d;SharedAccessKey=" + key,
			Config{HostName: "h", GatewayHostName: "edge", DeviceID: "d", Key: key, Addr: "edge:2"}, "edge:2", "edge"},
		{"a gateway instead of the hub's port", "HostName=h:1;GatewayHostName=edge;DeviceId=d;SharedAccessKey=" + key,
			Config{HostName: "h", GatewayHostName: "edge", DeviceID: "d", Key: key}, "edge:8883", "edge"},
	} {
		got, err := FromConnectionString(tt.text)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		if full := got.withDefaults(); full.Addr != tt.addr || full.tlsConfig().ServerName != tt.server {
			t.Errorf("%s: dials %s and asks for %s", tt.name, full.Addr, full.tlsConfig().ServerName)
		}
	}
	for text, want := range map[string]string{
		"HostName=h;SharedAccessKeyName=service;SharedAccessKey=" + key: "is a service's; take the device's, or a module's",
		"HostName=h;DeviceId=d;SharedAccessKey=" + key + "!":            "not base64",
		"HostName=h;DeviceId=d":                                         "no SharedAccessKey",
		"":                                                              "no HostName",
	} {
		if _, err := FromConnectionString(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), key) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	token := func(context.Context) (string, time.Time, error) { return "", time.Time{}, nil }
	all := Config{
		HostName: "https://h", GatewayHostName: "g:1", Addr: "h", DeviceID: "a/b", ModuleID: "ä", Key: "secret!", KeepAlive: 1500 * time.Millisecond,
		TokenLife: time.Millisecond, ConnectTimeout: -1, SubscribeTimeout: -1, RetryFirst: -1, RetryMost: -1, RetryRefused: -1,
	}
	err := all.Validate()
	for _, want := range []string{
		`HostName: "https://h" is not a name alone, as hub.azure-devices.net`, `GatewayHostName: "g:1"`, `Addr: "h" is not a host and port`, "DeviceID: has '/'", "ModuleID: has 'ä'",
		"Key: is not base64", "KeepAlive: 1.5s is not whole seconds from 1s to 19m37s", "TokenLife: 1ms", "ConnectTimeout: -1ns", "SubscribeTimeout: -1ns", "RetryFirst: -1ns", "RetryMost: -1ns", "RetryRefused: -1ns",
	} {
		if err == nil || strings.Count(err.Error(), want) != 1 {
			t.Errorf("%q is not once in:\n%v", want, err)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "secret!") || strings.Count(err.Error(), "\n") != 12) {
		t.Errorf("got\n%v", err)
	}
	good := Config{HostName: "h", DeviceID: "d", Key: key}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"good", func(*Config) {}, ""},
		{"every character", func(c *Config) { c.DeviceID = "aA9-.+%_#*?!(),:=@$'" }, ""},
		{"no host", func(c *Config) { c.HostName = "" }, "HostName: is missing"},
		{"no device", func(c *Config) { c.DeviceID = "" }, "DeviceID: is missing"},
		{"a long name", func(c *Config) { c.DeviceID = strings.Repeat("x", 129) }, "DeviceID: has 129 bytes; IoT Hub allows 128"},
		{"nothing to show", func(c *Config) { c.Key = "" }, "Key: is missing; it, or Token, or Certificate"},
		{"two things to show", func(c *Config) { c.Token = token }, "Key: only one of"},
		{"no certificate in it", func(c *Config) { c.Key, c.Certificate = "", &tls.Certificate{} }, "Certificate: is empty"},
		{"a long keep-alive", func(c *Config) { c.KeepAlive = MaxKeepAlive + time.Second }, "KeepAlive: 19m38s"},
	} {
		c := good
		tt.change(&c)
		_, err := New(c)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "hub: "+tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// An ID with characters that mean something elsewhere stays one ID.
func TestOddID(t *testing.T) {
	c := Config{HostName: "h", DeviceID: "a+b#c%2f$", Key: key}.withDefaults()
	if got, want := c.filters()[1].topic, "devices/a%2Bb%23c%252f%24/messages/devicebound/#"; got != want {
		t.Errorf("subscribes to %s, want %s", got, want)
	}
	if !strings.HasPrefix(c.username(), "h/a+b#c%2f$/?") || c.clientID() != "a+b#c%2f$" {
		t.Errorf("is %s, %s", c.username(), c.clientID())
	}
	text, _, err := c.password(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if token, err := sas.ParseToken(text); err != nil || !token.Covers("h/devices/a+b#c%2f$") || token.Policy != "" {
		t.Errorf("%v, %v", token, err)
	}
}

// A certificate is shown whatever authorities the hub lists, and one that is over
// is told about here, since the hub does not.
func TestCertificate(t *testing.T) {
	cert := serverTLS.Certificates[0]
	c := Config{HostName: "h", DeviceID: "d", Certificate: &cert, TLS: &tls.Config{ServerName: "other"}}.withDefaults()
	if text, expires, err := c.password(t.Context(), time.Now()); text != "" || !expires.IsZero() || err != nil {
		t.Errorf("password %q until %v, %v", text, expires, err)
	}
	cfg := c.tlsConfig()
	if got, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{AcceptableCAs: [][]byte{{1}}}); got != &cert || err != nil || cfg.ServerName != "other" {
		t.Errorf("shows %v, %v, to %s", got, err, cfg.ServerName)
	}
	for want, leaf := range map[string]x509.Certificate{
		"this device's certificate expired on 2020-02-03, or its clock is wrong":  {NotAfter: time.Date(2020, 2, 3, 0, 0, 0, 0, time.UTC)},
		"this device's certificate is valid from 2200-01-01T00:00:00Z on, and it": {NotAfter: time.Date(2201, 1, 1, 0, 0, 0, 0, time.UTC), NotBefore: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)},
		"<nil>": {NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		cert.Leaf = &leaf
		if got := fmt.Sprint(c.checkCertificate(time.Now())); !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestBlocked(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, true},
		{fmt.Errorf("dial h:8883: %w", errConnectTimeout), true},
		{fmt.Errorf("through proxy p: the proxy answered 403 Forbidden"), true},
		{fmt.Errorf("dial h:8883: %w", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), false},
		{fmt.Errorf("dial h:8883: %w", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}), false},
	} {
		if got := blocked(tt.err); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}
