package sas

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"
)

const key = "c2VjcmV0LWtleS1vZi0zMi1ieXRlcy0wMDAwMDAwMDA="

func TestParseConnectionString(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     ConnectionString
		resource string
	}{
		{"service", "HostName=hub.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=" + key,
			ConnectionString{HostName: "hub.azure-devices.net", PolicyName: "service", Key: key}, "hub.azure-devices.net"},
		{"device", "HostName=h;DeviceId=pump-7;SharedAccessKey=" + key,
			ConnectionString{HostName: "h", DeviceID: "pump-7", Key: key}, "h/devices/pump-7"},
		{"device with = in its ID", "DeviceId=a=b;HostName=h;SharedAccessKey=" + key,
			ConnectionString{HostName: "h", DeviceID: "a=b", Key: key}, "h/devices/a=b"},
		{"module by a gateway", "HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" + key + ";GatewayHostName=edge:8883;",
			ConnectionString{HostName: "h", GatewayHostName: "edge:8883", DeviceID: "d", ModuleID: "m", Key: key}, "h/devices/d/modules/m"},
		{"certificate", " hostname=h;deviceid=d;X509=True\n", ConnectionString{HostName: "h", DeviceID: "d", X509: true}, "h/devices/d"},
		{"more than we know", "HostName=h;DeviceId=d;Later=1;SharedAccessKey=" + key, ConnectionString{HostName: "h", DeviceID: "d", Key: key}, "h/devices/d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConnectionString(tt.in)
			if err != nil || got != tt.want {
				t.Fatalf("got %#v, %v", got, err)
			}
			if r := got.Resource(); r != tt.resource {
				t.Errorf("Resource is %s", r)
			}
		})
	}
}

func TestParseConnectionStringFaults(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "no HostName",
		"HostName=h;DeviceId=d":                "no SharedAccessKey",
		"HostName=h;SharedAccessKey=" + key:    "neither a DeviceId nor a SharedAccessKeyName",
		"HostName=h;ModuleId=m;" + key + "x=y": "without a DeviceId",
		"HostName=h;HostName=g;DeviceId=d;SharedAccessKey=" + key:    "hostname twice",
		"HostName=h;DeviceId=;SharedAccessKey=" + key:                "empty deviceid",
		"HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0x":            "not base64",
		"HostName=h;DeviceId=d;SharedAccessSignature=sr=1&sig=abcde": "cannot be renewed",
		"HostName=h;DeviceId=d;c2VjcmV0":                             "quoted and whole",
		"HostName=https://h/;DeviceId=d;SharedAccessKey=" + key:      "only the name",
		"HostName=h;DeviceId=d;x509=yes":                             "neither true nor false",
		"HostName=h;DeviceId=d;x509=true;SharedAccessKey=" + key:     "keep one",
		"HostName=h;x509=true":                                       "services sign in",
		strings.Repeat("x", maxConnectionString+1):                   "are allowed",
	} {
		_, err := ParseConnectionString(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
		for _, secret := range []string{"c2Vj", "abcde"} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the key: %v", err)
			}
		}
	}
}

// knownSignature is openssl's: printf 'h%%2Fdevices%%2Fpump-7\n1800000000' |
// openssl dgst -sha256 -mac HMAC -macopt hexkey:… -binary | base64
const knownSignature = "yUWWAKAMKf7N0cZE6jALkZpdFRdKTnhlxXOK9sXLHT8%3D"

func TestSignKnown(t *testing.T) {
	got, err := Sign("h/devices/pump-7", "", key, time.Unix(1800000000, 999))
	if err != nil {
		t.Fatal(err)
	}
	const want = "SharedAccessSignature sr=h%2Fdevices%2Fpump-7&sig=SIG&se=1800000000"
	if got != strings.Replace(want, "SIG", knownSignature, 1) {
		t.Errorf("got %s", got)
	}
}

func TestTokenRoundTrip(t *testing.T) {
	expiry := time.Now().Add(time.Hour).Truncate(time.Second)
	const other = "b3RoZXI="
	for _, resource := range []string{"h", "h:8443/devices/a b+c%2F@$'", "H/devices/d/modules/m"} {
		text, err := Sign(resource, "ser vice", key, expiry)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		if !tok.Verify(key) || !tok.Verify(other, key) || !tok.Verify(key, other) || tok.Verify(other) || tok.Verify() || tok.Verify("", "?") {
			t.Errorf("%s: Verify is wrong", resource)
		}
		if !tok.Expiry.Equal(expiry) || tok.Policy != "ser vice" || !tok.Covers(resource) {
			t.Errorf("%s: got %v policy %q", resource, tok, tok.Policy)
		}
	}
}

