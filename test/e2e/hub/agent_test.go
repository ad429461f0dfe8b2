package hub_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"websocketbridge/deviceagent/hub"
	"websocketbridge/signaler"
	"websocketbridge/test/emulator"
)

// Each identity, by each proof of it, by each way to the hub.
func TestAgentConnects(t *testing.T) {
	t.Parallel()
	cert, print := agentCert(t, time.Now().Add(time.Hour))
	for _, module := range []string{"", agentModule} {
		for _, x509 := range []bool{false, true} {
			for _, webSocket := range []bool{false, true} {
				for _, proxied := range []bool{false, true} {
					t.Run(agentName("module="+module, "x509=", x509, "websocket=", webSocket, "proxy=", proxied), func(t *testing.T) {
						d := emulator.Device{ID: agentDevice, Modules: []emulator.Module{{ID: agentModule}}}
						if x509 {
							d.Thumbprints, d.Modules[0].Thumbprints = []string{print}, []string{print}
						}
						l := newAgentLab(t, emulator.Config{HostName: "hub.example", Devices: []emulator.Device{d}})
						cfg := l.config(module)
						if x509 {
							cfg.Certificate = cert
						}
						cfg.WebSocket = webSocket
						if webSocket {
							cfg.Addr = l.hub.HTTPSAddr()
						}
						proxy := newAgentProxy(t, nil)
						if proxied {
							cfg.Proxy = proxy.through
						}
						r := l.agent(cfg)
						l.listens(module)
						l.signal(l.calls(module), "by method")
						r.hears("by method")
						if module == "" {
							l.signal(l.messages(), "by message")
							r.hears("by message")
						}
						r.mu.Lock()
						r.no = &signaler.Refusal{Code: "target_not_allowed", Message: "no"}
						r.mu.Unlock()
						var no *signaler.RefusedError
						if err := l.calls(module).Signal(l.ctx(), agentSignal("refused")); !errors.As(err, &no) || no.Code != "target_not_allowed" {
							t.Errorf("refused: %v", err)
						}
						if got := proxy.tunnels.Load(); proxied && got != 1 || !proxied && got != 0 {
							t.Errorf("%d tunnels", got)
						}
						if err := r.stop(); err != nil {
							t.Error(err)
						}
						if got := l.hub.Stats(); got.Takeovers != 0 || got.ConnectsRefused != 0 {
							t.Errorf("the hub counted %+v", got)
						}
					})
				}
			}
		}
	}
}

// Why a connection is not made is said with what to try.
func TestAgentSaysWhy(t *testing.T) {
	t.Parallel()
	const otherKey = "YW5vdGhlci1rZXk="
	expired, print := agentCert(t, time.Now().Add(-time.Hour))
	proxy := newAgentProxy(t, nil)
	for _, tt := range []struct {
		name   string
		change func(*agentLab, *hub.Config)
		want   []string
		hint   bool // the one about port 8883
	}{
		{"no CA", func(_ *agentLab, c *hub.Config) { c.TLS = nil }, []string{"certificate signed by unknown authority"}, false},
		{"another name", func(l *agentLab, c *hub.Config) {
			c.TLS = &tls.Config{RootCAs: l.hub.RootCAs(), ServerName: "other.example"}
		}, []string{"not other.example"}, false},
		{"nobody there", func(_ *agentLab, c *hub.Config) { c.Addr = "127.0.0.1:1" }, []string{"connection refused"}, true},
		{"a proxy that lets it not out", func(_ *agentLab, c *hub.Config) { proxy.shut.Store(true); c.Proxy = proxy.through }, []string{"403 Forbidden"}, true},
		{"a proxy's password", func(_ *agentLab, c *hub.Config) {
			c.Proxy = func(*http.Request) (*url.URL, error) {
				return &url.URL{Scheme: "http", User: url.UserPassword("joe", "wrongpass"), Host: proxy.url.Host}, nil
			}
		}, []string{"407 Proxy Authentication Required"}, true},
		{"no WebSocket there", func(l *agentLab, c *hub.Config) { c.WebSocket, c.Addr = true, l.hub.MQTTAddr() }, []string{"hub is not reached"}, false},
		{"another key", func(_ *agentLab, c *hub.Config) { c.Key = otherKey }, []string{"the hub refuses this identity (CONNACK 5)", "is this device's clock right?"}, false},
		{"another device", func(_ *agentLab, c *hub.Config) { c.DeviceID = "pump-8" }, []string{"the hub refuses this identity (CONNACK 5)"}, false},
		{"an expired certificate", func(l *agentLab, c *hub.Config) {
			if _, err := l.hub.PutDevice(emulator.Device{ID: agentDevice, Thumbprints: []string{print}}); err != nil {
				l.Fatal(err)
			}
			c.Key, c.Certificate = "", expired
		}, []string{"this device's certificate expired on " + time.Now().Add(-time.Hour).UTC().Format(time.DateOnly)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newAgentLab(t, emulator.Config{})
			cfg := l.config("")
			tt.change(l, &cfg)
			r := l.agent(cfg)
			for _, want := range tt.want {
				l.says(want)
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			log := l.log.String()
			if got := strings.Contains(log, "where port 8883 is blocked, MQTT over WebSocket goes by port 443"); got != tt.hint {
				t.Errorf("the hint about the port is there: %t", got)
			}
			for _, secret := range []string{"pass%", "wrongpass", otherKey} {
				if strings.Contains(log, secret) {
					t.Errorf("%s is in the log", secret)
				}
			}
		})
	}
}

// What is not for the agent is thrown away, told, and does no harm.
func TestAgentForeign(t *testing.T) {
	t.Parallel()
	l := newAgentLab(t, emulator.Config{})
	r := l.agent(l.config(""))
	l.listens("")
	var seen []int
	for _, name := range []string{"reboot", "bridge"} {
		seen = append(seen, l.callRaw(name, `{"x":1}`))
	}
	for _, payload := range []string{``, `"text"`, `[1]`, `{"acceptUrl":1}`, `null`} {
		seen = append(seen, l.callRaw("Bridge", payload))
	}
	if got, want := fmt.Sprint(seen), "[501 501 409 409 409 409 409]"; got != want {
		t.Errorf("answered %s, want %s", got, want)
	}
	m := l.messages()
	for i := range 5 {
		l.sendRaw(fmt.Sprint("foreign-", i), "not for the agent", map[string]string{"other": "v1", "url": "wss://r/a?t=1&u=2 100%+"})
		l.signal(m, fmt.Sprint("ours-", i))
	}
	for i := range 5 {
		r.hears(fmt.Sprint("ours-", i))
	}
	l.wait("all messages are completed", func() bool { return l.hub.Stats().MessagesCompleted == 10 })
	if got := r.src.Stats(); got.ForeignMessages != 5 || got.ForeignMethods != 2 || got.Losses != 0 {
		t.Errorf("counted %+v", got)
	}
	if n := strings.Count(l.log.String(), "a message that is no signal is thrown away"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
