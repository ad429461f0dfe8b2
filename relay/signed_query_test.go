package relay_test

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

var (
	signedAt  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	signedAll = relay.SignedURL{
		DeviceID: "pump-7+a", Target: "ssh,größe", RequestData: "a&b c=%", Principal: "ops@example.com", Expires: signedAt.Add(time.Hour + 700*time.Nanosecond),
	}
)

func fixedRing(t testing.TB) *token.Ring {
	t.Helper()
	var b [32]byte
	for i := range b {
		b[i] = byte(i)
	}
	r, err := token.NewRing(token.KeyFrom(b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Nodes of two versions have to agree.
func TestSignedQueryGolden(t *testing.T) {
	keys := fixedRing(t)
	for _, tt := range []struct {
		u    relay.SignedURL
		want string
	}{
		{signedAll, "deviceId=pump-7%2Ba&expirationUtc=2026-01-02T04%3A04%3A05.0000007Z&principal=ops%40example.com&requestData=a%26b+c%3D%25&signature=Ae7GsMNLT53_ZNeHAVCSpSRU8QChudKsqN6tMAlrbh3QaUwfmg&target=ssh%2Cgr%C3%B6%C3%9Fe"},
		{relay.SignedURL{DeviceID: "d", Principal: "p", Expires: signedAt.Add(time.Second)}, "deviceId=d&expirationUtc=2026-01-02T03%3A04%3A06.0000000Z&principal=p&signature=Ae7GsMPYsreeWWiqtX28nXi1ESDXn5XGr-ivoEHdcDt-ZMngdA"},
	} {
		if got := tt.u.Query(keys); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		if got, err := relay.OpenSigned(keys, tt.want, signedAt); err != nil || !reflect.DeepEqual(got, tt.u) {
			t.Errorf("opens to %+v, %v", got, err)
		}
	}
}

// What is in one field is not in its neighbour.
func TestSignedFieldsAreApart(t *testing.T) {
	keys := fixedRing(t)
	u := relay.SignedURL{DeviceID: "d", Target: "ab", RequestData: "c", Principal: "p", Expires: signedAt.Add(time.Hour)}
	q, err := url.ParseQuery(u.Query(keys))
	if err != nil {
		t.Fatal(err)
	}
	for name, fields := range map[string][3]string{
		"moved back": {"d", "a", "bc"}, "moved on": {"da", "b", "c"}, "all in one": {"d", "", "abc"}, "swapped": {"d", "c", "ab"},
	} {
		q.Set("deviceId", fields[0])
		q.Set("target", fields[1])
		q.Set("requestData", fields[2])
		if got, err := relay.OpenSigned(keys, q.Encode(), signedAt); err == nil {
			t.Errorf("%s: opens to %+v", name, got)
		}
	}
}

// Every character of the query, replaced by every other printable one, cut out, or
// there twice.
func TestSignedQueryByCharacter(t *testing.T) {
	keys := fixedRing(t)
	query := signedAll.Query(keys)
	for i := range len(query) {
		for c := byte(' '); c < 0x7f; c++ {
			checkChanged(t, keys, query, query[:i]+string(c)+query[i+1:])
		}
		checkChanged(t, keys, query, query[:i]+query[i+1:])
		checkChanged(t, keys, query, query[:i]+query[i:i+1]+query[i:])
		checkChanged(t, keys, query, query[:i])
	}
}

// signedParams are those that the signature covers, and itself.
var signedParams = []string{
	wire.ParamDeviceID, wire.ParamTarget, wire.ParamRequestData, wire.ParamExpirationUTC, wire.ParamPrincipal, wire.ParamSignature,
}

// checkChanged wants that changed, made from a good query, verifies only if every
// signed parameter has the value it had: bytes can change without that, as in %2b.
func checkChanged(t *testing.T, keys *token.Ring, query, changed string) {
	t.Helper()
	if _, err := relay.OpenSigned(keys, changed, signedAt); err != nil {
		return
	}
	was, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	is, err := url.ParseQuery(changed)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range signedParams {
		if was.Get(name) != is.Get(name) || len(is[name]) > 1 {
			t.Fatalf("%s verifies with another %s than %s", changed, name, query)
		}
	}
}

// FuzzSigned: what getSignedUrl signs opens to itself, and changed bytes do not open.
func FuzzSigned(f *testing.F) {
	f.Add("pump-7", "ssh", "data", "ops", int64(3600), 0, byte('x'))
	f.Add("a+b", "größe,[::1]:22", "a&b=c%\x00;", "ops@example.com", int64(1), 30, byte('%'))
	f.Add("d", "", "", "p", int64(86400), 60, byte('\n'))
	keys := fixedRing(f)
	f.Fuzz(func(t *testing.T, device, target, data, principal string, seconds int64, at int, with byte) {
		_, err := wire.SplitTargets(target)
		if wire.CheckDeviceID(device) != nil || err != nil || wire.CheckRequestData(data) != nil || principal == "" || seconds < 1 || seconds > 1e9 {
			return // never signed
		}
		u := relay.SignedURL{DeviceID: device, Target: target, RequestData: data, Principal: principal, Expires: signedAt.Add(time.Duration(seconds) * time.Second)}
		query := u.Query(keys)
		if got, err := relay.OpenSigned(keys, query, signedAt); err != nil || !reflect.DeepEqual(got, u) {
			t.Fatalf("opens to %+v, %v", got, err)
		}
		at = max(at, 0) % len(query)
		checkChanged(t, keys, query, query[:at]+string([]byte{with})+query[at+1:])
	})
}

// FuzzSignedQuery: nothing panics, no error quotes the signature, and what opens signs
// to the same query but for order, escapes, and parameters of others.
func FuzzSignedQuery(f *testing.F) {
	keys := fixedRing(f)
	query := signedAll.Query(keys)
	f.Add(query)
	f.Add(query + "&upgrade=early&deviceid=x")
	f.Add(strings.Replace(query, "%2C", ",", 1))
	f.Add(strings.Replace(query, "&target", "&signature=x&target", 1))
	f.Add(query[:len(query)/2])
	f.Add("deviceId=d&expirationUtc=2026-01-02T04:04:05Z&principal=p&signature=AQ")
	f.Add("deviceId=d;signature=%zz")
	f.Fuzz(func(t *testing.T, query string) {
		u, err := relay.OpenSigned(keys, query, signedAt)
		q, perr := url.ParseQuery(query)
		if err != nil {
			if sig := q.Get(wire.ParamSignature); len(sig) >= 20 && strings.Contains(err.Error(), sig) && !errors.As(err, new(url.EscapeError)) {
				t.Errorf("the error quotes the signature: %v", err)
			}
			return
		}
		if perr != nil {
			t.Fatal(perr)
		}
		again, err := url.ParseQuery(u.Query(keys))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range signedParams {
			if again.Get(name) != q.Get(name) {
				t.Errorf("%s was %q and is %q", name, q.Get(name), again.Get(name))
			}
		}
	})
}
