package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler"
	"websocketbridge/signaler/sas"
)

func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.handle = func(d signaler.Delivery) *signaler.Refusal {
			if strings.Contains(string(d.Payload), "no") {
				return &signaler.Refusal{Code: "target_not_allowed", Message: `target "<web>" is not on the list`}
			}
			return nil
		}
		l.run()
		c := l.accept()
		p := c.connect
		if p.ClientIdentifier != device || p.Username != hubName+"/"+device+"/?api-version=2021-04-12&DeviceClientType=websocketbridge%2Fdeviceagent" ||
			!p.CleanSession || p.WillFlag || p.ProtocolVersion != 4 || p.Keepalive != 55 {
			t.Errorf("CONNECT %v", p)
		}
		token, err := sas.ParseToken(string(p.Password))
		if err != nil || !token.Verify(key) || !token.Covers(sas.Resource(hubName, device, "")) || token.Covers(sas.Resource(hubName, "pump-8", "")) || token.Covers(hubName) {
			t.Errorf("the token is %v, %v", token, err)
		}
		if life := time.Until(token.Expiry); life < time.Hour || life > time.Hour+time.Second {
			t.Errorf("the token lives for %v", life)
		}
		c.connack(0)
		if got, want := c.subscribed(2, 0), []string{"$iothub/methods/POST/# 0", "devices/pump-7/messages/devicebound/# 1"}; !slices.Equal(got, want) {
			t.Errorf("subscribed to %q, want %q", got, want)
		}

		c.publish(ours, 1, 7, "PAYLOAD one")
		if d := <-l.seen; string(d.Payload) != "PAYLOAD one" || d.Answers {
			t.Errorf("got %v", d)
		}
		if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != 7 {
			t.Errorf("not acknowledged: %v", a)
		}
		c.call("1a", "PAYLOAD two")
		if d := <-l.seen; string(d.Payload) != "PAYLOAD two" || !d.Answers {
			t.Errorf("got %v", d)
		}
		if got := c.answer(); got != "200 1a {}" {
			t.Errorf("answered %s", got)
		}
		c.call("2", "PAYLOAD no")
		<-l.seen
		if got, want := c.answer(), `409 2 {"code":"target_not_allowed","message":"target \"<web>\" is not on the list"}`; got != want {
			t.Errorf("answered %s, want %s", got, want)
		}
		c.call("3", "") // the handler's to refuse
		if d := <-l.seen; len(d.Payload) != 0 {
			t.Errorf("got %v", d)
		}
		c.answer()
		// A hub that calls at QoS 1 stops after a few calls that are not acknowledged.
		c.publish("$iothub/methods/POST/Bridge/?$rid=4", 1, 9, "PAYLOAD three")
		if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != 9 {
			t.Errorf("not acknowledged: %v", a)
		}
		if got := c.answer(); got != "200 4 {}" {
			t.Errorf("answered %s", got)
		}
		synctest.Wait()
		if got := l.src.Stats(); got != (Stats{Listening: true, Connects: 1, Signals: 5}) {
			t.Errorf("counted %+v", got)
		}
		l.cancel()
		if !c.lost() {
			t.Error("it left without DISCONNECT")
		}
		l.stop()
		l.wantLog(1, "listening for signals of the hub")
	})
}

func TestModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *Config) { c.ModuleID = "bridge" }).run()
		c := l.accept()
		if p := c.connect; p.ClientIdentifier != device+"/bridge" || !strings.HasPrefix(p.Username, hubName+"/"+device+"/bridge/?api-version=2021-04-12") {
			t.Errorf("CONNECT %v", p)
		}
		token, err := sas.ParseToken(string(c.connect.Password))
		if err != nil || !token.Covers(sas.Resource(hubName, device, "bridge")) || token.Covers(sas.Resource(hubName, device, "")) {
			t.Errorf("the token is %v, %v", token, err)
		}
		c.connack(0)
		if got, want := c.subscribed(1, 0), []string{"$iothub/methods/POST/# 0"}; !slices.Equal(got, want) {
			t.Errorf("subscribed to %q, want %q", got, want)
		}
		c.call("1", "PAYLOAD")
		if got := c.answer(); got != "200 1 {}" {
			t.Errorf("answered %s", got)
		}
		// Officially modules get no messages, so one is somebody else's.
		c.publish("devices/pump-7/modules/bridge/messages/devicebound/bridge-signal=v1", 1, 3, "PAYLOAD")
		if _, ok := c.next().(*packets.PubackPacket); !ok || len(l.seen) != 1 {
			t.Error("a message to a module was not thrown away")
		}
		synctest.Wait()
		l.stop()
		l.wantLog(2, "module=bridge")
	})
}

