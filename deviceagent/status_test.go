package deviceagent_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/relay/client"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// What a person beside the device is told, from the start to the end.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Bool
		l := newLab(t, true, fake.Config{}, parse(t, "echo", "down=tcp:127.0.0.1:1"), func(c *deviceagent.Config) {
			c.KillSwitch = func() error {
				if off.Load() {
					return errors.New("the button is pressed")
				}
				return nil
			}
		})
		start := time.Now()
		s := l.agent.Status()
		if s.DeviceID != device || !s.Running || !s.Since.Equal(start) || !s.RemoteAccess.On || s.Source != nil || s.SignedOnly || len(s.Open) != 0 || !slices.Equal(s.Targets, []string{"down", "echo"}) {
			t.Errorf("at first: %+v", s)
		}
		sess := l.session("echo", "down")
		st, err := sess.Open(t.Context(), "echo")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(st, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(st, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := sess.Open(t.Context(), "web"); err == nil {
			t.Error("a stream to web opened")
		}
		time.Sleep(time.Second) // so that it is the older one
		raw := l.raw("echo")
		if _, err := client.Dial(t.Context(), l.client, client.Request{Device: device, Targets: []string{"ssh"}}); err == nil {
			t.Error("a bridge to ssh opened")
		}
		// A raw bridge's target that is down is told to the relay afterwards.
		if _, err := client.DialRaw(t.Context(), l.client, client.Request{Device: device, Targets: []string{"down"}}); err == nil {
			t.Error("a raw bridge to down opened")
		}
		synctest.Wait()
		s = l.agent.Status()
		if s.Signals.Received != 4 || s.Signals.Accepted != 3 || !maps.Equal(s.Signals.Refused, map[string]uint64{"target_not_allowed": 1}) {
			t.Errorf("signals: %+v", s.Signals)
		}
		if s.Streams.Open != 2 || s.Streams.Opened != 2 || !maps.Equal(s.Streams.Refused, map[string]uint64{"target_not_allowed": 1}) {
			t.Errorf("streams: %+v", s.Streams)
		}
		if b := s.Bridges; b.Open != 2 || b.Opened != 2 || b.Failed != 1 || b.Dialing != 0 || b.Error != "127.0.0.1:1: connection refused" {
			t.Errorf("bridges: %+v", b)
		}
		if s.Bytes != (deviceagent.ByteCounts{FromTargets: 5, ToTargets: 5}) {
			t.Errorf("bytes: %+v", s.Bytes)
		}
		if len(s.Open) != 2 || !s.Open[0].Session || s.Open[0].Target != "echo,down" || s.Open[0].Principal == "" || s.Open[0].Streams != 1 || s.Open[0].Bytes.FromTargets != 5 || s.Open[1].Session || s.Open[1].Streams != 1 {
			t.Errorf("open: %+v", s.Open)
		}
		time.Sleep(time.Hour)
		off.Store(true)
		time.Sleep(time.Minute) // the raw one closes late: nobody answers
		synctest.Wait()
		s = l.agent.Status()
		if a := s.RemoteAccess; a.On || a.Reason != "the button is pressed" || a.Since.Before(start.Add(time.Hour)) || len(s.Open) != 0 || s.Streams.Open != 0 || s.Streams.Opened != 2 {
			t.Errorf("switched off: %+v", s)
		}
		sess.Close()
		raw.CloseNow()
		l.stop()
		if s := l.agent.Status(); s.Running {
			t.Errorf("stopped: %+v", s)
		}
	})
}

// stated is a source that says how it fares.
type stated struct{ signaler.SourceRecord }

func (s *stated) Run(ctx context.Context, _ signaler.Handler) error {
	s.Begin("test", "here")
	s.Up()
	<-ctx.Done()
	s.Down(nil)
	return nil
}

func TestStatusOfSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := deviceagent.New(deviceagent.Config{DeviceID: device, Source: &stated{}, RelayHosts: []string{"*"}, Targets: parse(t)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		synctest.Wait()
		if s := a.Status().Source; s == nil || !s.Listening || s.To != "here" {
			t.Errorf("running: %+v", s)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if s := a.Status().Source; s.Listening {
			t.Errorf("stopped: %+v", s)
		}
	})
}
