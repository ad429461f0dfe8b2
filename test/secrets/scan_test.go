package secrets_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// window is how much of a secret is a leak, in bytes, in whichever form.
const window = 16

// A sieve finds pieces of secrets in any text, each in the forms in which programs print
// bytes.
type sieve struct {
	pieces map[[window]byte]string // what it is a piece of
	names  map[string]bool
}

func newSieve() *sieve {
	return &sieve{pieces: make(map[[window]byte]string), names: make(map[string]bool)}
}

// add makes the sieve find a secret, and what it encodes where that can be told.
func (s *sieve) add(name, secret string) {
	s.names[name] = true
	s.addForms(name, []byte(secret))
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(secret); err == nil && len(raw) >= window/2 {
			s.addForms(name+" decoded", raw)
		}
	}
	if raw, err := hex.DecodeString(secret); err == nil && len(raw) >= window/2 {
		s.addForms(name+" decoded", raw)
	}
}

func (s *sieve) addForms(name string, b []byte) {
	quoted := strconv.Quote(string(b))
	js, _ := json.Marshal(string(b))
	forms := map[string]string{
		"": string(b), ", quoted": quoted[1 : len(quoted)-1], ", in JSON": string(js[1 : len(js)-1]),
		", for a query": url.QueryEscape(string(b)), ", for a path": url.PathEscape(string(b)),
		", in hex": hex.EncodeToString(b), ", in HEX": strings.ToUpper(hex.EncodeToString(b)),
	}
	forms[", escaped in lower case"] = lowerEscapes(forms[", for a query"])
	for cut := range 3 { // what stands before it may have any length
		if len(b) > cut {
			forms[fmt.Sprintf(", in base64 from %d", cut)] = base64.RawStdEncoding.EncodeToString(b[cut:])
			forms[fmt.Sprintf(", in base64url from %d", cut)] = base64.RawURLEncoding.EncodeToString(b[cut:])
		}
	}
	for form, text := range forms {
		for i := 0; i+window <= len(text); i++ {
			s.pieces[[window]byte([]byte(text[i:i+window]))] = name + form
		}
	}
	// Words of a goroutine dump.
	for i := 0; i+8 <= len(b); i++ {
		if word := fmt.Sprintf("%x", binary.LittleEndian.Uint64(b[i:])); len(word) == window {
			s.pieces[[window]byte([]byte(word))] = name + asWord
		}
	}
}

func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

const asWord = ", as a word of memory"

// find returns what of the secrets is in text and where, without repeating it: the next
// to read this is a log.
//
// A goroutine dump marks with a question mark what may be left on the stack from before,
// such as a register that was saved in the middle of a copy. One word of that is 8 bytes of
// a secret, and nobody's doing; two are a leak.
func (s *sieve) find(text string) (hits []string) {
	b := []byte(text)
	last, at := "", 0
	stale := make(map[string][window]byte)
	for i := 0; i+window <= len(b); i++ {
		what, ok := s.pieces[[window]byte(b[i:i+window])]
		if !ok || what == last && i == at+1 {
			at = i
			continue
		}
		if word := [window]byte(b[i : i+window]); strings.HasSuffix(what, asWord) && i+window < len(b) && b[i+window] == '?' {
			if first, is := stale[what]; !is || first == word {
				stale[what] = word
				continue
			}
		}
		hits = append(hits, fmt.Sprintf("%s, at byte %d behind %q", what, i, s.before(b[:i])))
		last, at = what, i
	}
	return hits
}

// before is what stands before a hit in its line, for whoever has to find the leak, as
// far as it tells nothing of a secret itself.
func (s *sieve) before(b []byte) string {
	b = b[bytes.LastIndexByte(b, '\n')+1:]
	b = b[max(len(b)-150, 0):]
	for s.holds(string(b)) || s.holds(strconv.Quote(string(b))) {
		b = b[:len(b)/2]
	}
	return string(b)
}

// holds says whether there is a piece in text.
func (s *sieve) holds(text string) bool {
	for i := 0; i+window <= len(text); i++ {
		if _, ok := s.pieces[[window]byte([]byte(text[i:i+window]))]; ok {
			return true
		}
	}
	return false
}

// Each form of a leak is found, wherever it stands, and what is no leak is not.
func TestSieve(t *testing.T) {
	const secret = "wsb_T3st+K/y=with\"all&sorts%of<signs>é0123456789"
	key := []byte("\x01\x9f\x80\xfe\xaa\x03raw bytes of a key\xff")
	s := newSieve()
	s.add("text", secret)
	s.add("key", base64.StdEncoding.EncodeToString(key))
	js, err := json.Marshal(map[string]string{"a": secret})
	if err != nil {
		t.Fatal(err)
	}
	leaks := map[string]string{
		"as it is":         secret,
		"first piece":      secret[:window],
		"last piece":       secret[len(secret)-window:],
		"a piece":          secret[5 : 5+window],
		"a query":          "?q=" + url.QueryEscape(secret),
		"a path":           "/" + url.PathEscape(secret),
		"lower escapes":    lowerEscapes(url.QueryEscape(secret)),
		"quoted":           fmt.Sprintf("%q", secret),
		"JSON":             string(js),
		"hex":              fmt.Sprintf("%x", secret),
		"HEX":              fmt.Sprintf("%X", secret),
		"raw key":          string(key),
		"base64 of it":     base64.StdEncoding.EncodeToString(key),
		"base64url of it":  base64.URLEncoding.EncodeToString(key),
		"hex of it":        fmt.Sprintf("%x", key),
		"a word of memory": fmt.Sprintf("main.f(0x%x, 0x2b)", binary.LittleEndian.Uint64(key[8:])),
		"stale words":      fmt.Sprintf("main.f(0x%x?, 0x%x?)", binary.LittleEndian.Uint64(key[8:]), binary.LittleEndian.Uint64(key[9:])),
	}
	for i := range 3 {
		leaks[fmt.Sprint("base64 behind ", i)] = base64.StdEncoding.EncodeToString([]byte("abc"[:i] + secret))
		leaks[fmt.Sprint("base64url behind ", i)] = base64.URLEncoding.EncodeToString([]byte("abc"[:i] + secret))
	}
	for name, leak := range leaks {
		for _, text := range []string{leak, "level=INFO token=" + leak + "\nmore"} {
			hits := s.find(text)
			if len(hits) == 0 {
				t.Errorf("%s: not found in %q", name, text)
			}
			for _, hit := range hits {
				if s.holds(hit) {
					t.Errorf("%s: the hit tells it: %s", name, hit)
				}
			}
		}
	}
	stale := fmt.Sprintf("main.f(0x%x?, 0x2b)", binary.LittleEndian.Uint64(key[8:]))
	for _, text := range []string{stale, stale + "\n" + stale, "", "no secret here, but many words", secret[:window-1], "wsb_", strings.Repeat("A", 1000)} {
		if hits := s.find(text); len(hits) > 0 {
			t.Errorf("%q: %v", text, hits)
		}
	}
}