// What is not for the agent is acknowledged or answered, counted, and told once.
func TestForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		c := l.welcome()
		for i, topic := range []string{
			"devices/pump-7/messages/devicebound/%24.mid=1&%24.to=x", "devices/pump-7/messages/devicebound/", "devices/pump-7/messages/devicebound/bridge-signal",
			"devices/pump-7/messages/devicebound/bridge-signal=v2", "devices/pump-7/messages/devicebound/a=b%26bridge-signal%3Dv1",
			"$iothub/twin/PATCH/properties/desired/?$version=2", "$iothub/methods/POST//?$rid=1", "$iothub/methods/POST/Bridge", "$iothub/methods/POST/Bridge/?$rid=+",
		} {
			c.publish(topic, 1, uint16(i+1), "PAYLOAD")
			if a, ok := c.next().(*packets.PubackPacket); !ok || a.MessageID != uint16(i+1) {
				t.Errorf("%s is not acknowledged: %v", topic, a)
			}
		}
		for _, name := range []string{"reboot", "bridge"} {
			c.publish("$iothub/methods/POST/"+name+"/?$rid=5", 0, 0, "PAYLOAD")
			var no signaler.Refusal
			status, body, _ := strings.Cut(c.answer(), " 5 ")
			if err := json.Unmarshal([]byte(body), &no); err != nil || status != "501" || no.Code != "unknown_method" || !strings.Contains(no.Message, "bridge agent") {
				t.Errorf("%s: answered %s %s", name, status, body)
			}
		}
		if got := l.src.Stats(); got.ForeignMessages != 9 || got.ForeignMethods != 2 || got.Signals != 0 {
			t.Errorf("counted %+v", got)
		}
		l.wantLog(1, "a message that is no signal is thrown away")
		time.Sleep(again)
		c.publish("devices/pump-7/messages/devicebound/", 0, 0, "PAYLOAD")
		synctest.Wait()
		l.wantLog(2, "a message that is no signal is thrown away")
		l.wantLog(1, "times=9")
		l.stop()
	})
}

// Trap 4: after every connect the subscriptions are proved, and a deaf connection
// does not live.
func TestDeaf(t *testing.T) {
	for _, tt := range []struct {
		name string
		deaf func(*conn)
		want string
	}{
		{"refused", func(c *conn) { c.subscribed(2, 0x80) }, "SUBACK 0x80"},
		{"the second refused", func(c *conn) { c.subscribed(1, 0); c.subscribed(1, 0x80) }, "subscribe to cloud-to-device messages: the hub did not take the subscription: SUBACK 0x80"},
		{"no answer", func(*conn) {}, "no SUBACK within 15s"},
		{"half an answer", func(c *conn) { c.subscribed(1, 0) }, "no SUBACK within 15s"},
		{"closed", func(c *conn) { c.next(); c.close() }, "subscribe to direct methods: the hub closed the connection"},
		{"an answer that would make paho panic", func(c *conn) {
			s := c.next().(*packets.SubscribePacket)
			c.sendBytes(0x90, 4, byte(s.MessageID>>8), byte(s.MessageID), 0, 0)
		}, "the hub sent what is not MQTT: a SUBACK of 4 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil).run()
				for range 5 { // each reconnect anew
					c := l.accept()
					c.connack(0)
					tt.deaf(c)
					c.lost()
				}
				if l.src.Stats().Connects != 0 {
					t.Error("a deaf connection counts")
				}
				c := l.welcome()
				c.call("1", "PAYLOAD")
				c.answer()
				l.stop()
				l.wantLog(1, "level=WARN")
				if l.logged(tt.want) == 0 {
					t.Errorf("%q is not in the log", tt.want)
				}
			})
		})
	}
}

// Credentials that are refused are tried for ever, slowly, and told once.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		start := time.Now()
		for range 9 {
			c := l.accept()
			c.connack(5)
			c.close()
		}
		if took := time.Since(start); took < 8*30*time.Second || took > 8*60*time.Second {
			t.Errorf("nine tries within %v", took)
		}
		l.wantLog(1, "level=WARN")
		l.wantLog(1, "is this device's clock right? it says 2000-01-01T00:00:00Z")
		l.welcome()
		synctest.Wait()
		l.wantLog(1, "listening for signals of the hub")
		if got := l.src.Stats(); got.Refusals != 9 {
			t.Errorf("counted %+v", got)
		}
		l.stop()
	})
}

// A refused CONNECT must not be tried again with MQTT 3.1 on the spot.
func TestOneTryPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		for _, code := range []byte{1, 2, 3, 4, 5} {
			c := l.accept()
			c.connack(code)
			c.close()
			n := l.dialed.Load()
			synctest.Wait()
			if got := l.dialed.Load(); got != n {
				t.Errorf("CONNACK %d: dialled again at once", code)
			}
		}
		l.stop()
	})
}

