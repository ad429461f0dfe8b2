package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/amenzhinsky/iothub/iotdevice"
	transport "github.com/amenzhinsky/iothub/iotdevice/transport/mqtt"
	"github.com/amenzhinsky/iothub/logger"
	paho "github.com/eclipse/paho.mqtt.golang"
)

// iotdeviceConnect is pump-7 by amenzhinsky/iothub, whose life ctx is: it keeps
// the ctx of a first call for later.
func iotdeviceConnect(t *testing.T, h *Hub, more func(*paho.ClientOptions)) *iotdevice.Client {
	t.Helper()
	cs, err := h.DeviceConnectionString("pump-7")
	if err != nil {
		t.Fatal(err)
	}
	tr := transport.New(transport.WithClientOptionsConfig(func(o *paho.ClientOptions) {
		o.Servers = []*url.URL{{Scheme: "tls", Host: h.MQTTAddr()}}
		o.SetTLSConfig(&tls.Config{RootCAs: h.RootCAs(), ServerName: "localhost"})
		o.SetMaxReconnectInterval(50 * time.Millisecond)
		more(o)
	}))
	c, err := iotdevice.NewFromConnectionString(tr, cs, iotdevice.WithLogger(logger.New(logger.LevelOff, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// unordered is what makes amenzhinsky/iothub safe with slow methods.
func unordered(o *paho.ClientOptions) { o.SetOrderMatters(false) }

func TestIotdevice(t *testing.T) {
	h := runHub(t, Config{})
	c := iotdeviceConnect(t, h, unordered)
	ctx := soon(t)

	messages, err := c.SubscribeEvents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(time.Minute)
	if err := h.enqueueC2D(ctx, pump, &c2dMessage{
		ID: "m1", CorrelationID: "c1", UserID: "u1", Expiry: expires, Body: []byte("body"), Properties: []property{propertyOf("k", "v w")},
	}); err != nil {
		t.Fatal(err)
	}
	m := receive(t, messages.C())
	if m.MessageID != "m1" || m.CorrelationID != "c1" || m.UserID != "u1" || m.To != "/devices/pump-7/messages/devicebound" || string(m.Payload) != "body" || m.Properties["k"] != "v w" {
		t.Errorf("got %+v", m)
	}
	if m.ExpiryTime == nil || m.ExpiryTime.Sub(expires).Abs() > time.Microsecond {
		t.Errorf("expires %v, want %v", m.ExpiryTime, expires)
	}

	if err := c.RegisterMethod(ctx, "Bridge", func(in map[string]any) (int, map[string]any, error) { return 202, in, nil }); err != nil {
		t.Fatal(err)
	}
	a, bad := h.invokeMethod(ctx, pump, methodRequest{Name: "Bridge", Payload: []byte(`{"a":1}`), Respond: patience})
	if bad != nil || a.Status != 202 || string(a.Payload) != `{"a":1}` {
		t.Errorf("got %+v %v", a, bad)
	}
	if a, bad = h.invokeMethod(ctx, pump, methodRequest{Name: "Bridge", Respond: patience}); bad != nil || a.Status != 202 || string(a.Payload) != "{}" {
		t.Errorf("without a payload: %+v %v", a, bad)
	}

	updates, err := c.SubscribeTwinUpdates(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.UpdateTwinState(ctx, iotdevice.TwinState{"a": 1}); v != 2 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	if desired, reported, err := c.RetrieveTwinState(ctx); err != nil || desired.Version() != 1 || reported.Version() != 2 || reported["a"] != 1.0 {
		t.Errorf("got %v and %v, %v", desired, reported, err)
	}
	h.mu.Lock()
	r, _ := h.find(pump)
	var change twinPatch
	change.Properties.Desired = map[string]any{"speed": 2}
	h.updateTwin(r, change, false)
	h.mu.Unlock()
	if u := receive(t, updates.C()); u["speed"] != 2.0 || u.Version() != 2 {
		t.Errorf("got %v", u)
	}

	if err := c.SendEvent(ctx, []byte("hello"), iotdevice.WithSendMessageID("e1"), iotdevice.WithSendProperty("p", "a b/c")); err != nil {
		t.Fatal(err)
	}
	events := h.Events()
	if e := events[len(events)-1]; string(e.Body) != "hello" || e.Properties["$.mid"] != "e1" || e.Properties["p"] != "a b/c" {
		t.Errorf("got %+v", e)
	}
}

// Two clients of one device take it from each other for as long as both live.
func TestIotdeviceTakeover(t *testing.T) {
	h := runHub(t, Config{})
	retry := func(o *paho.ClientOptions) { // the other may be back before the CONNACK
		unordered(o)
		o.SetConnectRetry(true).SetConnectRetryInterval(10 * time.Millisecond)
	}
	iotdeviceConnect(t, h, retry)
	iotdeviceConnect(t, h, retry)
	ctx := soon(t)
	for h.Stats().Takeovers < 4 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d takeovers", h.Stats().Takeovers)
		}
	}
}

// With paho's default of ordered callbacks, amenzhinsky/iothub answers a method
// in the callback and waits there for a PUBACK which paho cannot read, once
// another PUBLISH stands before it. The hub of this test sends PUBACKs late, as a
// hub far away does. Nothing heals it: the client says that it is connected.
func TestIotdeviceWedges(t *testing.T) {
	overlap := func(t *testing.T, more func(*paho.ClientOptions)) (answered int) {
		h := runHub(t, Config{Faults: Faults{MQTT: MQTTFaults{PubAckDelay: Duration(100 * time.Millisecond)}}})
		c := iotdeviceConnect(t, h, more)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel() // which frees the callbacks
		if err := c.RegisterMethod(ctx, "Bridge", func(map[string]any) (int, map[string]any, error) { return 200, nil, nil }); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 4 {
			wg.Go(func() {
				if _, err := h.invokeMethod(ctx, pump, methodRequest{Name: "Bridge", Respond: 2 * time.Second}); err == nil {
					mu.Lock()
					answered++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return answered
	}
	t.Run("ordered", func(t *testing.T) {
		t.Parallel()
		if n := overlap(t, func(*paho.ClientOptions) {}); n == 4 {
			t.Error("all four calls were answered: is the library's bug gone?")
		}
	})
	t.Run("unordered", func(t *testing.T) {
		t.Parallel()
		if n := overlap(t, unordered); n != 4 {
			t.Errorf("%d of 4 calls were answered", n)
		}
	})
}

// A first SUBSCRIBE that fails makes amenzhinsky/iothub deaf: the next call says
// that all is well and subscribes to nothing. One that the hub refuses does not
// even fail.
func TestIotdeviceDeaf(t *testing.T) {
	handler := func(map[string]any) (int, map[string]any, error) { return 200, nil, nil }
	for _, how := range []string{"ignore", "refuse"} {
		h := runHub(t, Config{Faults: Faults{MQTT: MQTTFaults{Deaf: &DeafFault{Trigger: Trigger{Times: 1}, Filter: "methods", How: how}}}})
		c := iotdeviceConnect(t, h, unordered)
		if how == "ignore" {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := c.RegisterMethod(ctx, "Bridge", handler); err == nil {
				t.Error("no SUBACK was no error")
			}
		}
		ctx := soon(t)
		if err := c.RegisterMethod(ctx, "Bridge", handler); err != nil {
			t.Errorf("%s: %v: is the library's bug gone?", how, err)
		}
		if _, err := h.invokeMethod(ctx, pump, methodRequest{Name: "Bridge", Respond: patience}); err == nil || err.Code != 404103 {
			t.Errorf("%s: a call got %v, want 404103: is the library's bug gone?", how, err)
		}
	}
}

// amenzhinsky/iothub decodes a bag twice, and drops what stands before the first
// system property.
func TestIotdeviceProperties(t *testing.T) {
	h := runHub(t, Config{})
	c := iotdeviceConnect(t, h, unordered)
	ctx := soon(t)
	messages, err := c.SubscribeEvents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	deliver := func(first bool, value string) map[string]string {
		if err := h.SetFaults(Faults{MQTT: MQTTFaults{PropertiesFirst: first}}); err != nil {
			t.Fatal(err)
		}
		if err := h.enqueueC2D(ctx, pump, &c2dMessage{ID: "m1", Properties: []property{propertyOf("u", value)}}); err != nil {
			t.Fatal(errors.New(err.String()))
		}
		return receive(t, messages.C()).Properties
	}
	if got := deliver(false, "plain")["u"]; got != "plain" {
		t.Errorf("got %q", got)
	}
	if got := deliver(false, "wss://a/b?c=d&e=f"); got["u"] != "wss://a/b?c=d" || got["e"] != "f" {
		t.Errorf("got %v: is the library's bug gone?", got)
	}
	if got, ok := deliver(true, "plain")["u"]; ok {
		t.Errorf("got %q: is the library's bug gone?", got)
	}
}

// A method that nobody registered gets no answer at all, and a payload that is no
// object gets 500.
func TestIotdeviceMethods(t *testing.T) {
	h := runHub(t, Config{})
	c := iotdeviceConnect(t, h, unordered)
	ctx := soon(t)
	if err := c.RegisterMethod(ctx, "Bridge", func(map[string]any) (int, map[string]any, error) { return 200, nil, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := h.invokeMethod(ctx, pump, methodRequest{Name: "Other", Respond: 100 * time.Millisecond}); err == nil || err.Code != 504101 {
		t.Errorf("an unknown method got %v, want 504101", err)
	}
	if a, err := h.invokeMethod(ctx, pump, methodRequest{Name: "Bridge", Payload: []byte(`"text"`), Respond: patience}); err != nil || a.Status != 500 {
		t.Errorf("a text got %+v %v, want status 500", a, err)
	}
}
