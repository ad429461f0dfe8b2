package emulator

import (
	"fmt"
	"testing"
)

func TestMQTTIdentity(t *testing.T) {
	h, err := newHub(Config{HostName: "Hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ client, user, want string }{
		{"d", "hub.example/d/?api-version=2021-04-12", "d"},
		{"d", "hub.example/d/api-version=2020-09-30", "d"},
		{"d", "HUB.EXAMPLE:8883/d/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20)", "d"},
		{"d", "hub.example/d/?DeviceClientType=a/b&model-id=dtmi:x&api-version=1", "d"},
		{"d", "hub.example/d/", "d"},
		{"d", "hub.example/d", "d"},
		{"d/m", "hub.example/d/m/?api-version=2018-06-30", "d/m"},
		{"d/m", "hub.example/d/m/api-version=2018-06-30", "d/m"},
		{"a%b", "hub.example/a%25b/?api-version=1", "a%b"},
		{"a%b", "hub.example/a%b/?api-version=1", "a%b"},
		{"a%25b", "hub.example/a%25b/?api-version=1", "a%25b"},
		{"a@b", "hub.example/a%40b/?api-version=1", "a@b"},
		{"a?b", "hub.example/a?b/?api-version=1", "a?b"},

		{"d", "other.example/d/?api-version=1", ""},
		{"d", "hub.example.evil/d/?api-version=1", ""},
		{"d", "hub.example/D/?api-version=1", ""},
		{"D", "hub.example/d/?api-version=1", ""},
		{"d", "hub.example/d/m/?api-version=1", ""},
		{"d/m", "hub.example/d/?api-version=1", ""},
		{"d/", "hub.example/d//?api-version=1", ""},
		{"d/m/x", "hub.example/d/m/x/?api-version=1", ""},
		{"", "hub.example//?api-version=1", ""},
		{"d", "", ""},
		{"d", "hub.example", ""},
	} {
		id, err := h.mqttIdentity(c.client, c.user)
		got := id.String()
		if err != nil {
			got = ""
		}
		if got != c.want {
			t.Errorf("%s as %s: got %q %v, want %q", c.client, c.user, got, err, c.want)
		}
	}
}

func TestParseFilter(t *testing.T) {
	device, module := identity{Device: "a b"}, identity{"d", "m"}
	for _, c := range []struct {
		id     identity
		filter string
		want   string
	}{
		{device, "devices/a b/messages/devicebound/#", "messages devices/a b/messages/devicebound/"},
		{device, "devices/a%20b/messages/deviceBound/#", "messages devices/a%20b/messages/deviceBound/"},
		{device, "$iothub/methods/POST/#", "methods "},
		{device, "$iothub/twin/res/#", "twin "},
		{device, "$iothub/twin/PATCH/properties/desired/#", "desired "},
		{module, "devices/d/modules/m/#", "messages devices/d/modules/m/messages/devicebound/"},
		{module, "devices/d/modules/m/messages/devicebound/#", "messages devices/d/modules/m/messages/devicebound/"},
		{module, "devices/d/modules/m/inputs/#", "inputs "},

		{module, "devices/d/messages/devicebound/#", ""},
		{device, "devices/other/messages/devicebound/#", ""},
		{device, "devices/+/messages/devicebound/#", ""},
		{device, "devices/a b/messages/devicebound", ""},
		{device, "devices/a b/messages/devicebound/+", ""},
		{device, "devices/a b/messages/events/#", ""},
		{device, "devices/a b/#", ""},
		{device, "devices/a b/inputs/#", ""},
		{device, "Devices/a b/messages/devicebound/#", ""},
		{device, "#", ""},
		{device, "$iothub/#", ""},
		{device, "$iothub/methods/POST/x", ""},
		{device, "$iothub/streams/POST/#", ""},
	} {
		kind, prefix, err := parseFilter(c.id, c.filter)
		got := [...]string{"messages", "methods", "desired", "twin", "inputs"}[kind] + " " + prefix
		if err != nil {
			got = ""
		}
		if got != c.want {
			t.Errorf("%s: got %q %v, want %q", c.filter, got, err, c.want)
		}
	}
}

func TestParseTopic(t *testing.T) {
	device, module := identity{Device: "d"}, identity{"d", "m"}
	for _, c := range []struct {
		id    identity
		topic string
		want  string
	}{
		{device, "devices/d/messages/events/", "0  0 "},
		{device, "devices/d/messages/events", "0  0 "},
		{device, "devices/%64/messages/events/a=b&c", `0 "a"="b" "c" 0 `},
		{module, "devices/d/modules/m/messages/events/%24.mid=1", `0 "$.mid"="1" 0 `},
		{device, "$iothub/methods/res/200/?$rid=1f", "1  200 1f"},
		{device, "$iothub/methods/res/-1/?x=y&$rid=%20", "1  -1 %20"},
		{device, "$iothub/twin/GET/?$rid=2B87B5C9-1a", "2  0 2B87B5C9-1a"},
		{device, "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7", "3  0 1"},

		{device, "devices/e/messages/events/", ""},
		{device, "devices/d/messages/events/a=%zz", ""},
		{device, "devices/d/messages/eventsx", ""},
		{device, "devices/d/messages/devicebound/", ""},
		{device, "devices/d/modules/m/messages/events/", ""},
		{module, "devices/d/messages/events/", ""},
		{module, "devices/d/modules/n/messages/events/", ""},
		{device, "$iothub/methods/res/ok/?$rid=1", ""},
		{device, "$iothub/methods/res/200/", ""},
		{device, "$iothub/methods/res/200/$rid=1", ""},
		{device, "$iothub/methods/POST/x/?$rid=1", ""},
		{device, "$iothub/twin/GET/?$rid=", ""},
		{device, "$iothub/twin/PATCH/properties/desired/?$rid=1", ""},
		{device, "elsewhere", ""},
	} {
		topic, err := parseTopic(c.id, c.topic)
		got := fmt.Sprintf("%d %s %d %s", topic.kind, show(topic.properties), topic.status, topic.rid)
		if err != nil {
			got = ""
		}
		if got != c.want {
			t.Errorf("%s: got %q %v, want %q", c.topic, got, err, c.want)
		}
	}
}

// FuzzMQTTTopic: no topic, filter or user name makes the hub panic, and a filter
// that it takes gives topics that match it.
func FuzzMQTTTopic(f *testing.F) {
	f.Add("devices/d/messages/events/a=b")
	f.Add("devices/d/modules/m/#")
	f.Add("devices/d/messages/devicebound/#")
	f.Add("$iothub/twin/GET/?$rid=1")
	f.Add("localhost/d/?api-version=1")
	h, err := newHub(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, id := range []identity{{Device: "d"}, {"d", "m"}} {
			parseTopic(id, s)
			if kind, prefix, err := parseFilter(id, s); err == nil && kind == filterMessages {
				if fixed := s[:len(s)-1]; len(prefix) < len(fixed) || prefix[:len(fixed)] != fixed {
					t.Errorf("%q gives topics under %q", s, prefix)
				}
			}
			if got, err := h.mqttIdentity(id.String(), s); err == nil && got != id {
				t.Errorf("%q as %q is %v", id, s, got)
			}
			h.mqttIdentity(s, "localhost/"+s)
		}
	})
}

// Between an UNSUBSCRIBE and the moment when the hub hears of it a message may
// come. It stays in the queue: sent to no topic it would be lost.
func TestMQTTNoRoute(t *testing.T) {
	h, err := newHub(Config{Devices: []Device{{ID: "pump-7"}}})
	if err != nil {
		t.Fatal(err)
	}
	l := &mqttLink{h: h, id: identity{Device: "pump-7"}} // no connection: a PUBLISH would panic
	if l.deliver(1, &c2dMessage{ID: "m1", Sent: 1}) {
		t.Error("a message was sent to no topic")
	}
}
