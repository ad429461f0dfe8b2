package fake

import (
	"encoding/json"
	"reflect"
	"testing"
)

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"id":1}`))
	f.Add([]byte(`{"id":18446744073709551615,"refuse":{"code":"busy","message":"no"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parseReply(in)
		if err != nil {
			if err != errReply {
				t.Fatalf("%v may quote the input", err)
			}
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseReply(b); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%s parsed to %+v, %v", b, again, err)
		}
	})
}

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:1": true, "127.0.0.1": true, "127.8.9.1:1": true, "[::1]:1": true, "::1": true,
		"[::ffff:127.0.0.1]:1": true,
		"":                     false, ":80": false, "0.0.0.0:1": false, "[::]:1": false, "relay": false, "localhost.": false, "127.1": false,
		"2130706433": false, "a.localhost": false,
	} {
		if got := loopbackHost(host); got != want {
			t.Errorf("%q: got %t", host, got)
		}
	}
}
