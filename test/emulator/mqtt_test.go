package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler/sas"
)

func TestMQTTSignsIn(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		l.h.PutDevice(Device{ID: "off", Disabled: true})
		sign := func(resource, policy, key string, ttl time.Duration) string {
			s, err := sas.Sign(resource, policy, key, time.Now().Add(ttl))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		key, secondary := l.h.devices["pump-7"].primary, l.h.devices["pump-7"].secondary
		for name, c := range map[string]struct {
			change func(*packets.ConnectPacket)
			code   byte
		}{
			"as it should": {func(*packets.ConnectPacket) {}, 0},
			"secondary key": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost/devices/pump-7", "", secondary, time.Hour))
			}, 0},
			"token of hub": {func(p *packets.ConnectPacket) { p.Password = []byte(sign("localhost", "", key, time.Hour)) }, 0},
			"with port": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost:8883/devices/pump-7", "", key, time.Hour))
			}, 0},
			"policy": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost", "device", l.h.policies["device"], time.Hour))
			}, 0},
			"service policy": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost", "service", l.h.policies["service"], time.Hour))
			}, 5},
			"wrong key": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost/devices/pump-7", "", newKey(), time.Hour))
			}, 5},
			"other device's": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost/devices/pump-70", "", key, time.Hour))
			}, 5},
			"expired": {func(p *packets.ConnectPacket) {
				p.Password = []byte(sign("localhost/devices/pump-7", "", key, -time.Second))
			}, 5},
			"no token":        {func(p *packets.ConnectPacket) { p.Password = []byte("password") }, 5},
			"nothing":         {func(p *packets.ConnectPacket) { p.PasswordFlag = false }, 5},
			"no user name":    {func(p *packets.ConnectPacket) { p.UsernameFlag, p.PasswordFlag = false, false }, 5},
			"other hub":       {func(p *packets.ConnectPacket) { p.Username = "other/pump-7/?api-version=2021-04-12" }, 5},
			"other client id": {func(p *packets.ConnectPacket) { p.ClientIdentifier = "Pump-7" }, 5},
			"unknown device": {func(p *packets.ConnectPacket) {
				p.ClientIdentifier, p.Username = "x", "localhost/x/?api-version=2021-04-12"
			}, 5},
			"unknown module": {func(p *packets.ConnectPacket) {
				p.ClientIdentifier, p.Username = "pump-7/x", "localhost/pump-7/x/?api-version=2021-04-12"
			}, 5},
			"disabled": {func(p *packets.ConnectPacket) { *p = *l.hello(identity{Device: "off"}) }, 5},
			"MQTT 5":   {func(p *packets.ConnectPacket) { p.ProtocolVersion = 5 }, 1},
		} {
			p, hello := l.dial(nil), l.hello(pump)
			c.change(hello)
			p.send(hello)
			if ack, ok := p.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != c.code || ack.SessionPresent {
				t.Errorf("%s: got %v, want code %d", name, ack, c.code)
			}
			if c.code != 0 {
				p.eof()
			} else {
				p.c.Close()
				<-p.done
			}
		}
	})
}

// testCertificate is self-signed, for a TLS state.
func testCertificate(t *testing.T, from, to time.Time) (*tls.ConnectionState, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pump-9"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der)
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, hex.EncodeToString(sum[:])
}

func TestMQTTSignsInByCertificate(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		now := time.Now()
		good, thumb := testCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
		other, _ := testCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
		old, oldThumb := testCertificate(t, now.Add(-time.Hour), now.Add(-time.Minute))
		l.h.PutDevice(Device{ID: "pump-9", Thumbprints: []string{thumb, oldThumb}})
		hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
		hello.ProtocolName, hello.ProtocolVersion, hello.ClientIdentifier, hello.CleanSession = "MQTT", 4, "pump-9", true
		hello.UsernameFlag, hello.Username = true, "localhost/pump-9/?api-version=2021-04-12"
		for _, c := range []struct {
			state *tls.ConnectionState
			code  byte
		}{{good, 0}, {other, 5}, {nil, 5}, {&tls.ConnectionState{}, 5}} {
			p := l.dial(c.state)
			p.send(hello)
			if ack := p.read().(*packets.ConnackPacket); ack.ReturnCode != c.code {
				t.Errorf("got code %d, want %d", ack.ReturnCode, c.code)
			}
		}
		p := l.dial(old) // one that expired is not even refused
		p.send(hello)
		p.eof()
	})
}

