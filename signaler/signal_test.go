package signaler_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
)

func full() *signaler.Signal {
	return &signaler.Signal{
		AcceptURL:   "wss://relay.example/bridge/accept?bridgeToken=t0k3n&n=<1>",
		RequestData: `{"url":"http://127.0.0.1/ä"}`,
		Version:     1, BridgeID: "b-7f3a", DeviceID: "pump-7", Target: "ssh", Principal: "ops@example.com",
		ExpiresAt:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		RejectURL:    "https://relay.example/bridge/reject?bridgeToken=t0k3n",
		Subprotocols: []string{"bridge.session.v1", "mqtt"},
		TraceParent:  "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Sig:          "c2lnbmF0dXJl",
	}
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	const accept = "wss://relay.example/bridge/accept?bridgeToken=t0k3n"
	for _, tt := range []struct {
		file    string
		want    *signaler.Signal
		encoded string // the file that Encode writes; devices in the field read these bytes
	}{
		{"full.json", full(), "full.json"},
		{"two_fields.json", &signaler.Signal{AcceptURL: "ws://127.0.0.1:8080/bridge/accept?bridgeToken=t0k3n", RequestData: "hello"}, "two_fields.json"},
		{"minimal.json", &signaler.Signal{AcceptURL: accept}, "minimal.json"},
		{"null_request_data.json", &signaler.Signal{AcceptURL: accept}, "minimal.json"},
		{"newer_relay.json", &signaler.Signal{AcceptURL: accept, Version: 1, DeviceID: "pump-7"}, ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			got, err := signaler.Parse(golden(t, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, *tt.want) {
				t.Errorf("parsed another signal")
			}
			if tt.encoded == "" {
				return
			}
			b, err := tt.want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if want := golden(t, tt.encoded); !bytes.Equal(b, want) {
				t.Errorf("encoded\n got %s\nwant %s", b, want)
			}
		})
	}
}

func TestEncodeExpiry(t *testing.T) {
	s := full()
	s.ExpiresAt = time.Date(2026, 1, 2, 5, 4, 5, 999, time.FixedZone("", 2*3600))
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, golden(t, "full.json")) {
		t.Errorf("a time in another zone and with a fraction encoded to %s", b)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*signaler.Signal){
		"no accept URL":       func(s *signaler.Signal) { s.AcceptURL = "" },
		"wrong scheme":        func(s *signaler.Signal) { s.AcceptURL = "https://relay.example/secret" },
		"newer version":       func(s *signaler.Signal) { s.Version = signaler.Version + 1 },
		"negative version":    func(s *signaler.Signal) { s.Version = -1 },
		"empty subprotocol":   func(s *signaler.Signal) { s.Subprotocols = []string{"a", ""} },
		"too big":             func(s *signaler.Signal) { s.RequestData = strings.Repeat("secret", 700) },
		"too big by escapes":  func(s *signaler.Signal) { s.RequestData = strings.Repeat("\x01", 700) },
		"request data bytes":  func(s *signaler.Signal) { s.RequestData = "secret\xff" },
		"subprotocol bytes":   func(s *signaler.Signal) { s.Subprotocols = []string{"\xff"} },
		"expiry out of range": func(s *signaler.Signal) { s.ExpiresAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) },
		"expiry looks absent": func(s *signaler.Signal) { s.ExpiresAt = time.Time{}.Add(time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			change(s)
			b, err := s.Encode()
			if err == nil {
				t.Fatalf("encoded to %s", b)
			}
			quotesNothing(t, err.Error())
		})
	}
}

// A trace is no reason to refuse a bridge: what does not fit goes without.
func TestEncodeTraceParent(t *testing.T) {
	s := full()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	room := signaler.MaxSize - len(b)
	member := `"traceparent":"` + s.TraceParent + `",`
	for _, tt := range []struct {
		more int
		kept bool
	}{{room, true}, {room + 1, false}, {room + len(member), false}} {
		s := full()
		s.RequestData += strings.Repeat("x", tt.more)
		b, err := s.Encode()
		if err != nil {
			t.Fatalf("%d more bytes: %v", tt.more, err)
		}
		if bytes.Contains(b, []byte(member)) != tt.kept {
			t.Errorf("%d more bytes: %s", tt.more, b)
		}
		if s.TraceParent != full().TraceParent {
			t.Error("Encode has changed the signal")
		}
	}
	s.RequestData += strings.Repeat("x", room+len(member)+1)
	if _, err := s.Encode(); !errors.Is(err, signaler.ErrTooBig) {
		t.Errorf("one byte too many without it: %v", err)
	}
}

// members returns a valid signal with more members.
func members(more string) string {
	return `{"acceptUrl":"wss://h/?bridgeToken=t0k3n",` + more + `}`
}