// Encoders differ; the signature is over what was sent.
func TestVerifyAsSent(t *testing.T) {
	k, _ := decodeKey(key)
	for _, sr := range []string{"h%2fdevices%2fpump%407", "h/devices/pump@7", "h%2Fdevices%2Fpump%407"} {
		sig := url.QueryEscape(base64.StdEncoding.EncodeToString(sign(k, sr, "1800000000")))
		for _, text := range []string{
			"SharedAccessSignature sr=" + sr + "&sig=" + sig + "&se=1800000000",
			"SharedAccessSignature sig=" + sig + "&se=1800000000&skn=&sr=" + sr,
			"sharedaccesssignature se=1800000000&sr=" + sr + "&sig=" + sig + "&later=1",
		} {
			tok, err := ParseToken(text)
			if err != nil || !tok.Verify(key) || !tok.Covers("h/devices/pump@7") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		sr, resource string
		want         bool
	}{
		{"h", "h", true}, {"H", "h", true}, {"h", "h/devices/d", true}, {"h/", "h/devices/d", true}, {"h", "h2", false},
		{"h%2Fdevices%2Fd", "h/devices/d", true}, {"h/devices/d", "h/devices/d/modules/m", true},
		{"h/devices/pump", "h/devices/pump-7", false}, {"h/devices/D", "h/devices/d", false}, {"h/devices/d", "h", false},
		{"h/devices/d/modules/m", "h/devices/d", false}, {"h/devices", "h/devices/d", true}, {"", "h", false}, {"%zz", "h", false},
	} {
		if got := (Token{Resource: tt.sr}).Covers(tt.resource); got != tt.want {
			t.Errorf("%s covers %s: %t", tt.sr, tt.resource, got)
		}
	}
}

func TestParseTokenFaults(t *testing.T) {
	good := url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	for _, in := range []string{
		"", "SharedAccessSignature ", "Bearer x", "SharedAccessSignature sr=h",
		"SharedAccessSignature sr=h&sig=abcd&se=1", "SharedAccessSignature sr=h&se=1&sig=%zz",
		"SharedAccessSignature sr=h&sig=" + good, "SharedAccessSignature sr=h&se=-1&sig=" + good, "SharedAccessSignature sr=h&se=1e9&sig=" + good,
		"SharedAccessSignature sr=h&se=99999999999999999999&sig=" + good, "SharedAccessSignature sr=h&sr=g&se=1&sig=" + good,
		"SharedAccessSignature sr=&se=1&sig=" + good, "SharedAccessSignature sr=%z&se=1&sig=" + good,
		"SharedAccessSignature sr=h&se=1&skn=%q&sig=" + good, "SharedAccessSignature sr=h&se=1&x&sig=" + good,
		"SharedAccessSignature sr=h&se=1&sig=" + good + strings.Repeat("x", maxToken),
	} {
		if tok, err := ParseToken(in); err == nil {
			t.Errorf("%.80q is a token: %v", in, tok)
		}
	}
}

func TestSignFaults(t *testing.T) {
	for _, tt := range [][2]string{{"", key}, {"h", ""}, {"h", "no base64"}} {
		if s, err := Sign(tt[0], "", tt[1], time.Now()); err == nil || strings.Contains(err.Error(), "no base64") {
			t.Errorf("%v: %q, %v", tt, s, err)
		}
	}
}

func TestRedacted(t *testing.T) {
	c, err := ParseConnectionString("HostName=h;SharedAccessKeyName=p;SharedAccessKey=" + key)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := Sign("h", "p", key, time.Now())
	tok, err := ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	signature := base64.StdEncoding.EncodeToString(tok.Signature)
	var b bytes.Buffer
	for _, v := range []any{c, &c, tok, &tok, []any{c, tok}, struct{ C, T any }{c, tok}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&b, verb, v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(j)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	}
	for _, secret := range []string{key, fmt.Sprintf("%x", key), signature, fmt.Sprintf("%x", tok.Signature), fmt.Sprint(tok.Signature), "[]byte{"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("a secret is printed as %q", secret)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text, _ := Sign("h/devices/d", "service", key, time.Unix(1800000000, 0))
	f.Add(text)
	f.Add("SharedAccessSignature sig=%2B&se=1&sr=h&skn=")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		if tok.Verify("Zm9yZ2Vk") {
			t.Error("nobody had that key")
		}
		tok.Covers("h/devices/d")
		if !strings.Contains(s, tok.Resource) {
			t.Errorf("the resource %q is not as sent", tok.Resource)
		}
	})
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" + key)
	f.Add("HostName=h;SharedAccessKeyName=service;SharedAccessKey=" + key)
	f.Add("HostName=h;DeviceId=d;x509=true;GatewayHostName=g;")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConnectionString(s)
		if err != nil {
			return
		}
		again := "HostName=" + c.HostName
		for name, value := range map[string]string{"DeviceId": c.DeviceID, "ModuleId": c.ModuleID, "SharedAccessKeyName": c.PolicyName,
			"SharedAccessKey": c.Key, "GatewayHostName": c.GatewayHostName} {
			if value != "" {
				again += ";" + name + "=" + value
			}
		}
		if c.X509 {
			again += ";x509=true"
		}
		if d, err := ParseConnectionString(again); err != nil || d != c {
			t.Errorf("%v became %v, %v", c, d, err)
		}
		if c.Key != "" {
			if _, err := Sign(c.Resource(), c.PolicyName, c.Key, time.Now()); err != nil {
				t.Error(err)
			}
		}
	})
}