// A token's end is the connection's, after the grace.
func TestMQTTTokenExpires(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{0: 70 * time.Minute, -1: time.Hour, time.Minute: 61 * time.Minute} {
		mqttTest(t, Config{TokenGrace: grace}, func(l *mqttLab) {
			p := l.connect(pump)
			for began := time.Now(); time.Since(began) < want-time.Minute; time.Sleep(time.Minute) {
				p.ping()
			}
			time.Sleep(time.Minute - time.Second)
			p.ping()
			time.Sleep(time.Second)
			p.eof()
		})
	}
}

func TestMQTTTakeover(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		first := l.connect(pump).subscribed(0, methodsFilter)
		module := l.connect(identity{"pump-7", "m1"})
		failed := make(chan *hubError, 1)
		go func() {
			_, err := l.h.invokeMethod(l.ctx, pump, methodRequest{Name: "Bridge", Respond: time.Minute})
			failed <- err
		}()
		first.publication()
		second := l.connect(pump)
		first.eof()
		if err := <-failed; err == nil || err.Code != 400027 {
			t.Errorf("the call in flight failed with %v, want 400027", err)
		}
		second.ping()
		module.ping()
		if s := l.h.Stats(); s.Takeovers != 1 || s.Connections != 2 || s.Connects["pump-7"] != 2 {
			t.Errorf("stats %+v", s)
		}
		l.h.Disconnect("pump-7", "m1")
		module.eof()
		second.ping()
		second.send(packets.NewControlPacket(packets.Disconnect))
		second.eof()
		if s := l.h.Stats(); s.Connections != 0 {
			t.Errorf("%d connections are left", s.Connections)
		}
	})
}

func TestMQTTSubscriptions(t *testing.T) {
	bad := func(name string, id identity, qos byte, filters ...string) {
		t.Run(name, func(t *testing.T) {
			mqttTest(t, Config{}, func(l *mqttLab) {
				p := l.connect(id)
				p.subscribe(qos, filters...)
				p.eof()
			})
		})
	}
	bad("unknown", pump, 0, "sensors/#")
	bad("wildcard", pump, 0, "devices/+/messages/devicebound/#")
	bad("all", pump, 0, "#")
	bad("another's", pump, 0, "devices/pump-8/messages/devicebound/#")
	bad("good and bad", pump, 0, boundFilter, "sensors/#")
	module := identity{"pump-7", "m1"}
	five := []string{methodsFilter, twinFilter, desiredFilter, "devices/pump-7/modules/m1/#", "devices/pump-7/modules/m1/inputs/#"}
	bad("sixth", module, 0, append(five[:5:5], "devices/pump-7/modules/m1/messages/devicebound/#")...)

	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(module).subscribed(2, five...)
		p.subscribed(1, five[1]) // again is not one more
		gone := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		gone.MessageID, gone.Topics = 2, []string{methodsFilter, "never there"}
		p.send(gone)
		if _, ok := p.read().(*packets.UnsubackPacket); !ok {
			t.Fatal("no UNSUBACK")
		}
		if _, err := l.h.invokeMethod(l.ctx, module, methodRequest{Name: "Bridge", Respond: time.Minute}); err == nil || err.Code != 404103 {
			t.Errorf("after UNSUBSCRIBE a call got %v, want 404103", err)
		}
		p.subscribed(0, methodsFilter)
	})
}

