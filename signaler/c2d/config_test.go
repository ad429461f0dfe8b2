package c2d

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		cfg              Config
		host, addr, name string
	}{
		{Config{HostName: "h.azure-devices.net"}, "h.azure-devices.net", "h.azure-devices.net:5671", "h.azure-devices.net"},
		{Config{HostName: "h.azure-devices.net", WebSocket: true}, "h.azure-devices.net", "h.azure-devices.net:443", "h.azure-devices.net"},
		{Config{HostName: "h:15671"}, "h", "h:15671", "h"},
		{Config{HostName: "h", Addr: "127.0.0.1:1"}, "h", "127.0.0.1:1", "h"},
		{Config{HostName: "h", TLS: &tls.Config{ServerName: "other", NextProtos: []string{"h2"}}}, "h", "h:5671", "other"},
	} {
		tt.cfg.Credential = static{}
		s, err := New(tt.cfg)
		if err != nil {
			t.Errorf("%+v: %v", tt.cfg, err)
			continue
		}
		if s.host != tt.host || s.addr != tt.addr || s.tls.ServerName != tt.name || s.tls.MinVersion != tls.VersionTLS12 || s.tls.NextProtos != nil {
			t.Errorf("got %q %q %q", s.host, s.addr, s.tls.ServerName)
		}
	}
	for _, tt := range []struct {
		cfg  Config
		want []string
	}{
		{Config{}, []string{"HostName", "Credential"}},
		{Config{HostName: "https://h", Credential: static{}, Addr: "h"}, []string{"HostName", "Addr"}},
		{Config{HostName: "h", Credential: static{}, DialTimeout: -1, RetryMax: -1}, []string{"DialTimeout", "RetryMax"}},
	} {
		_, err := New(tt.cfg)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s in it", err, want)
			}
		}
	}
}

func TestMessage(t *testing.T) {
	s := testSignaler(t, nil)
	at := time.Unix(1_800_000_000, 0)
	m := s.message(&signaler.Signal{DeviceID: "a+b/c d%", BridgeID: "b1"}, []byte("{}"), at)
	if p := m.Properties; *p.To != "/devices/a%2Bb%2Fc%20d%25/messages/devicebound" || p.MessageID != any("b1") || *p.AbsoluteExpiryTime != at || p.CorrelationID != nil || p.UserID != nil {
		t.Errorf("got %+v", p)
	}
	if len(m.ApplicationProperties) != 1 || m.ApplicationProperties["bridge-signal"] != any("v1") || len(m.Data) != 1 {
		t.Errorf("got %v", m.ApplicationProperties)
	}
	s.cfg.Feedback = func(Feedback) {}
	m = s.message(&signaler.Signal{DeviceID: "d"}, []byte("{}"), at)
	if m.ApplicationProperties["iothub-ack"] != any("full") || m.Properties.MessageID != nil {
		t.Errorf("got %v, %v", m.ApplicationProperties, m.Properties.MessageID)
	}
}

func TestBackoff(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 100: time.Minute} {
		var longest time.Duration
		for range 1000 {
			longest = max(longest, backoff(failures, time.Second, time.Minute))
		}
		if longest > most+time.Millisecond || longest < most*9/10 {
			t.Errorf("after %d failures up to %v, want %v", failures, longest, most)
		}
	}
}

func TestRenewal(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: 40 * time.Minute, 3 * time.Second: 2 * time.Second, time.Millisecond: 250 * time.Millisecond, -time.Hour: 250 * time.Millisecond,
	} {
		if got := renewal(credential.Token{Expires: now.Add(left)}, now); got != want {
			t.Errorf("with %v left: got %v, want %v", left, got, want)
		}
	}
	if got := renewal(credential.Token{}, now); got != tokenLife {
		t.Errorf("got %v for a token that does not say", got)
	}
}

// TestVerdict: status-code in any integer type.
func TestVerdict(t *testing.T) {
	for _, status := range []any{int32(200), int64(202), uint32(200)} {
		if err := verdict(&amqp.Message{ApplicationProperties: map[string]any{"status-code": status}}); err != nil {
			t.Errorf("%T %v: got %v", status, status, err)
		}
	}
	for _, status := range []any{nil, "OK", 1.5, int32(0), int32(100), int32(500)} {
		if err := verdict(&amqp.Message{ApplicationProperties: map[string]any{"status-code": status}}); err == nil {
			t.Errorf("%v is fine", status)
		}
	}
	err := verdict(&amqp.Message{ApplicationProperties: map[string]any{"status-code": int32(401), "status-description": "no\nway"}})
	if err == nil || err.Error() != "hub refused the relay's credentials: put-token: 401 noway; check the key or the role, and this machine's clock" {
		t.Errorf("got %v", err)
	}
}