func TestParseRefuses(t *testing.T) {
	const accept = `"acceptUrl":"wss://h/?bridgeToken=t0k3n"`
	deep := strings.Repeat("[", 2000)
	for _, tt := range []struct{ name, in, want string }{
		{"empty", ``, "is not a JSON object"},
		{"spaces", "  \n", "is not a JSON object"},
		{"null", `null`, "is not a JSON object"},
		{"text", `"secret"`, "is not a JSON object"},
		{"array", `[{` + accept + `}]`, "is not a JSON object"},
		{"empty object", `{}`, "acceptUrl is missing"},
		{"acceptUrl null", `{"acceptUrl":null}`, "acceptUrl is missing"},
		{"acceptUrl empty", `{"acceptUrl":""}`, "acceptUrl is missing"},
		{"cut", `{` + accept, "is not"},
		{"cut in a value", `{"acceptUrl":"wss://secret`, "is not"},
		{"comma at the end", `{` + accept + `,}`, "is not"},
		{"no colon", `{"acceptUrl" "wss://secret"}`, "is not"},
		{"unquoted name", `{acceptUrl:"wss://secret"}`, "is not"},
		{"single quotes", `{'acceptUrl':'wss://secret'}`, "is not"},
		{"comment", `{` + accept + `/*secret*/}`, "is not"},
		{"byte order mark", "\ufeff{" + accept + `}`, "is not a JSON object"},
		{"trailing object", `{` + accept + `}{}`, "has bytes after"},
		{"trailing garbage", `{` + accept + `}secret`, "has bytes after"},
		{"trailing brace", `{` + accept + `}}`, "has bytes after"},
		{"trailing NUL", `{` + accept + "}\x00", "has bytes after"},
		{"twice", members(accept), "has a member twice"},
		{"twice by escapes", members(`"accept\u0055rl":"wss://secret"`), "has a member twice"},
		{"twice, unknown", members(`"x":1,"x":1`), "has a member twice"},
		{"twice, null", members(`"target":null,"target":"secret"`), "has a member twice"},
		{"wrong case", `{"AcceptUrl":"wss://secret"}`, "wrong case"},
		{"wrong case, as a second", members(`"acceptURL":"wss://secret"`), "wrong case"},
		{"wrong case, folded", members(`"ſig":"secret"`), "wrong case"}, // U+017F folds to s
		{"acceptUrl number", `{"acceptUrl":1}`, "acceptUrl has the wrong type"},
		{"acceptUrl array", `{"acceptUrl":["wss://secret"]}`, "acceptUrl has the wrong type"},
		{"requestData object", members(`"requestData":{"secret":1}`), "requestData has the wrong type"},
		{"v text", members(`"v":"1"`), "v has the wrong type"},
		{"v fraction", members(`"v":1.5`), "v has the wrong type"},
		{"v huge", members(`"v":99999999999999999999`), "v has the wrong type"},
		{"v true", members(`"v":true`), "v has the wrong type"},
		{"v newer", members(`"v":2`), "v is 2; this agent knows 1"},
		{"v negative", members(`"v":-1`), "v is negative"},
		{"deviceId number", members(`"deviceId":7`), "deviceId has the wrong type"},
		{"subprotocols text", members(`"subprotocols":"secret"`), "subprotocols has the wrong type"},
		{"subprotocols of numbers", members(`"subprotocols":[1]`), "subprotocols has the wrong type"},
		{"subprotocols of null", members(`"subprotocols":[null]`), "subprotocols has an empty one"},
		{"subprotocols of nothing", members(`"subprotocols":["a",""]`), "subprotocols has an empty one"},
		{"expiresAt number", members(`"expiresAt":1767323045`), "expiresAt has the wrong type"},
		{"expiresAt empty", members(`"expiresAt":""`), "expiresAt is not like"},
		{"expiresAt words", members(`"expiresAt":"secret"`), "expiresAt is not like"},
		{"expiresAt fraction", members(`"expiresAt":"2026-01-02T03:04:05.5Z"`), "expiresAt is not like"},
		{"expiresAt zone", members(`"expiresAt":"2026-01-02T03:04:05+01:00"`), "expiresAt is not like"},
		{"expiresAt lower case", members(`"expiresAt":"2026-01-02t03:04:05z"`), "expiresAt is not like"},
		{"expiresAt 30 February", members(`"expiresAt":"2026-02-30T03:04:05Z"`), "expiresAt is not like"},
		{"expiresAt that means none", members(`"expiresAt":"0001-01-01T00:00:00Z"`), "expiresAt is not like"},
		{"accept https", `{"acceptUrl":"https://secret/"}`, "acceptUrl is neither ws"},
		{"accept file", `{"acceptUrl":"file:///secret"}`, "acceptUrl is neither ws"},
		{"accept relative", `{"acceptUrl":"/secret"}`, "acceptUrl is neither ws"},
		{"accept without host", `{"acceptUrl":"wss:///secret"}`, "acceptUrl needs a host"},
		{"accept with port only", `{"acceptUrl":"wss://:443/secret"}`, "acceptUrl needs a host"},
		{"accept opaque", `{"acceptUrl":"wss:secret"}`, "acceptUrl needs a host"},
		{"accept with user", `{"acceptUrl":"wss://user:secret@h/"}`, "acceptUrl needs a host"},
		{"accept with fragment", `{"acceptUrl":"wss://h/#secret"}`, "acceptUrl needs a host"},
		{"accept with spaces", `{"acceptUrl":"wss://se cret/"}`, "acceptUrl is not a URL"},
		{"accept with control", `{"acceptUrl":"wss://h/secret\r\nX: y"}`, "acceptUrl is not a URL"},
		{"reject wss", members(`"rejectUrl":"wss://secret/"`), "rejectUrl is neither http"},
		{"reject with user", members(`"rejectUrl":"https://secret@h/"`), "rejectUrl needs a host"},
		{"not UTF-8", members("\"requestData\":\"secret\xff\""), "is not valid UTF-8"},
		{"not UTF-8, unknown member", members("\"\xc3\":1"), "is not valid UTF-8"},
		{"UTF-16", "{\x00\"\x00a\x00", "is not"},
		{"too big", members(`"requestData":"` + strings.Repeat("s", signaler.MaxSize) + `"`), "4096 are allowed"},
		{"too big with spaces", members(`"v":1`) + strings.Repeat(" ", signaler.MaxSize), "4096 are allowed"},
		{"deep, cut", deep, "is not a JSON object"},
		{"deep, in an unknown member, cut", members(`"x":` + deep), "is not"},
		{"deep, in a known member", members(`"target":` + deep + strings.Repeat("]", 2000)), "target has the wrong type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := signaler.Parse([]byte(tt.in))
			if err == nil {
				t.Fatalf("parsed %v", s)
			}
			if !strings.HasPrefix(err.Error(), "signal: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			quotesNothing(t, err.Error())
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for name, in := range map[string]string{
		"spaces around":          " \r\n\t" + members(`"v": 1`) + " \n",
		"unknown member, nested": members(`"later":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
		"all null":               members(`"requestData":null,"v":null,"bridgeId":null,"expiresAt":null,"rejectUrl":null,"subprotocols":null,"sig":null`),
		"no subprotocols":        members(`"subprotocols":[]`),
		"scheme in capitals":     `{"acceptUrl":"WSS://h/"}`,
		"IPv6":                   `{"acceptUrl":"ws://[::1]:8080/bridge/accept"}`,
		"as big as can be":       members(`"v":1`) + strings.Repeat(" ", signaler.MaxSize-len(members(`"v":1`))),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := signaler.Parse([]byte(in)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// quotesNothing checks a text for what the inputs of this file keep secret.
func quotesNothing(t testing.TB, text string) {
	t.Helper()
	for _, secret := range []string{"secret", "t0k3n", "\xff", "127.0.0.1"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q quotes the input", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(golden(f, filepath.Base(file)))
	}
	f.Add([]byte(members(`"subprotocols":[],"expiresAt":"0000-01-01T00:00:00Z"`)))
	f.Add([]byte(members(`"requestData":"\ud800","AcceptUrl":1`)))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := signaler.Parse(in)
		if err != nil {
			constant(t, err.Error())
			return
		}
		b, err := s.Encode()
		if err != nil {
			if len(in) > signaler.MaxSize/2 && strings.Contains(err.Error(), "are allowed") {
				return // U+2028 grows from 3 bytes to 6
			}
			t.Fatalf("encode what was parsed: %v", err)
		}
		again, err := signaler.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if again.TraceParent == "" && len(in) > signaler.MaxSize/2 {
			s.TraceParent = "" // with it, it would be too big
		}
		if !reflect.DeepEqual(*s, *again) {
			t.Fatalf("%s parsed to another signal", b)
		}
		b2, err := again.Encode()
		if err != nil || !bytes.Equal(b, b2) {
			t.Fatalf("%s encoded to %s, %v", b, b2, err)
		}
	})
}

// constant checks that an error of Parse is one of the few texts that it has,
// whatever the input was.
func constant(t *testing.T, text string) {
	t.Helper()
	text, ok := strings.CutPrefix(text, "signal: ")
	if !ok {
		t.Fatalf("%q does not say what it is about", text)
	}
	for _, re := range parseErrors {
		if re.MatchString(text) {
			return
		}
	}
	t.Fatalf("%q is new: does it quote the input?", text)
}