func TestMQTTTelemetry(t *testing.T) {
	mqttTest(t, Config{}, func(l *mqttLab) {
		p := l.connect(pump)
		p.publish(1, "devices/pump-7/messages/events/%24.mid=1&u=a%2Fb&null", "body")
		p.puback()
		retained := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		retained.TopicName, retained.Retain = "devices/pump-7/messages/events/", true
		p.send(retained)
		m := l.connect(identity{"pump-7", "m1"})
		p.ping()
		m.publish(1, "devices/pump-7/modules/m1/messages/events/", strings.Repeat("x", maxEvent))
		m.puback()
		events := l.h.Events()
		if len(events) != 3 {
			t.Fatalf("got %d events", len(events))
		}
		if e := events[0]; e.Device != "pump-7" || e.Module != "" || string(e.Body) != "body" || e.Properties["$.mid"] != "1" || e.Properties["u"] != "a/b" {
			t.Errorf("got %+v", e)
		}
		if e := events[1]; len(e.Body) > 0 || e.Properties["mqtt-retain"] != "true" {
			t.Errorf("got %+v", e)
		}
		if e := events[2]; e.Module != "m1" || len(e.Body) != maxEvent {
			t.Errorf("got an event of %s with %d bytes", e.Module, len(e.Body))
		}
	})
	for name, c := range map[string]struct {
		qos         byte
		topic, body string
	}{
		"unknown topic":    {1, "sensors/1", ""},
		"another's":        {1, "devices/pump-8/messages/events/", ""},
		"module's":         {0, "devices/pump-7/modules/m1/messages/events/", ""},
		"QoS 2":            {2, "devices/pump-7/messages/events/", ""},
		"bad bag":          {1, "devices/pump-7/messages/events/a=%", ""},
		"too large":        {1, "devices/pump-7/messages/events/", strings.Repeat("x", maxEvent+1)},
		"answer no number": {0, "$iothub/methods/res/ok/?$rid=1", "{}"},
		"answer no JSON":   {0, "$iothub/methods/res/200/?$rid=1", "{"},
	} {
		t.Run(name, func(t *testing.T) {
			mqttTest(t, Config{}, func(l *mqttLab) {
				p := l.connect(pump)
				p.publish(c.qos, c.topic, c.body)
				p.eof()
				if n := len(l.h.Events()); n > 0 {
					t.Errorf("%d events", n)
				}
			})
		})
	}
}

func TestMQTTWill(t *testing.T) {
	const topic = "devices/pump-7/messages/events/a=b"
	for name, c := range map[string]struct {
		topic string
		leave func(*mqttLab, *mqttPeer)
		want  int
	}{
		"socket gone":   {topic, func(_ *mqttLab, p *mqttPeer) { p.c.Close() }, 1},
		"taken over":    {topic, func(l *mqttLab, p *mqttPeer) { l.connect(pump) }, 1},
		"silent":        {topic, func(_ *mqttLab, p *mqttPeer) { time.Sleep(1767 * time.Second) }, 1},
		"violation":     {topic, func(_ *mqttLab, p *mqttPeer) { p.publish(0, "x", "") }, 1},
		"DISCONNECT":    {topic, func(_ *mqttLab, p *mqttPeer) { p.send(packets.NewControlPacket(packets.Disconnect)) }, 0},
		"another topic": {"sensors/1", func(_ *mqttLab, p *mqttPeer) { p.c.Close() }, 0},
		"no telemetry":  {"$iothub/twin/GET/?$rid=1", func(_ *mqttLab, p *mqttPeer) { p.c.Close() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			mqttTest(t, Config{}, func(l *mqttLab) {
				hello := l.hello(pump)
				hello.WillFlag, hello.WillTopic, hello.WillMessage, hello.WillRetain = true, c.topic, []byte("gone"), true
				p := l.connectAs(hello)
				c.leave(l, p)
				<-p.done
				events := l.h.Events()
				if len(events) != c.want {
					t.Fatalf("%d events, want %d", len(events), c.want)
				}
				for _, e := range events {
					if string(e.Body) != "gone" || e.Properties["iothub-MessageType"] != "Will" || e.Properties["a"] != "b" || e.Properties["mqtt-retain"] != "true" {
						t.Errorf("got %+v", e)
					}
				}
			})
		})
	}
}

// What the hub says in a log holds no token.
func TestMQTTErrorsHoldNoSecret(t *testing.T) {
	var log strings.Builder
	cfg := Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	mqttTest(t, cfg, func(l *mqttLab) {
		hello := l.hello(pump)
		hello.Password = append(hello.Password, "x=secret"...)
		p := l.dial(nil)
		p.send(hello)
		p.read()
		p.eof()
		hello.Username = string(hello.Password)
		p = l.dial(nil)
		p.send(hello)
		p.read()
		p.eof()
	})
	if s := log.String(); !strings.Contains(s, "refused") || strings.Contains(s, "SharedAccess") || strings.Contains(s, "secret") {
		t.Errorf("the log: %s", s)
	}
}
