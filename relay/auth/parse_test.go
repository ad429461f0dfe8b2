package auth_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"websocketbridge/relay/auth"
)

// hash is a well-formed HASH, another one for each n.
func hash(n byte) string {
	e := base64.RawURLEncoding
	return "hmac-sha256:" + e.EncodeToString(append(make([]byte, 15), n)) + ":" + e.EncodeToString(append(make([]byte, 31), n))
}

func TestParseKeys(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"one":             {"ops " + hash(1), 1},
		"CRLF, BOM, tabs": {"\ufeff# keys\r\n\r\nops\t" + hash(1) + "\tdevices=*\r\nci " + hash(2) + "\r\n", 2},
		"comments":        {"#a\n  # b\nops " + hash(1) + " # c devices=x\nci " + hash(2) + " #d", 2},
		"all options":     {"a.b_c-d@e+f:g/h " + hash(1) + " devices=a*,b?,c\\*,d\\, targets=-,\\-,[::1]:* not-before=2026-01-01T00:00:00+02:00 expires=2026-01-01T00:00:00Z", 1},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := auth.ParseKeys(tt.text)
			if err != nil || keys.Len() != tt.want {
				t.Fatalf("%v, want %d", err, tt.want)
			}
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	h := hash(1)
	var many strings.Builder
	for i := range auth.MaxKeys + 1 {
		e := base64.RawURLEncoding
		fmt.Fprintf(&many, "k%d hmac-sha256:%s:%s\n", i, e.EncodeToString(fmt.Appendf(nil, "%016d", i)), e.EncodeToString(make([]byte, 32)))
	}
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":              {"", []string{"there is none", "relay hash-key NAME"}},
		"only comments":        {"# ops " + h, []string{"there is none"}},
		"no hash":              {"ops", []string{"line 1: HASH is missing"}},
		"hash first":           {h + " ops", []string{"line 1: NAME is a key or a hash", "line 1: HASH is not"}},
		"key first":            {opsKey, []string{"line 1: NAME is a key or a hash"}},
		"key as hash":          {"ops " + opsKey, []string{"line 1: HASH is a key itself", "replace it"}},
		"other hash":           {"ops $argon2id$v=19$m=65536", []string{"line 1: HASH is not hmac-sha256"}},
		"no salt":              {"ops hmac-sha256:" + h[35:], []string{"line 1: HASH is not"}},
		"short salt":           {"ops " + strings.Replace(h, "AAAA", "", 1), []string{"line 1: HASH is not"}},
		"long MAC":             {"ops " + h + "AAAA", []string{"line 1: HASH is not"}},
		"padded MAC":           {"ops " + h + "=", []string{"line 1: HASH is not"}},
		"trailing bits":        {"ops " + h[:len(h)-1] + "F", []string{"line 1: HASH is not"}},
		"bad name":             {"o=s " + h, []string{"line 1: NAME has a character"}},
		"long name":            {strings.Repeat("n", 65) + " " + h, []string{"line 1: NAME has 65 bytes"}},
		"anonymous":            {"anonymous " + h, []string{"line 1: NAME is taken"}},
		"like a signed URL":    {"signed:ops " + h, []string{"line 1: NAME is taken"}},
		"name twice":           {"ops " + h + "\n\nops " + hash(2), []string{"line 3: NAME is that of line 1"}},
		"hash twice":           {"ops " + h + "\nci " + h, []string{"line 2: HASH is that of line 1"}},
		"unknown option":       {"ops " + h + " device=a", []string{"line 1: field 3: unknown option; there are devices="}},
		"option in capitals":   {"ops " + h + " Devices=a", []string{"line 1: field 3: unknown option"}},
		"no value":             {"ops " + h + " devices", []string{"line 1: field 3: unknown option"}},
		"option twice":         {"ops " + h + " devices=a devices=b", []string{"line 1: field 4: the option is there twice"}},
		"spaces in list":       {"ops " + h + " devices=a, b", []string{"line 1: devices: item 2 is empty", "line 1: field 4: unknown option"}},
		"empty list":           {"ops " + h + " targets=", []string{"line 1: targets: item 1 is empty; * matches all"}},
		"backslash at the end": {"ops " + h + ` devices=a,b\`, []string{`line 1: devices: item 2 ends with a single \`}},
		"regular expression":   {"ops " + h + ` devices=pump-\d`, []string{"line 1: devices: item 1", "no regular expression"}},
		"long glob":            {"ops " + h + " targets=" + strings.Repeat("a", 257), []string{"line 1: targets: item 1 has 257 bytes"}},
		"date only":            {"ops " + h + " expires=2027-01-01", []string{"line 1: expires: is not RFC 3339, such as"}},
		"zero time":            {"ops " + h + " expires=0001-01-01T00:00:00Z", []string{"line 1: expires: is not"}},
		"never valid":          {"ops " + h + " expires=2026-01-01T00:00:00Z not-before=2026-01-01T00:00:00Z", []string{"line 1: not-before is not before expires"}},
		"not UTF-8":            {"ops " + h + " targets=\xff", []string{"line 1: is not valid UTF-8"}},
		"long line":            {"#" + strings.Repeat("a", 4096), []string{"line 1: more than 4096 bytes"}},
		"big file":             {strings.Repeat("#\n", 1<<19) + "#", []string{"more than 1048576 bytes"}},
		"too many":             {many.String(), []string{"there are 257; 256 are allowed"}},
		"all at once":          {"o=s " + opsKey + " x=y\nci\n# fine\nok " + h + " expires=soon targets=,", []string{"line 1: NAME", "line 1: HASH", "line 1: field 3", "line 2: HASH", "line 4: expires", "line 4: targets: item 1"}},
		"a wrong file":         {strings.Repeat("<html> </html>\n", 1000), []string{"line 10", "and so on"}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := auth.ParseKeys(tt.text)
			if err == nil || keys != nil {
				t.Fatalf("%v, %v", keys, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			quotesNothing(t, tt.text, err)
			if len(err.Error()) > 3000 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
		})
	}
}

// quotesNothing fails if err has a word of the file long enough to be a secret.
func quotesNothing(t *testing.T, text string, err error) {
	t.Helper()
	for _, f := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n:=", r) }) {
		if len(f) >= 12 && f != "hmac-sha256" && strings.Contains(err.Error(), f) {
			t.Errorf("error quotes %q:\n%v", f, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(goldenText(f))
	f.Add("ops " + hash(1) + ` devices=a\,b,* targets=-,\-`)
	f.Add("ops " + opsKey)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := auth.ParseKeys(text)
		if err != nil {
			// Words of our own messages may be in the text too.
			if strings.Contains(text, "wsb_") && strings.Contains(err.Error(), "wsb_") {
				t.Fatalf("error quotes the file: %v", err)
			}
			return
		}
		if n := keys.Len(); n == 0 || n > auth.MaxKeys {
			t.Fatalf("%d keys", n)
		}
		if p, err := keys.At(request("X-Api-Key", wrongKey), now); err == nil && p.Name == "" {
			t.Fatal("a principal without a name")
		}
	})
}

func TestHashKey(t *testing.T) {
	for range 2000 { // generated keys are never refused, and never the same
		key := auth.NewAPIKey()
		if len(key) != 47 || !strings.HasPrefix(key, "wsb_") {
			t.Fatalf("key of %d characters", len(key))
		}
		h, err := auth.HashKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(h, key[4:]) {
			t.Fatal("the hash holds the key")
		}
	}
	key := auth.NewAPIKey()
	a, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := auth.HashKey(key); a == b {
		t.Error("two hashes of a key are equal: no salt")
	}
	keys, err := auth.ParseKeys("ops " + a)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := keys.Authenticate(request("X-Api-Key", key)); err != nil || p.Name != "ops" {
		t.Errorf("%v, %v", p, err)
	}
	for name, key := range map[string]string{
		"hex of 128 bits": hex.EncodeToString([]byte("\x13\xf5\x9a\x02\xb7\x4c\xde\x81\x66\x2f\x0a\xc9\x37\xe4\x5b\x98")),
		"UUID":            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
		"base64":          "3q2+7wAB/gIDBAUGBwgJCgsMDQ4PEBESExQVFhc=",
	} {
		if _, err := auth.HashKey(key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHashKeyRefuses(t *testing.T) {
	for name, key := range map[string]string{
		"nothing":       "",
		"a password":    "hunter2",
		"31 characters": auth.NewAPIKey()[:31],
		"too long":      strings.Repeat(auth.NewAPIKey(), 6),
		"one character": strings.Repeat("x", 40),
		"one word":      strings.Repeat("password", 5),
		"a repetition":  strings.Repeat("Tr0ub4dor&3-horse", 2),
		"the alphabet":  "abcdefghijklmnopqrstuvwxyz0123456789",
		"zeros":         "wsb_" + strings.Repeat("A", 43),
		"spaces":        "correct horse battery staple and more of it",
		"line end":      auth.NewAPIKey() + "\n",
		"not ASCII":     auth.NewAPIKey() + "é",
	} {
		h, err := auth.HashKey(key)
		if err == nil || h != "" {
			t.Errorf("%s: %q, %v", name, h, err)
			continue
		}
		if !strings.Contains(err.Error(), "relay hash-key NAME") || key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	for _, n := range []int{1, 100, auth.MaxKeys} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var text strings.Builder
			for i := range n {
				h, err := auth.HashKey(auth.NewAPIKey())
				if err != nil {
					b.Fatal(err)
				}
				fmt.Fprintf(&text, "k%d %s\n", i, h)
			}
			keys, err := auth.ParseKeys(text.String())
			if err != nil {
				b.Fatal(err)
			}
			r := request("X-Api-Key", wrongKey)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := keys.Authenticate(r); err == nil {
					b.Fatal("authenticated")
				}
			}
		})
	}
}
