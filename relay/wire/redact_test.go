package wire_test

import (
	"strings"
	"testing"

	"websocketbridge/relay/wire"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		`dial wss://relay/bridge/accept?bridgeToken=AQabc-_&x=1: refused`:                                   `dial wss://relay/bridge/accept?bridgeToken=[redacted]&x=1: refused`,
		`Get "https://relay/bridge/connectSigned?deviceId=d&signature=AQzz": EOF`:                           `Get "https://relay/bridge/connectSigned?deviceId=d&signature=[redacted]": EOF`,
		`HostName=h;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0==`:                                 `HostName=h;SharedAccessKeyName=service;SharedAccessKey=[redacted]`,
		`SharedAccessSignature sr=h&sig=abc%3D&se=1`:                                                        `SharedAccessSignature sr=h&sig=[redacted]&se=1`,
		"GET / HTTP/1.1\r\nX-Api-Key: s3cret\r\nHost: x":                                                    "GET / HTTP/1.1\r\nX-Api-Key: [redacted]\r\nHost: x",
		"Authorization: Bearer a.b.c\r\nHost: x":                                                            "Authorization: [redacted]\r\nHost: x",
		`map[X-Api-Key:[s3cret] Host:[x]]`:                                                                  `map[X-Api-Key:[[redacted]] Host:[x]]`,
		`map[Authorization:[Bearer a.b.c]]`:                                                                 `map[Authorization:[[redacted]]]`,
		`the header was Bearer a.b.c`:                                                                       `the header was Bearer [redacted]`,
		`redirect to https://app/?next=wss%3A%2F%2Frelay%2Fbridge%2Faccept%3FbridgeToken%3DAQabc and so on`: `redirect to https://app/?next=wss%3A%2F%2Frelay%2Fbridge%2Faccept%3FbridgeToken%3D[redacted] and so on`,
		`{"acceptUrl":"wss://relay/bridge/accept?bridgeToken=AQabc","x":1}`:                                 `{"acceptUrl":"wss://relay/bridge/accept?bridgeToken=[redacted]","x":1}`,
		`bad_signature: bad signature: at 2027`:                                                             `bad_signature: bad signature: at 2027`,
		`design=x&config=y`:                                                                                 `design=x&config=y`,
		``:                                                                                                  ``,
	} {
		if got := wire.Redact(in); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

// FuzzRedact: a secret in one of its places does not come through, whatever is around it.
func FuzzRedact(f *testing.F) {
	f.Add("GET /bridge/accept?", "&x=1")
	f.Add("\"", "\r\n")
	f.Add("Bearer ", ": ")
	f.Add("%3F", "%26")
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, secret) {
			return
		}
		for _, name := range []string{wire.ParamBridgeToken + "=", wire.ParamSignature + "=", wire.HeaderAPIKey + ": ", "Authorization: Bearer "} {
			if got := wire.Redact(before + " " + name + secret + after); strings.Contains(got, secret) {
				t.Errorf("%q keeps the secret", got)
			}
		}
	})
}
