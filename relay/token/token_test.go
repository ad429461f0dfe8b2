package token_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"crypto/sha256"

	"golang.org/x/crypto/chacha20poly1305"

	"websocketbridge/relay/token"
)

var update = flag.Bool("update", false, "rewrite testdata")

// now is well before the expiry in claims.
var now = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

func claims() token.Claims {
	return token.Claims{
		Owner:    "10.244.3.17:8080",
		Instance: token.ID{0: 0xa1, 15: 0xaf},
		BridgeID: token.ID{0: 0xb1, 15: 0xbf},
		DeviceID: "pump-7",
		Expires:  now.Add(20 * time.Second),
	}
}

// testKey is the bytes first, first+1, ….
func testKey(first byte) token.Key { return token.KeyFrom(testKeyBytes(first)) }

func testKeyBytes(first byte) (b [32]byte) {
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func testNonce() (n [24]byte) {
	for i := range n {
		n[i] = 0x40 + byte(i)
	}
	return n
}

func ring(t testing.TB, keys ...token.Key) *token.Ring {
	t.Helper()
	r, err := token.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func seal(t testing.TB, r *token.Ring, c token.Claims) string {
	t.Helper()
	tok, err := r.Seal(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGolden(t *testing.T) {
	const file = "testdata/v1.token"
	got, err := ring(t, testKey(0)).SealNonce(claims(), testNonce())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got+"\n" != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c, err := ring(t, testKey(0)).Open(strings.TrimSpace(string(want)), now)
	if err != nil || c != claims() {
		t.Errorf("Open = %+v, %v", c, err)
	}
}

// TestFormat builds a token by doc.go alone, without the package.
func TestFormat(t *testing.T) {
	key, nonce := testKeyBytes(0), testNonce()
	plain := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()+20))
	plain = append(plain, "\xa1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xaf"...)
	plain = append(plain, "\xb1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xbf"...)
	plain = append(plain, "\x1010.244.3.17:8080\x06pump-7"...)
	sum := sha256.Sum256([]byte("websocketbridge bridge token key ID v1\x00" + string(key[:])))
	head := append([]byte{1}, sum[:4]...)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := append(head[:5:5], nonce[:]...)
	raw = aead.Seal(raw, nonce[:], plain, head)
	want := base64.RawURLEncoding.EncodeToString(raw)

	got, err := ring(t, testKey(0)).SealNonce(claims(), nonce)
	if err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestSealOpen(t *testing.T) {
	r := ring(t, testKey(0))
	tests := map[string]func(c *token.Claims){
		"as it is":         func(*token.Claims) {},
		"no owner":         func(c *token.Claims) { c.Owner = "" },
		"longest":          func(c *token.Claims) { c.Owner, c.DeviceID = strings.Repeat("o", 255), strings.Repeat("d", 255) },
		"device of a byte": func(c *token.Claims) { c.DeviceID = "d" },
		"last second":      func(c *token.Claims) { c.Expires = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			want := claims()
			change(&want)
			tok := seal(t, r, want)
			if len(tok) > token.MaxLen {
				t.Errorf("%d characters, MaxLen is %d", len(tok), token.MaxLen)
			}
			got, err := r.Open(tok, now)
			if err != nil || got != want {
				t.Errorf("Open = %+v, %v, want %+v", got, err, want)
			}
			if again := seal(t, r, want); again == tok {
				t.Error("two seals made the same token")
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	r := ring(t, testKey(0))
	tests := map[string]func(c *token.Claims){
		"no expiry":      func(c *token.Claims) { c.Expires = time.Time{} },
		"before 1970":    func(c *token.Claims) { c.Expires = time.Unix(-1, 0) },
		"after 9999":     func(c *token.Claims) { c.Expires = time.Unix(253402300800, 0) },
		"no instance":    func(c *token.Claims) { c.Instance = token.ID{} },
		"no bridge ID":   func(c *token.Claims) { c.BridgeID = token.ID{} },
		"no device":      func(c *token.Claims) { c.DeviceID = "" },
		"long device ID": func(c *token.Claims) { c.DeviceID = strings.Repeat("d", 256) },
		"long owner":     func(c *token.Claims) { c.Owner = strings.Repeat("o", 256) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			c := claims()
			change(&c)
			if tok, err := r.Seal(c); err == nil || tok != "" {
				t.Errorf("Seal = %q, %v", tok, err)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	r := ring(t, testKey(0))
	c := claims()
	c.Expires = c.Expires.Add(999 * time.Millisecond) // dropped, never rounded up
	tok := seal(t, r, c)
	dead := now.Add(20 * time.Second)
	for name, tt := range map[string]struct {
		at   time.Time
		want error
	}{
		"a nanosecond before": {dead.Add(-1), nil},
		"the exact second":    {dead, token.ErrExpired},
		"another zone":        {dead.In(time.FixedZone("", 3600)), token.ErrExpired},
		"a year after":        {dead.AddDate(1, 0, 0), token.ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := r.Open(tok, tt.at)
			if !errors.Is(err, tt.want) || got != claims() {
				t.Errorf("Open = %+v, %v, want the claims and %v", got, err, tt.want)
			}
		})
	}
}

// refused fails the test if tok opens, or if a refusal says more than it may.
func refused(t *testing.T, r *token.Ring, tok, what string, want error) {
	t.Helper()
	c, err := r.Open(tok, now)
	if err == nil || c != (token.Claims{}) {
		t.Fatalf("%s: Open = %+v, %v", what, c, err)
	}
	if want != nil && !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
	if want == nil && !errors.Is(err, token.ErrMalformed) && !errors.Is(err, token.ErrProof) {
		t.Fatalf("%s: %v, want ErrMalformed or ErrProof", what, err)
	}
	if len(tok) > 8 && strings.Contains(err.Error(), tok) {
		t.Fatalf("%s: the error quotes the token: %v", what, err)
	}
}

func TestEveryBitFlipped(t *testing.T) {
	r := ring(t, testKey(0), testKey(1)) // two, so that a flipped key ID might have met another
	tok := seal(t, r, claims())
	raw, err := base64.RawURLEncoding.DecodeString(tok)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		bad := append([]byte(nil), raw...)
		bad[i/8] ^= 1 << (i % 8)
		want := token.ErrProof
		if i < 8 {
			want = token.ErrMalformed // the version
		}
		refused(t, r, base64.RawURLEncoding.EncodeToString(bad), "bit of the bytes", want)
	}
	for i := range len(tok) * 8 {
		bad := []byte(tok)
		bad[i/8] ^= 1 << (i % 8)
		refused(t, r, string(bad), "bit of the text", nil)
	}
}

func TestEveryLength(t *testing.T) {
	r := ring(t, testKey(0))
	// All three remainders of base64, so that every kind of last character is there.
	for _, device := range []string{"pump-7", "pump-77", "pump-777"} {
		c := claims()
		c.DeviceID = device
		tok := seal(t, r, c)
		for n := range len(tok) {
			refused(t, r, tok[:n], "truncated", nil)
			refused(t, r, tok[n+1:], "beheaded", nil)
			for _, x := range []string{"A", "_", "=", "\n", "\r", " ", "+", "\x00", "\xff"} {
				refused(t, r, tok[:n]+x+tok[n:], "inserted", nil)
			}
		}
		for n := 1; n < 40; n++ {
			refused(t, r, tok+strings.Repeat("A", n), "extended", nil)
		}
		for _, x := range []string{"=", "==", "\n", "\r\n", tok, "." + tok} {
			refused(t, r, tok+x, "extended", nil)
		}
		// Every last character but the right one, so also non-zero trailing bits.
		for _, x := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if bad := tok[:len(tok)-1] + string(x); bad != tok {
				refused(t, r, bad, "last character", nil)
			}
		}
	}
	refused(t, r, strings.Repeat("A", token.MaxLen+1), "too long", token.ErrMalformed)
	refused(t, r, strings.Repeat("A", 1<<20), "a megabyte", token.ErrMalformed)
	if _, err := r.Open(strings.Repeat("A", 1<<20), now); !strings.Contains(err.Error(), "1048576 characters") {
		t.Errorf("a megabyte was decoded: %v", err)
	}
}

func TestUnknownVersion(t *testing.T) {
	r := ring(t, testKey(0))
	raw, _ := base64.RawURLEncoding.DecodeString(seal(t, r, claims()))
	for v := range 256 {
		if raw[0] = byte(v); v != 1 {
			refused(t, r, base64.RawURLEncoding.EncodeToString(raw), "version", token.ErrMalformed)
		}
	}
	refused(t, r, "Ag", "a short version 2", token.ErrMalformed)
	if _, err := r.Open("Ag", now); !strings.Contains(err.Error(), "version 2") {
		t.Errorf("the error does not name the version: %v", err)
	}
}

// TestSealedNonsense: our own key, but not our codec. No claims come of it.
func TestSealedNonsense(t *testing.T) {
	key, nonce := testKeyBytes(0), testNonce()
	tok := seal(t, ring(t, testKey(0)), claims())
	head, _ := base64.RawURLEncoding.DecodeString(tok[:20])
	aead, _ := chacha20poly1305.NewX(key[:])
	for _, n := range []int{0, 1, 42, 43, 100, 552, 553} {
		raw := append(head[:5:5], nonce[:]...)
		raw = aead.Seal(raw, nonce[:], make([]byte, n), head[:5])
		refused(t, ring(t, testKey(0)), base64.RawURLEncoding.EncodeToString(raw), "nonsense", token.ErrMalformed)
	}
}