// Trap 6: a hub that does not answer CONNECT in time leaves no client behind that
// connects some day.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *Config) { c.TokenLife = 24 * time.Hour }).run()
		start := time.Now()
		c := l.accept()
		c.lost()
		if took := time.Since(start); took != DefaultConnectTimeout {
			t.Errorf("gave up after %v", took)
		}
		c.connack(0) // nobody is there
		next := l.welcome()
		next.call("1", "PAYLOAD")
		next.answer()
		time.Sleep(time.Hour)
		if n := l.dialed.Load(); n != 2 {
			t.Errorf("%d connections", n)
		}
		l.wantLog(1, "no answer of the hub within 30s")
		l.stop()
	})
}

// A TLS handshake that never ends is bounded, too; so is one cut short by the end.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		raw, err := l.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<10)
		for err == nil {
			_, err = raw.Read(buf)
		}
		raw2, err := l.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.wantLog(1, "where port 8883 is blocked")
		go func() {
			for err := error(nil); err == nil; {
				_, err = raw2.Read(buf)
			}
		}()
		l.stop()
	})
}

// A connection that is dead without a word is noticed by the ping that nobody
// answers.
func TestHalfOpen(t *testing.T) {
	for _, keepAlive := range []time.Duration{time.Second, 10 * time.Second, 11 * time.Second, 19 * time.Second, 20 * time.Second, DefaultKeepAlive, MaxKeepAlive} {
		t.Run(keepAlive.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(c *Config) { c.KeepAlive = keepAlive; c.TokenLife = 24 * time.Hour }).run()
				c := l.welcome()
				time.Sleep(3 * keepAlive)
				if c.pings.Load() < 2 {
					t.Errorf("%d pings", c.pings.Load())
				}
				if limit := uint16(keepAlive / time.Second); c.connect.Keepalive > limit || c.connect.Keepalive == 0 {
					t.Errorf("CONNECT says %d s", c.connect.Keepalive)
				}
				c.silent.Store(true)
				c.call("1", "PAYLOAD") // the last sign of life
				c.answer()
				start := time.Now()
				c.lost()
				if took := time.Since(start); took > keepAlive+10*time.Second || took < time.Second {
					t.Errorf("noticed after %v", took)
				}
				l.welcome()
				l.wantLog(1, "the hub answers no ping")
				l.stop()
			})
		})
	}
}

// A network that swallows everything: not even the end can be told.
func TestMutedNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		l.welcome()
		l.ln.Last().Mute()
		start := time.Now()
		l.welcome()
		if took := time.Since(start); took > DefaultKeepAlive+15*time.Second {
			t.Errorf("back after %v", took)
		}
		l.stop()
	})
}

func TestRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil).run()
		l.welcome()
		if err := l.src.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "runs already") {
			t.Errorf("got %v", err)
		}
		l.cancel()
		<-l.ended
		l.run() // but one after the other may
		l.welcome()
		l.stop()
	})
}

// What is off in paho has to stay off: each of these would act behind our back.
func TestOptions(t *testing.T) {
	l := newLab(t, nil)
	o := l.src.options(DefaultKeepAlive)
	if o.AutoReconnect || o.ConnectRetry || o.ResumeSubs || !o.CleanSession || o.WillEnabled || !o.AutoAckDisabled || !o.Order || len(o.Servers) != 1 {
		t.Errorf("options %+v", o)
	}
	// A packet that meets a connection's end is given back after this, or 30 s.
	if o.WriteTimeout != enqueueTimeout {
		t.Errorf("write timeout %v", o.WriteTimeout)
	}
}

// A token that somebody else makes is asked for at each connection.
func TestTokenFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		l := newLab(t, func(c *Config) {
			c.Key = ""
			c.Token = func(context.Context) (string, time.Time, error) {
				tries++
				switch tries {
				case 1:
					return "", time.Time{}, errors.New("the TPM sleeps")
				case 2:
					return "stale", time.Now(), nil
				case 5:
					return "for ever", time.Time{}, nil
				}
				return fmt.Sprint("token ", tries), time.Now().Add(time.Minute), nil
			}
		}).run()
		for _, want := range []string{"token 3", "token 4"} {
			c := l.welcome()
			if string(c.connect.Password) != want {
				t.Errorf("password %q, want %s", c.connect.Password, want)
			}
			c.unsubscribed(2)
			c.lost()
		}
		l.welcome()
		time.Sleep(24 * time.Hour)
		if tries != 5 {
			t.Errorf("%d tokens", tries)
		}
		l.wantLog(1, "make a token: the TPM sleeps")
		l.wantLog(1, "make a token: it has expired already")
		l.stop()
	})
}
