package emulator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// patience is how long a test waits for what comes at once.
const patience = 20 * time.Second

// runHub is a hub on sockets, with the device pump-7.
func runHub(t *testing.T, cfg Config) *Hub {
	t.Helper()
	cfg.Devices = append(cfg.Devices, Device{ID: "pump-7"})
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// pahoOptions are those of pump-7, by TLS.
func pahoOptions(t *testing.T, h *Hub) *paho.ClientOptions {
	t.Helper()
	return paho.NewClientOptions().AddBroker("tls://" + h.MQTTAddr()).SetProtocolVersion(4).SetClientID("pump-7").
		SetUsername("localhost/pump-7/?api-version=2021-04-12").SetPassword(tokenOf(t, h, pump)).
		SetTLSConfig(&tls.Config{RootCAs: h.RootCAs(), ServerName: "localhost"}).
		SetAutoReconnect(false).SetMaxReconnectInterval(50 * time.Millisecond)
}

// wait wants the token done and well.
func wait(t *testing.T, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("paho waits")
	}
	if token.Error() != nil {
		t.Fatal(token.Error())
	}
}

func pahoConnect(t *testing.T, o *paho.ClientOptions) paho.Client {
	t.Helper()
	c := paho.NewClient(o)
	wait(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func TestPaho(t *testing.T) {
	h := runHub(t, Config{})
	for name, broker := range map[string]string{
		"TLS": "tls://" + h.MQTTAddr(), "WebSocket": "wss://" + h.HTTPSAddr() + "/$iothub/websocket?iothub-no-client-cert=true",
	} {
		t.Run(name, func(t *testing.T) {
			o := pahoOptions(t, h)
			o.Servers = nil
			lost := make(chan error, 1) // paho may take the end of the test for a loss
			o.AddBroker(broker).SetConnectionLostHandler(func(_ paho.Client, err error) {
				select {
				case lost <- err:
				default:
				}
			})
			c := pahoConnect(t, o)
			testPaho(t, h, c)
			select {
			case err := <-lost:
				t.Error("lost:", err)
			default:
			}
		})
	}
}

func testPaho(t *testing.T, h *Hub, c paho.Client) {
	messages, answers := make(chan paho.Message, 10), make(chan paho.Message, 10)
	wait(t, c.Subscribe(boundFilter, 1, func(_ paho.Client, m paho.Message) { messages <- m }))
	wait(t, c.Subscribe(twinFilter, 0, func(_ paho.Client, m paho.Message) { answers <- m }))
	wait(t, c.Subscribe(methodsFilter, 0, func(c paho.Client, m paho.Message) {
		_, rid, _ := strings.Cut(m.Topic(), "?")
		c.Publish("$iothub/methods/res/200/?"+rid, 0, false, m.Payload())
	}))

	done := h.Stats().MessagesCompleted
	body := strings.Repeat("x", 60<<10)
	if err := h.enqueueC2D(soon(t), pump, &c2dMessage{ID: "m1", Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, messages); string(m.Payload()) != body || m.Qos() != 1 {
		t.Errorf("a message of %d bytes at QoS %d", len(m.Payload()), m.Qos())
	}
	for deadline := time.Now().Add(patience); h.Stats().MessagesCompleted == done; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not completed")
		}
	}

	payload := `{"acceptUrl":"` + strings.Repeat("y", 100<<10) + `"}`
	a, err := h.invokeMethod(soon(t), pump, methodRequest{Name: "Bridge", Payload: []byte(payload), Respond: patience})
	if err != nil || a.Status != 200 || string(a.Payload) != payload {
		t.Errorf("a method got %v and %d bytes", err, len(a.Payload))
	}

	wait(t, c.Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 1, false, `{"a":1}`))
	if m := receive(t, answers); !strings.HasPrefix(m.Topic(), "$iothub/twin/res/204/?$rid=1&$version=") {
		t.Errorf("got %s", m.Topic())
	}
	wait(t, c.Publish("devices/pump-7/messages/events/", 1, false, "hello"))
	events := h.Events()
	if e := events[len(events)-1]; string(e.Body) != "hello" {
		t.Errorf("got %q", e.Body)
	}
}

