package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"websocketbridge/relay/token"
)

func TestRotation(t *testing.T) {
	oldKey, newKey := testKey(0), testKey(100)
	a, b := ring(t, oldKey), ring(t, oldKey)
	// Two nodes, never changed at the same moment; at each step either opens
	// what either seals.
	steps := []struct {
		node *token.Ring
		keys []token.Key
	}{
		{a, []token.Key{oldKey, newKey}}, {b, []token.Key{oldKey, newKey}},
		{a, []token.Key{newKey, oldKey}}, {b, []token.Key{newKey, oldKey}},
		{a, []token.Key{newKey}}, {b, []token.Key{newKey}},
	}
	before := seal(t, a, claims())
	for i, s := range steps {
		if err := s.node.Replace(s.keys...); err != nil {
			t.Fatal(err)
		}
		for _, from := range []*token.Ring{a, b} {
			for _, to := range []*token.Ring{a, b} {
				if c, err := to.Open(seal(t, from, claims()), now); err != nil || c != claims() {
					t.Errorf("step %d: Open = %+v, %v", i, c, err)
				}
			}
		}
	}
	if _, err := a.Open(before, now); !errors.Is(err, token.ErrProof) {
		t.Errorf("a token of the removed key: %v, want ErrProof", err)
	}
}

func TestWrongKey(t *testing.T) {
	tok := seal(t, ring(t, testKey(0)), claims())
	refused(t, ring(t, testKey(1)), tok, "wrong key", token.ErrProof)
	refused(t, ring(t, testKey(1), testKey(2)), tok, "wrong keys", token.ErrProof)
	_, err := ring(t, testKey(1)).Open(tok, now)
	if !strings.Contains(err.Error(), testKey(0).Fingerprint()) {
		t.Errorf("the error does not name the missing key ID: %v", err)
	}
}

func TestReplaceKeepsTheRingOnError(t *testing.T) {
	r := ring(t, testKey(0))
	tok := seal(t, r, claims())
	for name, keys := range map[string][]token.Key{
		"none":      nil,
		"empty key": {testKey(1), {}},
		"duplicate": {testKey(1), testKey(2), testKey(1)},
	} {
		if err := r.Replace(keys...); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := token.NewRing(keys...); err == nil {
			t.Errorf("%s: NewRing gives no error", name)
		}
		if _, err := r.Open(tok, now); err != nil {
			t.Errorf("%s: the old key is gone: %v", name, err)
		}
	}
}

