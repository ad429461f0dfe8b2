package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler/sas"
)

const key = "c2VjcmV0LWtleQ=="

func TestFromConnectionString(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := sas.ConnectionString{HostName: "h", PolicyName: "service", Key: key}
		src, err := FromConnectionString(cs, 0)
		if err != nil {
			t.Fatal(err)
		}
		first := get(t, src)
		if first.Kind != SAS || time.Until(first.Expires) != DefaultLife {
			t.Errorf("got %v", first)
		}
		tok, err := sas.ParseToken(first.Text)
		if err != nil || !tok.Verify(key) || !tok.Covers("h/devices/d") || tok.Policy != "service" || !tok.Expiry.Equal(first.Expires) {
			t.Errorf("got %v, %v", tok, err)
		}
		time.Sleep(DefaultLife*2/3 - time.Second)
		if get(t, src) != first {
			t.Error("a token is not used until 2/3 of its life are over")
		}
		time.Sleep(time.Second)
		if next := get(t, src); next == first || time.Until(next.Expires) < DefaultLife-time.Second {
			t.Errorf("got %v after 2/3 of the life", next)
		}
	})
}

// The next token is signed with the new key. A faulty one changes nothing, the same one
// neither.
func TestReplace(t *testing.T) {
	const newKey = "bmV3LXNlY3JldA=="
	old := sas.ConnectionString{HostName: "h", PolicyName: "service", Key: key}
	src, err := FromConnectionString(old, 0)
	if err != nil {
		t.Fatal(err)
	}
	first := get(t, src)
	for name, cs := range map[string]sas.ConnectionString{
		"the same":  old,
		"a device":  {HostName: "h", DeviceID: "d", Key: newKey},
		"no policy": {HostName: "h", Key: newKey},
		"no base64": {HostName: "h", PolicyName: "service", Key: "secret?"},
	} {
		if err := src.Replace(cs); (err == nil) != (cs == old) {
			t.Errorf("%s: %v", name, err)
		}
		if get(t, src) != first {
			t.Errorf("%s: another token", name)
		}
	}
	if err := src.Replace(sas.ConnectionString{HostName: "h", PolicyName: "bridge", Key: newKey}); err != nil {
		t.Fatal(err)
	}
	next := get(t, src)
	if tok, err := sas.ParseToken(next.Text); err != nil || tok.Policy != "bridge" || !tok.Verify(newKey) || tok.Verify(key) {
		t.Errorf("got %v, %v", tok, err)
	}
}

func TestFromConnectionStringFaults(t *testing.T) {
	for want, cs := range map[string]sas.ConnectionString{
		"a device's":            {HostName: "h", DeviceID: "d", Key: key},
		"no SharedAccessKey":    {HostName: "h", PolicyName: "p"},
		"no SharedAccessKeyNam": {HostName: "h", Key: key},
		"not base64":            {HostName: "h", PolicyName: "p", Key: "secret?"},
	} {
		if _, err := FromConnectionString(cs, 0); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret?") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := FromConnectionString(sas.ConnectionString{HostName: "h", PolicyName: "p", Key: key}, -1); err == nil {
		t.Error("a negative life is taken")
	}
}

func TestTokenRedacted(t *testing.T) {
	tok := Token{Text: "Bearer s3cret", Kind: Bearer, Expires: time.Unix(1e9, 0)}
	j, err := json.Marshal(map[string]any{"t": tok})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %q %x %v", tok, tok, tok, tok, tok, []Token{tok}), string(j), tok.LogValue().String()} {
		if strings.Contains(s, "s3cret") || strings.Contains(s, fmt.Sprintf("%x", "s3cret")) || !strings.Contains(s, "bearer token until 2001") {
			t.Errorf("got %s", s)
		}
	}
}

func get(t *testing.T, src Source) Token {
	t.Helper()
	tok, err := src.Token(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