func TestPahoRefused(t *testing.T) {
	h := runHub(t, Config{})
	c := paho.NewClient(pahoOptions(t, h).SetPassword("SharedAccessSignature sr=x&sig=y&se=1"))
	token := c.Connect()
	if !token.WaitTimeout(patience) || token.Error() == nil || !strings.Contains(token.Error().Error(), "not Authorized") {
		t.Errorf("got %v", token.Error())
	}
}

// Paho takes a refused SUBSCRIBE for one that went well: only Result tells.
func TestPahoSubscriptionRefused(t *testing.T) {
	h := runHub(t, Config{Faults: Faults{MQTT: MQTTFaults{Deaf: &DeafFault{}}}})
	token := pahoConnect(t, pahoOptions(t, h)).Subscribe(methodsFilter, 1, nil)
	wait(t, token)
	if code := token.(*paho.SubscribeToken).Result()[methodsFilter]; code != 0x80 {
		t.Errorf("SUBACK %#x, want 0x80", code)
	}
}

func TestPahoByCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	h := runHub(t, Config{Devices: []Device{{ID: "pump-9", Thumbprints: []string{hex.EncodeToString(sum[:])}}}})
	for _, broker := range []string{"tls://" + h.MQTTAddr(), "wss://" + h.HTTPSAddr() + "/$iothub/websocket"} {
		o := pahoOptions(t, h).SetClientID("pump-9").SetUsername("localhost/pump-9/?api-version=2021-04-12").SetPassword("")
		o.Servers = nil
		o.AddBroker(broker)
		o.TLSConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		pahoConnect(t, o).Disconnect(0)
	}
}

// Two clients of one device: the first is cut without a reason. If it may, it
// comes back, and so it goes on.
func TestPahoTakeover(t *testing.T) {
	h := runHub(t, Config{})
	lost := make(chan error, 1)
	first := pahoConnect(t, pahoOptions(t, h).SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err }))
	second := pahoConnect(t, pahoOptions(t, h))
	if err := receive(t, lost); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("lost by %v, want EOF", err)
	}
	if first.IsConnected() || !second.IsConnected() || h.Stats().Takeovers != 1 {
		t.Errorf("first connected %t, second %t, takeovers %d", first.IsConnected(), second.IsConnected(), h.Stats().Takeovers)
	}
}

// A socket that dies in the middle of a PUBLISH: the client comes back and has
// the message then.
func TestPahoComesBack(t *testing.T) {
	for name, f := range map[string]MQTTFaults{
		"cut":       {Cut: &Trigger{Times: 1}},
		"half-open": {HalfOpen: &Trigger{Times: 1}},
		"refused":   {ConnAck: &ConnAckFault{Trigger: Trigger{Times: 2}}},
	} {
		t.Run(name+" TLS", func(t *testing.T) { testComesBack(t, f, false) })
		t.Run(name+" WebSocket", func(t *testing.T) { testComesBack(t, f, true) })
	}
}

func testComesBack(t *testing.T, f MQTTFaults, ws bool) {
	t.Parallel()
	h := runHub(t, Config{Faults: Faults{MQTT: f}})
	messages := make(chan paho.Message, 10)
	o := pahoOptions(t, h).SetAutoReconnect(true).SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond).
		SetKeepAlive(time.Second).SetPingTimeout(500 * time.Millisecond).
		SetOnConnectHandler(func(c paho.Client) {
			c.Subscribe(boundFilter, 1, func(_ paho.Client, m paho.Message) { messages <- m })
		})
	if ws {
		o.Servers = nil
		o.AddBroker("wss://" + h.HTTPSAddr() + "/$iothub/websocket")
	}
	pahoConnect(t, o)
	if err := h.enqueueC2D(soon(t), pump, &c2dMessage{Body: []byte("body")}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, messages); string(m.Payload()) != "body" {
		t.Errorf("got %q", m.Payload())
	}
}
