package hub_test

import (
	"testing"

	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
)

// TestC2DReplaceKey: another policy's key is shown on the live connection, at once, and
// one that the hub does not know changes nothing for as long as the old token lives.
func TestC2DReplaceKey(t *testing.T) {
	t.Parallel()
	var src *credential.Signer
	l := newC2DLab(t, emulator.Config{}, func(l *c2dLab, c *c2d.Config) {
		src = l.keys("iothubowner")
		c.Credential = src
	})
	l.must("pump-7", "b1")
	_, since, _ := l.s.State()
	use := func(text string) {
		t.Helper()
		cs, err := sas.ParseConnectionString(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := src.Replace(cs); err != nil {
			t.Fatal(err)
		}
		l.s.Renew()
	}
	use("HostName=" + l.hub.HostName() + ";SharedAccessKeyName=service;SharedAccessKey=bm90LWtub3duLXRvLXRoZS1odWI=")
	l.wait("the hub refuses a key", func() bool { return l.hub.Stats().TokensRefused > 0 })
	l.must("pump-7", "b2")
	use(l.hub.ServiceConnectionString("service"))
	l.wait("the hub is shown the new key", func() bool { return l.hub.Stats().TokensPut == 2 })
	l.must("pump-7", "b3")
	if up, at, err := l.s.State(); !up || !at.Equal(since) {
		t.Errorf("connected again: %v", err)
	}
}
