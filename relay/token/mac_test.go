package token_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"websocketbridge/relay/token"
)

func TestMAC(t *testing.T) {
	old, both, later := ring(t, testKey(0)), ring(t, testKey(0), testKey(1)), ring(t, testKey(1), testKey(0))
	data := []byte("data")
	mac := old.MAC("purpose", data)
	if len(mac) != token.MACSize {
		t.Errorf("%d bytes", len(mac))
	}
	if !bytes.Equal(mac, both.MAC("purpose", data)) {
		t.Error("not the first key's")
	}
	for name, r := range map[string]*token.Ring{"own": old, "first": both, "second": later} {
		if err := r.CheckMAC("purpose", data, mac); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := old.CheckMAC("purpose", data, later.MAC("purpose", data)); !errors.Is(err, token.ErrProof) {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := old.CheckMAC("another", data, mac); !errors.Is(err, token.ErrProof) {
		t.Errorf("another purpose: %v", err)
	}
	if err := old.CheckMAC("purpose", []byte("Data"), mac); !errors.Is(err, token.ErrProof) {
		t.Errorf("other data: %v", err)
	}
	for n := range len(mac) * 8 {
		bad := bytes.Clone(mac)
		bad[n/8] ^= 1 << (n % 8)
		if err := old.CheckMAC("purpose", data, bad); !errors.Is(err, token.ErrProof) {
			t.Fatalf("bit %d: %v", n, err)
		}
	}
	for n := range len(mac) + 2 {
		bad := append(bytes.Clone(mac), 0)[:min(n, len(mac)+1)]
		if err := old.CheckMAC("purpose", data, bad); len(bad) != len(mac) && !errors.Is(err, token.ErrProof) {
			t.Fatalf("length %d: %v", n, err)
		}
	}
}

// Nodes of two versions have to agree.
func TestMACGolden(t *testing.T) {
	got := hex.EncodeToString(ring(t, testKey(0)).MAC("node", []byte("golden")))
	const want = "eec6b0c3205c051891a409c75cfc3623f567fd4e665792d12046152d1ccc5ed91c4d8b9d"
	if got != want {
		t.Errorf("got %s", got)
	}
}
