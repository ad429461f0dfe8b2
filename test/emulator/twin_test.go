package emulator

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	object := func(s string) (o map[string]any) {
		if err := decodeJSON([]byte(s), &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, tt := range []struct{ to, patch, want string }{
		{`{}`, `{"a":1}`, `{"a":1}`},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":null}}`, `{"a":{"c":2}}`},
		{`{"a":{"b":1}}`, `{"a":5}`, `{"a":5}`},
		{`{"a":5}`, `{"a":{"b":{"c":null,"d":1}}}`, `{"a":{"b":{"d":1}}}`},
		{`{"a":1,"b":2}`, `{"a":null,"x":null}`, `{"b":2}`},
		{`{"a":[1]}`, `{"a":[2,3]}`, `{"a":[2,3]}`},
	} {
		to := object(tt.to)
		got := merge(to, object(tt.patch))
		if !reflect.DeepEqual(got, object(tt.want)) {
			t.Errorf("%s with %s: %v", tt.to, tt.patch, got)
		}
		if !reflect.DeepEqual(to, object(tt.to)) {
			t.Errorf("%s was changed to %v", tt.to, to)
		}
		if again := merge(to, difference(to, got)); !reflect.DeepEqual(again, got) {
			t.Errorf("the difference of %s and %v is %v", tt.to, got, difference(to, got))
		}
	}
}

func TestTwinOfDevice(t *testing.T) {
	core(t, Config{}, func(t *testing.T, h *Hub) {
		a, link := on(t, h, dev, ListenDesired)
		update := func(replace bool, desired string) {
			t.Helper()
			var p twinPatch
			if err := decodeJSON([]byte(`{"properties":{"desired":`+desired+`}}`), &p); err != nil {
				t.Fatal(err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if err := h.updateTwin(h.devices["d"], p, replace); err != nil {
				t.Fatal(err)
			}
		}
		version, err := a.patchReported([]byte(`{"fw":"1.2","$version":77,"net":{"ip":"::1"}}`))
		if err != nil || version != 2 {
			t.Errorf("reported: %d, %v", version, err)
		}
		if version, err = a.patchReported([]byte(`{"fw":null,"net":{"up":true}}`)); err != nil || version != 3 {
			t.Errorf("reported: %d, %v", version, err)
		}
		update(false, `{"rate":1.50,"old":true}`)
		update(false, `{"old":null}`)
		update(true, `{"rate":2,"new":{"a":"b"}}`)
		update(true, `{"new":{"a":"b"}}`)
		want := []string{
			`2 {"$version":2,"old":true,"rate":1.50}`, `3 {"$version":3,"old":null}`,
			`4 {"$version":4,"new":{"a":"b"},"rate":2}`, `5 {"$version":5,"rate":null}`,
		}
		if !slices.Equal(link.desires, want) {
			t.Errorf("pushed %q", link.desires)
		}
		got, err := a.getTwin()
		if err != nil || string(got) != `{"desired":{"$version":5,"new":{"a":"b"}},"reported":{"$version":3,"net":{"ip":"::1","up":true}}}` {
			t.Errorf("got %s, %v", got, err)
		}
		for _, bad := range []string{``, `[]`, `null`, `{"a b":1}`, `{"a":{"x.y":1}}`, `{} {}`, `{"a":"` + strings.Repeat("x", maxTwinSection) + `"}`,
			strings.Repeat(`{"a":`, 11) + `1` + strings.Repeat(`}`, 11)} {
			if _, err := a.patchReported([]byte(bad)); err == nil {
				t.Errorf("%.30s is taken", bad)
			}
		}
		a.detach()
		if _, err := a.getTwin(); err == nil {
			t.Error("a detached link reads the twin")
		}
	})
	core(t, Config{Tier: Basic}, func(t *testing.T, h *Hub) {
		a, _ := on(t, h, dev)
		if _, err := a.getTwin(); err == nil || err.Code != 403010 {
			t.Errorf("basic: %v", err)
		}
	})
}

func FuzzPatchReported(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,null],"c":null},"$version":3}`))
	f.Add([]byte(`{"a":1e999}`))
	h, err := newHub(Config{Devices: []Device{{ID: "d"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h.mu.Lock()
		h.devices["d"].twin = newTwin()
		h.mu.Unlock()
		a := &attachment{h: h, r: h.devices["d"], id: dev}
		if _, err := a.patchReported(b); err != nil {
			return
		}
		if got, err := a.getTwin(); err != nil || !json.Valid(got) {
			t.Errorf("%s: %v", got, err)
		}
	})
}