func TestReplaceWhileInUse(t *testing.T) {
	x, y := testKey(0), testKey(100)
	r := ring(t, x, y)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				tok, err := r.Seal(claims())
				if err != nil {
					t.Error(err)
				}
				if _, err := r.Open(tok, now); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			if err := errors.Join(r.Replace(y, x), r.Replace(x, y)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func TestParseKeys(t *testing.T) {
	k0, k1, k2 := testKey(0), testKey(0xe0), testKey(100) // k1 has + and / in it
	std, url := k1.Reveal(), strings.NewReplacer("+", "-", "/", "_").Replace(k1.Reveal())
	for name, tt := range map[string]struct {
		text string
		want []token.Key
	}{
		"one":             {k0.Reveal(), []token.Key{k0}},
		"line end":        {k0.Reveal() + "\n", []token.Key{k0}},
		"unpadded":        {strings.TrimRight(k0.Reveal(), "="), []token.Key{k0}},
		"standard":        {std, []token.Key{k1}},
		"url":             {url, []token.Key{k1}},
		"url unpadded":    {strings.TrimRight(url, "="), []token.Key{k1}},
		"lines":           {k0.Reveal() + "\r\n\r\n\t" + std + " \n", []token.Key{k0, k1}},
		"commas":          {k2.Reveal() + ", " + k0.Reveal() + ",\n" + std, []token.Key{k2, k0, k1}},
		"comments":        {"# new\n" + k0.Reveal() + " # since May, by " + std + "\n#" + k2.Reveal(), []token.Key{k0}},
		"order is order":  {k2.Reveal() + "\n" + k0.Reveal(), []token.Key{k2, k0}},
		"commas in a row": {k2.Reveal() + ",,", []token.Key{k2}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := token.ParseKeys(tt.text)
			if err != nil || len(got) != len(tt.want) {
				t.Fatalf("%d keys, %v, want %d", len(got), err, len(tt.want))
			}
			for i := range got {
				if !got[i].Equal(tt.want[i]) {
					t.Errorf("key %d differs", i)
				}
			}
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	good, other := testKey(0).Reveal(), testKey(100).Reveal()
	short := base64.StdEncoding.EncodeToString([]byte("sixteen bytes 16"))
	var many strings.Builder
	for i := range 17 {
		many.WriteString(testKey(byte(i*3)).Reveal() + "\n")
	}
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":       {"", []string{"there is none", "relay token-key"}},
		"only comments": {"# a\n\n#b", []string{"there is none"}},
		"not base64":    {good + "\n!secret!secret!\n", []string{"line 2: is not base64"}},
		"inner space":   {good[:20] + " " + good[20:], []string{"line 1: is not base64"}},
		"mixed":         {"+_" + good[2:], []string{"line 1: is not base64"}},
		"AES-128":       {"\n\n" + short, []string{"line 3: has 16 bytes; 32 are needed"}},
		"placeholder":   {strings.Repeat("A", 43), []string{"line 1: is not random"}},
		"duplicate":     {good + "\n" + other + "\n" + strings.TrimRight(good, "="), []string{"line 3: the key of line 1 again"}},
		"all at once":   {"?\n" + good + "\n" + short + "," + good, []string{"line 1: is not", "line 3: has 16", "line 3: the key of line 2"}},
		"too many":      {many.String(), []string{"there are 17; 16"}},
		"a wrong file":  {strings.Repeat("not a key file\n", 1000), []string{"line 16", "and so on"}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := token.ParseKeys(tt.text)
			if err == nil || keys != nil {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			for _, secret := range []string{good[:20], other[:20], short[:10], "secret"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error quotes the text: %v", err)
				}
			}
			if len(err.Error()) > 2000 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestNewKey(t *testing.T) {
	a, b := token.NewKey(), token.NewKey()
	if a.Equal(b) {
		t.Error("two new keys are equal")
	}
	got, err := token.ParseKeys(a.Reveal())
	if err != nil || len(got) != 1 || !got[0].Equal(a) {
		t.Errorf("what Reveal wrote does not parse: %v", err)
	}
	var zero token.Key
	if zero.Reveal() != "" || zero.Fingerprint() != "" || zero.Equal(a) || !zero.Equal(token.Key{}) {
		t.Error("the zero key is something")
	}
}

// TestNothingPrintsKeys prints a key and a ring in every way that somebody
// might, also from inside of unexported fields, and looks for the bytes.
func TestNothingPrintsKeys(t *testing.T) {
	b := testKeyBytes(200)
	k := token.KeyFrom(b)
	r := ring(t, k)
	type config struct {
		Key   token.Key
		Keys  []token.Key
		Map   map[string]token.Key
		Ring  *token.Ring
		key   token.Key
		keys  []token.Key
		ring  *token.Ring
		plain *token.Key
	}
	c := config{k, []token.Key{k}, map[string]token.Key{"k": k}, r, k, []token.Key{k}, r, &k}

	var out bytes.Buffer
	for _, v := range []any{k, &k, []token.Key{k}, r, c, &c, []any{k, r}, errorOf(k), errorOf(r)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("m", "v", v, slog.Group("g", "v", v))
		}
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
	}
	fmt.Fprintln(&out, k.String(), k.GoString(), r.String(), r.GoString())

	if got := fmt.Sprintf("%d %x", k, k); got != "token.Key(redacted) token.Key(redacted)" {
		t.Errorf("under other verbs a key prints as %s", got)
	}

	got := strings.ToLower(out.String())
	forms := map[string]string{
		"decimal, Go":   "203, 204, 205",
		"decimal, JSON": "203,204,205",
		"decimal":       "203 204 205",
		"hex":           hex.EncodeToString(b[3:8]),
		"hex, Go":       "0xcb, 0xcc",
		"hex, spaced":   "cb cc cd",
		"octal":         "313 314",
		"binary":        "11001011 11001100",
		"characters":    "\u00cb \u00cc",
		"code points":   "u+00cb",
		"raw":           string(b[3:8]),
		"base64":        strings.ToLower(base64.StdEncoding.EncodeToString(b[3:9])),
		"all of it":     strings.ToLower(k.Reveal()),
	}
	for name, form := range forms {
		if strings.Contains(got, form) {
			t.Errorf("key bytes in the output, %s", name)
		}
	}
	if !strings.Contains(got, "redacted") || !strings.Contains(got, "token.ring("+k.Fingerprint()+")") {
		t.Error("keys and rings do not say what they are")
	}
}

func errorOf(v any) error { return fmt.Errorf("with %v", v) }
