//go:build clients

package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"websocketbridge/test/emulator"
	"websocketbridge/test/process/processtest"
)

// startRelay runs a relay that signals through the hub. It returns its address,
// as ws://….
func startRelay(t *testing.T, h *hub, signaler string, env ...string) string {
	t.Helper()
	public, admin := freeAddr(t), freeAddr(t)
	env = append(env,
		"RELAY_LISTEN="+public, "RELAY_PLAIN=true", "RELAY_ADMIN_LISTEN="+admin, "RELAY_AUTH=none",
		"RELAY_CONNECTS_PER_DEVICE=0", "RELAY_CONNECTS_PER_ADDRESS=0", "RELAY_CONNECTS_PER_PRINCIPAL=0", "RELAY_MAX_PER_DEVICE=0", // one of each is everybody here
		"RELAY_SIGNALER="+signaler, "RELAY_HUB_CONNECTION_STRING="+h.ServiceConnectionString("service"), "RELAY_HUB_CA_FILE="+h.caFile,
		"RELAY_DRAIN=1s", "RELAY_LOG_FORMAT=json", "RELAY_LOG_LEVEL=debug",
	)
	if signaler != "method" {
		env = append(env, "RELAY_HUB_AMQP_ADDR="+h.AMQPAddr())
	}
	if signaler != "c2d" {
		env = append(env, "RELAY_HUB_HTTPS_ADDR="+h.HTTPSAddr())
	}
	p := start(t, processtest.BareEnv(env...), "", filepath.Join(bin, "relay"))
	until(t, "the relay is ready", func() error {
		p.MustRun()
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	t.Cleanup(func() { // the secrets of this test, and what stands for all of them
		for _, secret := range []string{"SharedAccessSignature", "SharedAccessKey=", "bridgeToken="} {
			if strings.Contains(p.Err.String(), secret) {
				t.Errorf("the relay's log has %s in it", secret)
			}
		}
	})
	return "ws://" + public
}

// freeAddr is one that nobody listens on, below those that the kernel gives to
// connections, so that it stays free until a process takes it.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort(hubAddress, fmt.Sprint(10_000+rand.IntN(20_000)))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// refused is an answer to a requester that is no bridge.
type refused struct {
	status int
	body   string
}

func (r *refused) Error() string { return fmt.Sprintf("refused: %d %s", r.status, r.body) }

// connect is a requester, who shares no line with us either.
func connect(relay, device string, query url.Values) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	query.Set("deviceId", device)
	c, resp, err := websocket.Dial(ctx, relay+"/bridge/connect?"+query.Encode(), nil)
	if err != nil {
		if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, err
		}
		body, _ := io.ReadAll(resp.Body)
		return nil, &refused{resp.StatusCode, string(body)}
	}
	c.SetReadLimit(-1)
	return c, nil
}

// echo sends a message over a bridge and wants it back.
func echo(c *websocket.Conn, typ websocket.MessageType, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- c.Write(ctx, typ, data) }()
	gotType, got, err := c.Read(ctx)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if gotType != typ || !bytes.Equal(got, data) {
		return fmt.Errorf("%v of %d bytes came back as %v of %d bytes, or others", typ, len(data), gotType, len(got))
	}
	return nil
}

// A script is a program of node/ that runs until its input ends.
type script struct{ *processtest.Process }

// said is a line of a script.
type said struct {
	Event, By, BridgeID, MessageID, Body, Error, What, Reason string
	Status, Code                                              int
	Messages, Methods, Events                                 int
}

func startScript(t *testing.T, h *hub, name string, env ...string) *script {
	t.Helper()
	s := &script{startPiped(t, nodeEnv(h.caFile, env...), nodeDir, "node", name)}
	s.Event("online", 1)
	return s
}

// heard returns the lines of an event so far.
func (s *script) heard(event string) (all []said) {
	for _, l := range processtest.JSON[said](s.Out) {
		if l.Event == event {
			all = append(all, l)
		}
	}
	return all
}

// wait waits for the nth line of an event.
func (s *script) wait(t *testing.T, event string, n int) said {
	t.Helper()
	s.Awaits(fmt.Sprintf("says %q for the %dth time", event, n), func() bool { return len(s.heard(event)) >= n })
	return s.heard(event)[n-1]
}

