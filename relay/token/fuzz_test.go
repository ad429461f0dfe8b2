package token_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"websocketbridge/relay/token"
)

// FuzzOpen: nothing panics; what opens seals to the same text under the same
// nonce, so there is no second text for it.
func FuzzOpen(f *testing.F) {
	r := ring(f, testKey(0), testKey(1))
	tok := seal(f, r, claims())
	f.Add(tok)
	f.Add(tok + "=")
	f.Add(tok[:len(tok)-1])
	f.Add(seal(f, ring(f, testKey(1)), claims()))
	f.Add(seal(f, ring(f, testKey(2)), claims()))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, tok string) {
		c, err := r.Open(tok, now)
		if err != nil && !errors.Is(err, token.ErrExpired) {
			if c != (token.Claims{}) {
				t.Fatalf("claims with %v", err)
			}
			return
		}
		raw, err := base64.RawURLEncoding.DecodeString(tok)
		if err != nil {
			t.Fatal(err)
		}
		again := ""
		for _, k := range []token.Key{testKey(0), testKey(1)} {
			s, err := ring(t, k).SealNonce(c, [24]byte(raw[5:29]))
			if err != nil {
				t.Fatal(err)
			}
			if s == tok {
				again = s
			}
		}
		if again != tok {
			t.Fatal("what opened does not seal to itself")
		}
	})
}

// FuzzClaims: bytes that parse are the only bytes for their claims.
func FuzzClaims(f *testing.F) {
	b, err := token.AppendClaims(nil, claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(append(b[:len(b):len(b)], 0))
	f.Add(make([]byte, 43))
	f.Add(bytes.Repeat([]byte{1}, 44))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := token.ParseClaims(b)
		if err != nil {
			if c != (token.Claims{}) {
				t.Fatal("claims with an error")
			}
			return
		}
		again, err := token.AppendClaims(nil, c)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x -> %+v -> %x, %v", b, c, again, err)
		}
	})
}

// FuzzParseKeys: nothing panics, and what parses parses again from its own text.
func FuzzParseKeys(f *testing.F) {
	f.Add(testKey(0).Reveal() + "\n" + testKey(0xe0).Reveal() + ",#x")
	f.Add("-_8=")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := token.ParseKeys(text)
		if err != nil {
			return
		}
		if _, err := token.NewRing(keys...); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			again, err := token.ParseKeys(k.Reveal())
			if err != nil || len(again) != 1 || !again[0].Equal(k) {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	r, c := ring(b, testKey(0)), claims()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Seal(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	r := ring(b, testKey(0))
	tok := seal(b, r, claims())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Open(tok, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenForged(b *testing.B) {
	r := ring(b, testKey(0))
	tok := []byte(seal(b, r, claims()))
	tok[60] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Open(string(tok), now); err == nil {
			b.Fatal("opened")
		}
	}
}
