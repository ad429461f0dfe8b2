package emulator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// show is name=value, and the name alone for null.
func show(properties []property) string {
	var out []string
	for _, p := range properties {
		if p.Value == nil {
			out = append(out, fmt.Sprintf("%q", p.Name))
		} else {
			out = append(out, fmt.Sprintf("%q=%q", p.Name, *p.Value))
		}
	}
	return strings.Join(out, " ")
}

func TestDecodeBag(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"a=b":                 `"a"="b"`,
		"a=b&c=d&":            `"a"="b" "c"="d"`,
		"null&empty=&value=x": `"null" "empty"="" "value"="x"`,
		"%24.to=%2Fdevices%2FMyDev%2Fmessages%2FdeviceBound&foo=bar":  `"$.to"="/devices/MyDev/messages/deviceBound" "foo"="bar"`,
		"iothub-ack=Full&propName=PropValue&%24.to=x&%24.cid&%24.uid": `"iothub-ack"="Full" "propName"="PropValue" "$.to"="x" "$.cid" "$.uid"`,
		"u=wss%3A%2F%2Fa%2Fb%3Fc%3Dd%26e%3Df":                         `"u"="wss://a/b?c=d&e=f"`,
		"p=100%25&q=a%2Bb&r=a+b&s=a%20b":                              `"p"="100%" "q"="a+b" "r"="a+b" "s"="a b"`,
		"a=b=c":                                                       `"a"="b=c"`,
		"twice=%252F":                                                 `"twice"="%2F"`,
		"$.mid=x":                                                     `"$.mid"="x"`,
		"k=1&k=2":                                                     `"k"="1" "k"="2"`,
		"%E2%82%AC=%e2%82%ac":                                         `"€"="€"`,
		"%24.exp=2026-01-02T03%3A04%3A05.1234567Z&%24.ct=application%2Fjson&%24.ce=utf-8&x": `"$.exp"="2026-01-02T03:04:05.1234567Z" "$.ct"="application/json" "$.ce"="utf-8" "x"`,
	} {
		got, err := decodeBag(in)
		if err != nil || show(got) != want {
			t.Errorf("%s:\ngot  %s %v\nwant %s", in, show(got), err, want)
		}
	}
	for _, in := range []string{"a=%", "a=%2", "a=%zz", "%=b", "=b", "a=%ff"} {
		if got, err := decodeBag(in); err == nil {
			t.Errorf("%s: got %s, want an error", in, show(got))
		}
	}
}

func TestEncodeBag(t *testing.T) {
	got := encodeBag([]property{
		propertyOf("$.mid", "1"), {Name: "null"}, propertyOf("empty", ""), propertyOf("", "nameless"),
		propertyOf("a b+/=&#", "100% €/~-._"),
	})
	if want := "%24.mid=1&null&empty=&a%20b%2B%2F%3D%26%23=100%25%20%E2%82%AC%2F~-._"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMessageProperties(t *testing.T) {
	m := &c2dMessage{
		ID: "m1", ContentType: "application/json", ContentEncoding: "utf-8", Ack: "full", UserID: "u",
		Expiry: time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC), Properties: []property{{Name: "null"}, propertyOf("k", "v")},
	}
	const rest = `"$.ct"="application/json" "$.ce"="utf-8" "$.exp"="2026-01-02T03:04:05.1234567Z"`
	const given = `"iothub-ack"="full" "null" "k"="v"`
	for _, c := range []struct {
		id    identity
		order bool
		want  string
	}{
		{identity{Device: "d"}, false, `"$.mid"="m1" "$.to"="/devices/d/messages/devicebound" "$.uid"="u" ` + rest + ` ` + given},
		{identity{Device: "d"}, true, given + ` "$.mid"="m1" "$.to"="/devices/d/messages/devicebound" "$.cid" "$.uid"="u" ` + rest},
		{identity{"d", "m"}, false, `"$.mid"="m1" "$.to"="/devices/d/modules/m/messages/devicebound" "$.uid"="u" ` + rest + ` ` + given},
	} {
		if got := show(messageProperties(c.id, m, c.order)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// FuzzTopicBag: what decodes must encode to what decodes to the same, in one
// level of a topic; and what was encoded decodes to itself.
func FuzzTopicBag(f *testing.F) {
	for _, s := range []string{
		"", "a=b", "null&empty=&", "%24.to=%2Fdevices%2FMyDev%2Fmessages%2FdeviceBound&foo=bar", "a+b=c%20d", "a=%", "=", "&&", "€=1",
	} {
		f.Add(s, "name", "value")
	}
	f.Fuzz(func(t *testing.T, s, name, value string) {
		if got, err := decodeBag(s); err == nil {
			again, err := decodeBag(encodeBag(got))
			if err != nil || show(again) != show(got) {
				t.Fatalf("%q is %s, which becomes %s %v", s, show(got), show(again), err)
			}
		}
		if name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return
		}
		in := []property{propertyOf(name, value), {Name: name}, propertyOf(value+"x", "")}
		bag := encodeBag(in)
		if strings.ContainsAny(bag, "/+#$\x00 ") {
			t.Fatalf("%q is more than one level of a topic name", bag)
		}
		out, err := decodeBag(bag)
		if err != nil || !slices.EqualFunc(in, out, func(a, b property) bool { return show([]property{a}) == show([]property{b}) }) {
			t.Fatalf("%s is %q, which is %s %v", show(in), bag, show(out), err)
		}
	})
}