// TestBridgeToSDKDevice bridges to a device that was written with Microsoft's SDK
// and ws.
func TestBridgeToSDKDevice(t *testing.T) {
	h := newHub(t, quick())
	for _, c := range []struct {
		signaler, transport, by string
		env                     []string
	}{
		{"method", "Mqtt", "method", nil},
		{"c2d", "Mqtt", "message", nil},
		{"auto", "MqttWs", "method", nil},
		{"auto", "MqttWs", "message", []string{"METHODS=no"}},
		{"method", "AmqpWs", "method", nil},
		{"c2d", "Amqp", "message", nil},
	} {
		t.Run(c.signaler+" over "+c.transport+" by "+c.by, func(t *testing.T) {
			id := strings.ReplaceAll(strings.ToLower("pump-"+c.signaler+"-"+c.transport+"-"+c.by), " ", "-")
			relay := startRelay(t, h, c.signaler, "RELAY_DIAL_BACK=8s")
			d := startScript(t, h, "device.mjs", append(c.env, "DEVICE="+h.device(t, id)[0], "TRANSPORT="+c.transport)...)
			wantListening(t, h, id, c.by)

			for i := 1; i <= 3; i++ {
				b, err := connect(relay, id, url.Values{"requestData": {"yes"}})
				if err != nil {
					t.Fatal(err)
				}
				if s := d.wait(t, "signal", i); s.By != c.by {
					t.Errorf("the signal came by %s, want %s", s.By, c.by)
				}
				random := make([]byte, 1<<20)
				rand.NewChaCha8([32]byte{byte(i)}).Read(random)
				for _, m := range []struct {
					typ  websocket.MessageType
					data []byte
				}{
					{websocket.MessageText, []byte("hello ü € 𝄞")}, {websocket.MessageBinary, []byte{0, 1, 255}},
					{websocket.MessageText, nil}, {websocket.MessageBinary, random},
				} {
					if err := echo(b, m.typ, m.data); err != nil {
						t.Fatal(err)
					}
				}
				b.Close(4001, "out of paper")
				if got := d.wait(t, "closed", i); got.Code != 4001 || got.Reason != "out of paper" {
					t.Errorf("the device saw %d %q, want 4001 and the requester's words", got.Code, got.Reason)
				}
			}

			_, err := connect(relay, id, url.Values{"requestData": {"no"}})
			if r := (*refused)(nil); !errors.As(err, &r) || r.status != 409 || !strings.Contains(r.body, "come back at noon") {
				t.Errorf("a device that refuses: %v, want 409 with its words", err)
			}

			if got := d.heard("disconnect"); len(got) > 0 {
				t.Errorf("the device lost its hub: %v", got)
			}
			if n := h.Stats().Connects[id]; n != 1 {
				t.Errorf("the device connected %d times", n)
			}
		})
	}

	t.Run("not there", func(t *testing.T) {
		relay := startRelay(t, h, "method")
		h.device(t, "idle")
		for id, code := range map[string]string{"idle": "device_offline", "nobody": "device_not_found"} {
			_, err := connect(relay, id, url.Values{})
			if r := (*refused)(nil); !errors.As(err, &r) || r.status != 404 || !strings.Contains(r.body, code) {
				t.Errorf("%s: %v, want 404 with %s", id, err, code)
			}
		}
	})

	// The device's own messages are not ours, and ours are not its.
	t.Run("own messages", func(t *testing.T) {
		relay := startRelay(t, h, "c2d")
		cs := h.device(t, "pump-own")[0]
		d := startScript(t, h, "device.mjs", "DEVICE="+cs, "TRANSPORT=Mqtt")
		b, err := connect(relay, "pump-own", url.Values{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.CloseNow()
		signal := d.wait(t, "signal", 1)
		if signal.BridgeID == "" || signal.MessageID != signal.BridgeID {
			t.Errorf("the message's id is %q, want the bridge's, %q", signal.MessageID, signal.BridgeID)
		}
		if got := d.heard("message"); len(got) != 0 {
			t.Errorf("a signal was taken for a message: %v", got)
		}
	})
}

// wantListening waits until the hub would hand a device what comes by method or
// message.
func wantListening(t *testing.T, h *hub, id, by string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	what := emulator.ListenMethods
	if by == "message" {
		what = emulator.ListenMessages
	}
	if err := h.WaitListening(ctx, id, "", what); err != nil {
		t.Fatal(err)
	}
}
