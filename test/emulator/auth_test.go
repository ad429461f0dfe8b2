package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler/sas"
)

func TestCheckDevice(t *testing.T) {
	h, err := newHub(Config{HostName: "hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(d Device) Device {
		t.Helper()
		d, err := h.PutDevice(d)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := put(Device{ID: "d", Modules: []Module{{ID: "m"}}})
	other := put(Device{ID: "d2"})
	off := put(Device{ID: "off", Disabled: true, Modules: []Module{{ID: "m"}}})
	put(Device{ID: "cert", Thumbprints: []string{strings.Repeat("00", 20)}})
	odd := put(Device{ID: "a%2Fb@c'"})
	sign := func(resource, policy, key string, life time.Duration) string {
		t.Helper()
		s, err := sas.Sign(resource, policy, key, time.Now().Add(life))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tt := range []struct {
		name  string
		id    identity
		token string
		ok    bool
	}{
		{"device", dev, sign("hub.example/devices/d", "", d.PrimaryKey, time.Hour), true},
		{"its second key", dev, sign("hub.example/devices/d", "", d.SecondaryKey, time.Hour), true},
		{"for the whole hub, as amenzhinsky signs", dev, sign("hub.example", "", d.PrimaryKey, time.Hour), true},
		{"a host with a port", dev, sign("HUB.example:8883/devices/d", "", d.PrimaryKey, time.Hour), true},
		{"fields in another order, and unescaped", dev, func() string {
			text := sign("hub.example", "", d.PrimaryKey, time.Hour)
			fields := strings.Split(strings.TrimPrefix(text, "SharedAccessSignature "), "&")
			return "SharedAccessSignature " + fields[2] + "&" + fields[1] + "&" + fields[0]
		}(), true},
		{"an odd ID", identity{Device: "a%2Fb@c'"}, sign("hub.example/devices/a%2Fb@c'", "", odd.PrimaryKey, time.Hour), true},
		{"another device's resource", dev, sign("hub.example/devices/d2", "", d.PrimaryKey, time.Hour), false},
		{"half a segment", identity{Device: "d2"}, sign("hub.example/devices/d", "", other.PrimaryKey, time.Hour), false},
		{"another hub", dev, sign("hub2.example/devices/d", "", d.PrimaryKey, time.Hour), false},
		{"another device's key", dev, sign("hub.example/devices/d", "", other.PrimaryKey, time.Hour), false},
		{"expired", dev, sign("hub.example/devices/d", "", d.PrimaryKey, -time.Second), false},
		{"the ID in another case", identity{Device: "D"}, sign("hub.example/devices/D", "", d.PrimaryKey, time.Hour), false},
		{"module", mod, sign("hub.example/devices/d/modules/m", "", d.Modules[0].PrimaryKey, time.Hour), true},
		{"module with the device's key", mod, sign("hub.example/devices/d/modules/m", "", d.PrimaryKey, time.Hour), false},
		{"device with the module's key", dev, sign("hub.example/devices/d", "", d.Modules[0].PrimaryKey, time.Hour), false},
		{"policy device", dev, sign("hub.example", "device", h.policies["device"], time.Hour), true},
		{"policy iothubowner, for one device", mod, sign("hub.example/devices/d", "iothubowner", h.policies["iothubowner"], time.Hour), true},
		{"policy service", dev, sign("hub.example", "service", h.policies["service"], time.Hour), false},
		{"disabled", identity{Device: "off"}, sign("hub.example/devices/off", "", off.PrimaryKey, time.Hour), false},
		{"module of a disabled device", identity{"off", "m"}, sign("hub.example/devices/off/modules/m", "", off.Modules[0].PrimaryKey, time.Hour), false},
		{"device with a certificate", identity{Device: "cert"}, sign("hub.example/devices/cert", "", d.PrimaryKey, time.Hour), false},
		{"neither token nor certificate", dev, "", false},
		{"no token", dev, "secret", false},
		{"Entra is for services", dev, "Bearer x", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expiry, err := h.checkDevice(tt.id, tt.token, nil)
			if (err == nil) != tt.ok || tt.ok && time.Until(expiry) < 50*time.Minute || err != nil && (err.Status != 401 || err.Close) {
				t.Errorf("got %v, %v", expiry, err)
			}
			if tt.token != "" && strings.Contains(err.String(), tt.token) {
				t.Error("the error quotes the token")
			}
		})
	}
}

// certify makes a certificate, signed by parent or by itself.
func certify(t *testing.T, name string, from, until time.Time, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

func TestCheckCertificate(t *testing.T) {
	now := time.Now()
	root, rootKey := certify(t, "root", now.Add(-time.Hour), now.Add(time.Hour), nil, nil)
	middle, middleKey := certify(t, "middle", now.Add(-time.Hour), now.Add(time.Hour), root, rootKey)
	signed, _ := certify(t, "ca", now.Add(-time.Hour), now.Add(time.Hour), middle, middleKey)
	self, _ := certify(t, "anything", now.Add(-time.Hour), now.Add(time.Hour), nil, nil)
	old, _ := certify(t, "old", now.Add(-2*time.Hour), now.Add(-time.Hour), nil, nil)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	sum1, sum256, sumOld := sha1.Sum(self.Raw), sha256.Sum256(self.Raw), sha256.Sum256(old.Raw)
	h, err := newHub(Config{DeviceCAs: pool, Devices: []Device{
		{ID: "sha1", Thumbprints: []string{hex.EncodeToString(sum1[:])}},
		{ID: "sha256", Thumbprints: []string{strings.Repeat("0", 64), fmt.Sprintf("%X", sum256)}},
		{ID: "old", Thumbprints: []string{hex.EncodeToString(sumOld[:])}},
		{ID: "ca", CertificateAuthority: true}, {ID: "ca2", CertificateAuthority: true}, {ID: "key"},
		{ID: "m", Modules: []Module{{ID: "x", Thumbprints: []string{hex.EncodeToString(sum1[:])}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		device, module string
		certs          []*x509.Certificate
		ok, close      bool
	}{
		{"sha1", "", []*x509.Certificate{self}, true, false},
		{"sha256", "", []*x509.Certificate{self}, true, false},
		{"m", "x", []*x509.Certificate{self}, true, false},
		{"sha1", "", []*x509.Certificate{signed}, false, false},
		{"sha1", "", nil, false, false},
		{"key", "", []*x509.Certificate{self}, false, false},
		{"old", "", []*x509.Certificate{old}, false, true},
		{"ca", "", []*x509.Certificate{signed, middle}, true, false},
		{"ca", "", []*x509.Certificate{signed}, false, false},
		{"ca2", "", []*x509.Certificate{signed, middle}, false, false},
		{"ca", "", []*x509.Certificate{self}, false, false},
	} {
		_, err := h.checkDevice(identity{tt.device, tt.module}, "", &tls.ConnectionState{PeerCertificates: tt.certs})
		if (err == nil) != tt.ok || err != nil && err.Close != tt.close {
			t.Errorf("%s %s with %d: %v", tt.device, tt.module, len(tt.certs), err)
		}
	}
}

// amenzhinsky/iothub escapes a module's resource before it signs, and escapes then.
func TestEscapedTwice(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		h, err := newHub(Config{EscapedTwice: allowed, Devices: []Device{{ID: "d", Modules: []Module{{ID: "m"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		key := h.devices["d"].modules["m"].primary
		for resource, want := range map[string]bool{
			"localhost%2Fdevices%2Fd%2Fmodules%2Fm": allowed, "localhost%2Fdevices%2Fd%2Fmodules%2Fx": false, "localhost/devices/d/modules/m": true,
		} {
			token, err := sas.Sign(resource, "", key, time.Now().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.checkDevice(mod, token, nil); (err == nil) != want {
				t.Errorf("EscapedTwice %t, %s: %v", allowed, resource, err)
			}
		}
	}
}

func TestPutKeepsKeys(t *testing.T) {
	h, err := newHub(Config{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(d Device) Device {
		t.Helper()
		d, err := h.PutDevice(d)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := put(Device{ID: "d", Modules: []Module{{ID: "m"}}})
	again := put(Device{ID: "d", Disabled: true, Modules: []Module{{ID: "m"}}})
	if again.PrimaryKey != first.PrimaryKey || again.SecondaryKey != first.SecondaryKey || again.Modules[0].PrimaryKey != first.Modules[0].PrimaryKey {
		t.Error("keys that were not given have changed")
	}
	key := newKey()
	rotated := put(Device{ID: "d", PrimaryKey: key})
	if rotated.PrimaryKey != key || rotated.SecondaryKey != first.SecondaryKey || len(h.devices["d"].modules) != 1 {
		t.Error("the second key or the module has changed")
	}
	put(Device{ID: "d", CertificateAuthority: true})
	if kept := put(Device{ID: "d"}); kept.PrimaryKey != "" || h.devices["d"].auth != authCA {
		t.Error("the certificate authority is gone")
	}
	if back := put(Device{ID: "d", PrimaryKey: key}); back.PrimaryKey != key || !goodKey(back.SecondaryKey) || h.devices["d"].auth != authSAS {
		t.Error("keys do not come back")
	}
}

func TestIdentitiesChecked(t *testing.T) {
	for _, d := range []Device{
		{}, {ID: "a/b"}, {ID: "ä"}, {ID: strings.Repeat("x", 129)}, {ID: "d", PrimaryKey: "?"}, {ID: "d", Thumbprints: []string{"abc"}},
		{ID: "d", Thumbprints: []string{strings.Repeat("ab", 20)}, PrimaryKey: newKey()}, {ID: "d", CertificateAuthority: true, SecondaryKey: newKey()},
		{ID: "d", Modules: []Module{{ID: "a b"}}}, {ID: "d", Thumbprints: []string{"a", "b", "c"}},
	} {
		if _, err := newHub(Config{Devices: []Device{d}}); err == nil {
			t.Errorf("%v is taken", d)
		} else if d.PrimaryKey != "" && len(d.PrimaryKey) > 3 && strings.Contains(err.Error(), d.PrimaryKey) {
			t.Errorf("the error quotes a key: %v", err)
		}
	}
	key := newKey()
	d := Device{ID: "d", PrimaryKey: key, Modules: []Module{{ID: "m", PrimaryKey: key}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if s := fmt.Sprintf(verb+" "+verb, d, d.Modules); strings.Contains(s, key) || strings.Contains(s, hex.EncodeToString([]byte(key))) {
			t.Errorf("%s prints the key: %s", verb, s)
		}
	}
	h, err := newHub(Config{Devices: []Device{d}, PolicyKeys: map[string]string{"service": key}})
	if err != nil {
		t.Fatal(err)
	}
	if s := h.ServiceConnectionString("service"); s != "HostName=localhost;SharedAccessKeyName=service;SharedAccessKey="+key || h.ServiceConnectionString("x") != "" {
		t.Errorf("got %s", s)
	}
	if s, err := h.ModuleConnectionString("d", "m"); err != nil || s != "HostName=localhost;DeviceId=d;ModuleId=m;SharedAccessKey="+key {
		t.Errorf("got %s, %v", s, err)
	}
	if _, err := h.ModuleConnectionString("d", "x"); err == nil {
		t.Error("a module that is not there has a connection string")
	}
	if m, err := h.PutModule("d", Module{ID: "m2"}); err != nil || !goodKey(m.PrimaryKey) {
		t.Errorf("got %v", err)
	}
	if _, err := h.PutModule("x", Module{ID: "m2"}); err == nil {
		t.Error("a module without a device")
	}
}

func TestConfigChecked(t *testing.T) {
	_, err := newHub(Config{
		HostName: "a:1", AdminAddr: "0.0.0.0:1", PolicyKeys: map[string]string{"x": "", "service": "?"}, Units: 300, Tier: 9,
		MaxConnections: -1, MessageLife: 50 * time.Hour, Faults: Faults{ErrorForm: "x"},
	})
	for _, want := range []string{"HostName", "AdminAddr", `no policy "x"`, "key of service", "Units", "Tier", "MaxConnections", "MessageLife", "errorForm"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
