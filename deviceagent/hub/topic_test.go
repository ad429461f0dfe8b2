package hub

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func (b bag) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if v := b[name]; v == nil {
			out = append(out, name)
		} else {
			out = append(out, fmt.Sprintf("%s=%q", name, *v))
		}
	}
	return strings.Join(out, " ")
}

func TestParseBag(t *testing.T) {
	for _, tt := range []struct{ name, bag, want string }{
		{"nothing", "", ""},
		{"one", "bridge-signal=v1", `bridge-signal="v1"`},
		{"the hub's first", "%24.mid=1&%24.to=%2Fdevices%2FMyDev%2Fmessages%2FdeviceBound&foo=bar", `$.mid="1" $.to="/devices/MyDev/messages/deviceBound" foo="bar"`},
		{"the hub's last, nulls", "iothub-ack=Full&propName=PropValue&%24.to=x&%24.cid&%24.uid", `$.cid $.to="x" $.uid iothub-ack="Full" propName="PropValue"`},
		{"empty is not null", "a=&b", `a="" b`},
		{"split before decoding", "url=wss%3A%2F%2Fr%2Fa%3Ft%3D1%26u%3D2&b=2", `b="2" url="wss://r/a?t=1&u=2"`},
		{"decoded once", "a=%2525&b=%252F", `a="%25" b="%2F"`},
		{"a plus is a plus", "a=1+1&b=1%2B1", `a="1+1" b="1+1"`},
		{"badly encoded stays", "a=100%&b=2&%zz=3", `%zz="3" a="100%" b="2"`},
		{"an encoded name", "bridge%2Dsignal=v1", `bridge-signal="v1"`},
		{"a value with =", "a=b=c", `a="b=c"`},
		{"the first counts", "a=1&a=2&a", `a="1"`},
		{"nothing between", "&&a=1&=2&", `a="1"`},
		{"not ASCII", "a=%C3%A4%20%F0%9F%A7%AA", `a="ä 🧪"`},
	} {
		if got := parseBag(tt.bag).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if b := parseBag("a&b=&c=v1"); b.is("a", "") || !b.is("b", "") || !b.is("c", "v1") || b.is("d", "") {
		t.Error("null, empty and absent are mixed up")
	}
}

func TestCutMessage(t *testing.T) {
	for _, tt := range []struct {
		topic, bag string
		ok         bool
	}{
		{"devices/d/messages/devicebound/a=b", "a=b", true},
		{"devices/d/messages/deviceBound/a=b", "a=b", true},
		{"devices/d/messages/devicebound/", "", true},
		{"devices/d/messages/devicebound", "", true},
		{"devices/d/messages/devicebound/a=b/", "a=b", true},
		{"devices/d/messages/devicebound/a=/x/y&c=d", "a=/x/y&c=d", true},
		{"devices/d/modules/m/messages/devicebound/a=b", "", false},
		{"devices/d/messages/events/a=b", "", false},
		{"$iothub/methods/POST/Bridge/?$rid=1", "", false},
		{"", "", false},
	} {
		if bag, ok := cutMessage(tt.topic); bag != tt.bag || ok != tt.ok {
			t.Errorf("%s: %q, %t", tt.topic, bag, ok)
		}
	}
}

func TestCutMethod(t *testing.T) {
	for _, tt := range []struct {
		topic, name, rid string
		ok               bool
	}{
		{"$iothub/methods/POST/Bridge/?$rid=1", "Bridge", "1", true},
		{"$iothub/methods/POST/Bridge/?$rid=a%2Fb/c", "Bridge", "a%2Fb/c", true},
		{"$iothub/methods/POST/Bridge/?x=1&$rid=2&$rid=3", "Bridge", "2", true},
		{"$iothub/methods/POST/re%62oot/?$rid=1", "reboot", "1", true},
		{"$iothub/methods/POST/Bridge/?$rid=", "", "", false},
		{"$iothub/methods/POST/Bridge?$rid=1", "", "", false},
		{"$iothub/methods/POST//?$rid=1", "", "", false},
		{"$iothub/methods/POST/Bridge/?$rid=1+", "", "", false},
		{"$iothub/methods/POST/Bridge/?$rid=#", "", "", false},
		{"$iothub/methods/res/200/?$rid=1", "", "", false},
		{"devices/d/messages/devicebound/a=b", "", "", false},
	} {
		if name, rid, ok := cutMethod(tt.topic); name != tt.name || rid != tt.rid || ok != tt.ok {
			t.Errorf("%s: %q, %q, %t", tt.topic, name, rid, ok)
		}
	}
}

// What parses is written again, in another order, and reads the same; what is no
// bag does no harm.
func FuzzBag(f *testing.F) {
	for _, seed := range []string{
		"", "bridge-signal=v1", "%24.mid=1&%24.to=%2Fdevices%2Fd&iothub-ack=full&bridge-signal=v1", "iothub-ack=Full&a=b&%24.cid&%24.uid=",
		"a=%2525&b=100%&c=1+1", "=&==&a==b&&", "a=%C3%A4&%zz", "devices/d/messages/devicebound/a=b", "$iothub/methods/POST/Bridge/?$rid=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := parseBag(s)
		if len(b) > strings.Count(s, "&")+1 {
			t.Errorf("%d properties in %q", len(b), s)
		}
		var parts []string
		for name, value := range b {
			part := url.PathEscape(name)
			part = strings.NewReplacer("=", "%3D", "&", "%26").Replace(part)
			if value != nil {
				part += "=" + strings.NewReplacer("&", "%26").Replace(url.PathEscape(*value))
			}
			parts = append(parts, part)
		}
		slices.Sort(parts)
		slices.Reverse(parts)
		if again := parseBag(strings.Join(parts, "&")); again.String() != b.String() {
			t.Errorf("%q is %v, and written again %v", s, b, again)
		}
		if bag, ok := cutMessage("devices/d/messages/devicebound/" + s); !ok || bag != strings.Trim(s, "/") {
			t.Errorf("cut to %q, %t", bag, ok)
		}
		if name, rid, ok := cutMethod(s); ok && (name == "" || rid == "" || !strings.Contains(s, rid) || strings.ContainsAny(rid, "+#&\x00")) {
			t.Errorf("%q is method %q, request %q", s, name, rid)
		}
	})
}
