package emulator

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everyFault sets each field, and so finds those that clone, triggers and JSON
// forget.
var everyFault = Faults{
	ErrorForm: "new",
	Method:    &AnswerFault{Error: "throttled", RetryAfter: Duration(3 * time.Second), Delay: Duration(time.Millisecond), Trigger: Trigger{Nth: 2}},
	REST:      &AnswerFault{Stall: true},
	C2D:       &C2DFault{Outcome: "rejected", Condition: "amqp:internal-error", Description: "x", Delay: Duration(time.Second)},
	ListenLag: Duration(time.Second), Feedback: &Trigger{Every: 2}, C2DDuplicate: &Trigger{Times: 3},
	AMQP: AMQPFaults{
		FlowWithoutNextIncomingID: true, SASL: "required", CBS: &CBSFault{Status: 401, Description: "x"}, CBSMute: &Trigger{},
		Link: &LinkFault{Address: "devicebound", Condition: "x", Description: "y"}, Credit: &Trigger{}, Cut: &Trigger{}, HalfOpen: &Trigger{},
	},
	MQTT: MQTTFaults{
		ConnAck: &ConnAckFault{Code: 5}, ConnAckMute: &Trigger{}, PubAckDelay: Duration(time.Second), PubAckMute: &Trigger{}, Cut: &Trigger{Device: "d"},
		HalfOpen: &Trigger{}, Deaf: &DeafFault{Filter: "methods", How: "lie"}, PingMute: &Trigger{}, MethodQoS: 1, PropertiesFirst: true, Duplicate: &Trigger{},
	},
}

func TestFaultsJSON(t *testing.T) {
	if err := everyFault.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Faults{everyFault, {}} {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseFaults(b)
		if err != nil || !reflect.DeepEqual(f, again) {
			t.Errorf("%s: %+v, %v", b, again, err)
		}
	}
	if b, _ := json.Marshal(Faults{}); string(b) != `{}` {
		t.Errorf("no faults are %s", b)
	}
}

// Every pointer and every trigger of Faults is cloned and found by triggers.
func TestFaultsComplete(t *testing.T) {
	c := everyFault.clone()
	found := map[*Trigger]bool{}
	for _, trigger := range c.triggers() {
		found[trigger] = true
	}
	var walk func(a, b reflect.Value, name string)
	walk = func(a, b reflect.Value, name string) {
		switch a.Kind() {
		case reflect.Pointer:
			if a.IsNil() {
				t.Errorf("everyFault has no %s", name)
				return
			}
			if a.Pointer() == b.Pointer() {
				t.Errorf("clone shares %s", name)
			}
			if trigger, ok := b.Interface().(*Trigger); ok && !found[trigger] {
				t.Errorf("triggers does not know %s", name)
			}
			walk(a.Elem(), b.Elem(), name)
		case reflect.Struct:
			for i := range a.NumField() {
				f := a.Type().Field(i)
				if f.Anonymous && b.Field(i).CanAddr() && !found[b.Field(i).Addr().Interface().(*Trigger)] {
					t.Errorf("triggers does not know %s", name)
				}
				if f.IsExported() {
					walk(a.Field(i), b.Field(i), name+"."+f.Name)
				}
			}
		}
	}
	walk(reflect.ValueOf(&everyFault).Elem(), reflect.ValueOf(&c).Elem(), "Faults")
}

func TestFaultsRefused(t *testing.T) {
	for in, want := range map[string]string{
		`{"metod":{}}`:                                   "unknown field",
		`{"method":{"error":"throttled"}} x`:             "after the JSON value",
		`{"method":{}}`:                                  "does nothing",
		`{"method":{"error":"slow"}}`:                    "unavailable",
		`{"method":{"delay":"soon"}}`:                    "250ms",
		`{"method":{"delay":"-1s"}}`:                     "negative",
		`{"rest":{"stall":true,"error":"tier"}}`:         "at most one of error, stall",
		`{"rest":{"error":"tier","retryAfter":"1s"}}`:    "goes with",
		`{"rest":{"stall":true,"nth":1,"every":2}}`:      "rest: at most one of nth",
		`{"feedback":{"times":-1}}`:                      "feedback: a count is negative",
		`{"c2d":{}}`:                                     "does nothing",
		`{"c2d":{"outcome":"lost"}}`:                     "rejected, released",
		`{"c2d":{"outcome":"released","condition":"x"}}`: "goes with the outcome",
		`{"amqp":{"sasl":"maybe"}}`:                      "required, refused",
		`{"amqp":{"cbs":{"status":200}}}`:                "an error's",
		`{"mqtt":{"connAck":{"code":6}}}`:                "1 to 5",
		`{"mqtt":{"deaf":{"how":"x"}}}`:                  "refuse, ignore, lie",
		`{"mqtt":{"methodQoS":2}}`:                       "0 or 1",
		`{"mqtt":{"pubAckDelay":"-1s"}}`:                 "negative",
		`{"listenLag":"-1s"}`:                            "listenLag is negative",
		`{"errorForm":"latin"}`:                          "old, new",
		`{"c2d":{"outcome":"rejected","delay":"-1s"}}`:   "negative",
	} {
		if _, err := ParseFaults([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	h, err := newHub(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.SetFaults(Faults{ErrorForm: "x"}); err == nil || h.Faults().ErrorForm != "" {
		t.Errorf("SetFaults: %v", err)
	}
}

func TestTrigger(t *testing.T) {
	h, err := newHub(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		trigger *Trigger
		want    string
	}{
		{nil, "------"}, {&Trigger{}, "xxxxxx"}, {&Trigger{Nth: 2}, "-x----"}, {&Trigger{Every: 3}, "--x--x"}, {&Trigger{Times: 2}, "xx----"},
		{&Trigger{Times: 2, Device: "e"}, "------"}, {&Trigger{Times: 2, Device: "d"}, "xx----"},
	} {
		for range 2 { // setting them counts anew
			if err := h.SetFaults(Faults{MQTT: MQTTFaults{Cut: tt.trigger}}); err != nil {
				t.Fatal(err)
			}
			got := ""
			for range 6 {
				if h.strikes(func(f *Faults) *Trigger { return f.MQTT.Cut }, "d") {
					got += "x"
				} else {
					got += "-"
				}
			}
			if got != tt.want {
				t.Errorf("%+v: %s", tt.trigger, got)
			}
		}
	}
}

func FuzzParseFaults(f *testing.F) {
	b, _ := json.Marshal(everyFault)
	f.Add(b)
	f.Add([]byte(`{"method":{"error":"throttled","every":3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		faults, err := ParseFaults(b)
		if err != nil {
			return
		}
		out, err := json.Marshal(faults)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseFaults(out); err != nil || !reflect.DeepEqual(again, faults) {
			t.Errorf("%s becomes %s: %v", b, out, err)
		}
	})
}
