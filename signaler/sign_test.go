package signaler_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
)

// goldenKey has the seed that doc.go names.
func goldenKey() signaler.SigningKey {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(i)
	}
	return signaler.SigningKeyFrom(seed)
}

const goldenPublic = "ed25519-public:A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"

// The vectors were made by another program, from doc.go.
func TestSignatureGolden(t *testing.T) {
	key := goldenKey()
	if got := key.Public().String(); got != goldenPublic {
		t.Fatalf("the public key is %s", got)
	}
	for _, name := range []string{"signature", "signature_two_fields"} {
		s, err := signaler.Parse(golden(t, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := hex.EncodeToString(signaler.Signed(s)), strings.TrimSpace(string(golden(t, name+".hex"))); got != want {
			t.Errorf("%s: signed is\n     %s\nwant %s", name, got, want)
		}
		if err := signaler.CheckSignature(s, []signaler.PublicKey{key.Public()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := s.Sig
		s.Sig = ""
		if signaler.NewSigner(key).Sign(s); s.Sig != want {
			t.Errorf("%s: signed as %s, want %s", name, s.Sig, want)
		}
		b, err := s.Encode()
		if err != nil || !bytes.Equal(b, golden(t, name+".json")) {
			t.Errorf("%s: encoded to %s, %v", name, b, err)
		}
	}
}

// covered changes each field that is covered, in ways that a careless encoding would
// take for the same.
var covered = map[string]func(*signaler.Signal){
	"acceptUrl":          func(s *signaler.Signal) { s.AcceptURL += "x" },
	"acceptUrl host":     func(s *signaler.Signal) { s.AcceptURL = strings.Replace(s.AcceptURL, "relay.", "relax.", 1) },
	"rejectUrl":          func(s *signaler.Signal) { s.RejectURL += "x" },
	"rejectUrl gone":     func(s *signaler.Signal) { s.RejectURL = "" },
	"requestData":        func(s *signaler.Signal) { s.RequestData += " " },
	"requestData gone":   func(s *signaler.Signal) { s.RequestData = "" },
	"v":                  func(s *signaler.Signal) { s.Version = 0 },
	"bridgeId":           func(s *signaler.Signal) { s.BridgeID = strings.ToUpper(s.BridgeID) },
	"deviceId":           func(s *signaler.Signal) { s.DeviceID = "pump-8" },
	"deviceId and on":    func(s *signaler.Signal) { s.DeviceID, s.Target = s.DeviceID+s.Target, "" },
	"target":             func(s *signaler.Signal) { s.Target = "ssh,web" },
	"target, principal":  func(s *signaler.Signal) { s.Target, s.Principal = s.Principal, s.Target },
	"principal":          func(s *signaler.Signal) { s.Principal = "root@example.com" },
	"principal gone":     func(s *signaler.Signal) { s.Principal = "" },
	"expiresAt":          func(s *signaler.Signal) { s.ExpiresAt = s.ExpiresAt.Add(time.Second) },
	"expiresAt gone":     func(s *signaler.Signal) { s.ExpiresAt = time.Time{} },
	"subprotocols":       func(s *signaler.Signal) { s.Subprotocols = []string{"bridge.session.v1", "mqtz"} },
	"subprotocols order": func(s *signaler.Signal) { s.Subprotocols = []string{"mqtt", "bridge.session.v1"} },
	"subprotocols glued": func(s *signaler.Signal) { s.Subprotocols = []string{"bridge.session.v1mqtt"} },
	"subprotocols less":  func(s *signaler.Signal) { s.Subprotocols = s.Subprotocols[:1] },
	"subprotocols more":  func(s *signaler.Signal) { s.Subprotocols = append(s.Subprotocols, "x") },
	"subprotocols gone":  func(s *signaler.Signal) { s.Subprotocols = nil },
}

func TestSignatureCovers(t *testing.T) {
	key := signaler.NewSigningKey()
	list := []signaler.PublicKey{signaler.NewSigningKey().Public(), key.Public()}
	for name, change := range covered {
		s := full()
		signaler.NewSigner(key).Sign(s)
		if err := signaler.CheckSignature(s, list); err != nil {
			t.Fatal(err)
		}
		change(s)
		err := signaler.CheckSignature(s, list)
		if !errors.Is(err, signaler.ErrWrongSignature) || !strings.Contains(err.Error(), "key "+key.Public().ID()+" has not signed this") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	traced := full() // which came later than the signature
	signaler.NewSigner(key).Sign(traced)
	traced.TraceParent = ""
	if err := signaler.CheckSignature(traced, list); err != nil {
		t.Errorf("without its traceparent: %v", err)
	}
	// A fraction of a second is not sent, so it is not signed.
	s := full()
	s.ExpiresAt = s.ExpiresAt.Add(time.Millisecond).In(time.FixedZone("", 3600))
	signaler.NewSigner(key).Sign(s)
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = signaler.Parse(b); err != nil || signaler.CheckSignature(s, list) != nil {
		t.Errorf("with a fraction: %v", err)
	}
}

func TestSignatureFaults(t *testing.T) {
	key, other := signaler.NewSigningKey(), signaler.NewSigningKey()
	good := full()
	signaler.NewSigner(key).Sign(good)
	raw, err := base64.RawURLEncoding.DecodeString(good.Sig)
	if err != nil {
		t.Fatal(err)
	}
	text := func(change func([]byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(change(bytes.Clone(raw)))
	}
	list := []signaler.PublicKey{key.Public()}
	for _, tt := range []struct {
		name, sig, want string
		keys            []signaler.PublicKey
	}{
		{"none", "", "is not signed", list},
		{"no keys", good.Sig, "not on the list", nil},
		{"other keys", good.Sig, "made with key " + key.Public().ID() + ", which is not on the list", []signaler.PublicKey{other.Public()}},
		{"padded", good.Sig + "==", "not base64url", list},
		{"line end", good.Sig[:50] + "\n" + good.Sig[50:], "not base64url", list},
		{"standard alphabet", base64.StdEncoding.EncodeToString(append(bytes.Clone(raw), 0xff, 0xff)), "not base64url", list},
		{"unused bits", good.Sig[:len(good.Sig)-1] + nextLetter(good.Sig[len(good.Sig)-1]), "not base64url", list},
		{"words", "secret", "wrong", list},
		{"version 2", text(func(b []byte) []byte { b[0] = 2; return b }), "version 2", list},
		{"short", text(func(b []byte) []byte { return b[:len(b)-1] }), "72 bytes instead of 73", list},
		{"long", text(func(b []byte) []byte { return append(b, 0) }), "74 bytes instead of 73", list},
		{"version only", text(func(b []byte) []byte { return b[:1] }), "1 bytes instead of 73", list},
		{"key ID", text(func(b []byte) []byte { b[8] ^= 1; return b }), "not on the list", list},
		{"R", text(func(b []byte) []byte { b[9] ^= 1; return b }), "has not signed this", list},
		{"S", text(func(b []byte) []byte { b[41] ^= 1; return b }), "has not signed this", list},
	} {
		s := full()
		s.Sig = tt.sig
		err := signaler.CheckSignature(s, tt.keys)
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, signaler.ErrNotSigned) != (tt.sig == "") || errors.Is(err, signaler.ErrWrongSignature) == (tt.sig == "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			continue
		}
		quotesNothing(t, err.Error())
	}
	for bit := range len(raw) * 8 { // none is left over
		s := full()
		s.Sig = text(func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
		if signaler.CheckSignature(s, list) == nil {
			t.Errorf("bit %d does not matter", bit)
		}
	}
}

// The zero key is a point of order four: S = 0 and R = its own multiple are a signature
// for every fourth message or so, without any private key.
func TestZeroPublicKey(t *testing.T) {
	var zero signaler.PublicKey
	id, err := hex.DecodeString(zero.ID())
	if err != nil {
		t.Fatal(err)
	}
	r := make([]byte, 64)
	r[0] = 1 // the neutral element
	forged := 0
	for i := range 64 {
		s := full()
		s.BridgeID = fmt.Sprint(i)
		s.Sig = base64.RawURLEncoding.EncodeToString(slices.Concat([]byte{1}, id, r))
		if ed25519.Verify(make([]byte, 32), signaler.Signed(s), r) {
			forged++
		}
		if err := signaler.CheckSignature(s, []signaler.PublicKey{zero}); !errors.Is(err, signaler.ErrWrongSignature) {
			t.Fatalf("got %v", err)
		}
	}
	if forged == 0 {
		t.Error("none of the forgeries was one: the test tests nothing")
	}
}

// nextLetter decodes to the same bytes as c at the end, where four bits are not used.
func nextLetter(c byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(letters[strings.IndexByte(letters, c)|1])
}

// Old and new key at once, whichever signs.
func TestSignerReplace(t *testing.T) {
	a, b := signaler.NewSigningKey(), signaler.NewSigningKey()
	signer, both := signaler.NewSigner(a), []signaler.PublicKey{a.Public(), b.Public()}
	before := full()
	signer.Sign(before)
	signer.Replace(b)
	after := full()
	signer.Sign(after)
	if signer.Public() != b.Public() || signer.LogValue().String() != b.Public().String() {
		t.Error("another key is in force")
	}
	for i, s := range []*signaler.Signal{before, after} {
		if err := signaler.CheckSignature(s, both); err != nil {
			t.Error(err)
		}
		if err := signaler.CheckSignature(s, both[1-i:2-i]); !errors.Is(err, signaler.ErrWrongSignature) {
			t.Errorf("the other key: %v", err)
		}
	}
}

// The longest signature takes what it takes, and the rest has its old room.
func TestSignedSize(t *testing.T) {
	s := full()
	s.Sig = ""
	bare, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	signaler.NewSigner(goldenKey()).Sign(s)
	b, err := s.Encode()
	if err != nil || len(b)-len(bare) != 107 {
		t.Errorf("a signature takes %d bytes, %v", len(b)-len(bare), err)
	}
	s.RequestData = strings.Repeat("x", signaler.MaxSize)
	signaler.NewSigner(goldenKey()).Sign(s)
	if _, err := s.Encode(); !errors.Is(err, signaler.ErrTooBig) {
		t.Errorf("got %v", err)
	}
}

// What other programs make of the JSON on its way is the same signal.
func TestSignatureReencoded(t *testing.T) {
	in := golden(t, "signature.json")
	for name, change := range map[string]func(string) string{
		"as it is": func(s string) string { return s },
		"spaces":   func(s string) string { return " {\n" + s[1:] + "\r\n\t" },
		"ASCII":    func(s string) string { return strings.ReplaceAll(s, "ä", `\u00e4`) },
		"slashes":  func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
		"HTML": func(s string) string {
			return strings.NewReplacer("&", `\u0026`, "<", `\u003c`, ">", `\u003E`).Replace(s)
		},
		"nulls": func(s string) string { return s[:len(s)-1] + `,"other":null}` },
		"sorted": func(s string) string {
			var m map[string]any
			if err := json.Unmarshal([]byte(s), &m); err != nil {
				t.Fatal(err)
			}
			b, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		},
	} {
		s, err := signaler.Parse([]byte(change(string(in))))
		if err == nil {
			err = signaler.CheckSignature(s, []signaler.PublicKey{goldenKey().Public()})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyTexts(t *testing.T) {
	key := signaler.NewSigningKey()
	private, public := key.Reveal(), key.Public().String()
	for _, text := range []string{private, " " + private + "\r\n", "# of the relay\n\n" + private + " # 2026\n"} {
		if got, err := signaler.ParseSigningKey(text); err != nil || got.Public() != key.Public() {
			t.Errorf("%v", err)
		}
	}
	for text, want := range map[string]string{
		"":                                   "there is none; make one with: relay keygen",
		"# nothing":                          "there is none",
		public:                               "is a public line",
		private + "\n" + private:             "there are two",
		private + "x":                        "has 33 bytes; 32 are needed",
		private + "=":                        "is not base64url",
		private[:len(private)-2]:             "is not base64url",
		strings.Split(private, ":")[1]:       "does not start with",
		"-----BEGIN PRIVATE KEY-----\nx":     "does not start with",
		strings.ToUpper(private):             "does not start with",
		"ed25519-private:" + "secret secret": "is not base64url",
	} {
		_, err := signaler.ParseSigningKey(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), private[20:40]) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	keys, err := signaler.ParsePublicKeys([]string{public, " " + goldenPublic})
	if err != nil || len(keys) != 2 || keys[0] != key.Public() || keys[1] != goldenKey().Public() {
		t.Errorf("%v, %v", keys, err)
	}
	_, err = signaler.ParsePublicKeys([]string{private, "", "ed25519-public:" + strings.Repeat("A", 43), public + "x"})
	for _, want := range []string{"key 1 is a private key, which only the relay may have", "key 2 does not start with", "key 3 is a placeholder", "key 4 has 33 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), private[20:40]) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// However a key is printed, it is not.
func TestSigningKeyRedacted(t *testing.T) {
	key := goldenKey()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "in", struct{ K signaler.SigningKey }{key})
	j, err := json.Marshal(map[string]any{"k": key})
	if err != nil {
		t.Fatal(err)
	}
	text := log.String() + string(j)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		text += fmt.Sprintf(verb, key) + fmt.Sprintf(verb, struct{ k signaler.SigningKey }{key}) + fmt.Sprintf(verb, signaler.NewSigner(key))
	}
	for _, leak := range []string{key.Reveal()[16:], "AAECAwQF", "000102030405", "0 1 2 3 4 5", `\x00\x01\x02`} {
		if strings.Contains(text, leak) {
			t.Errorf("%s is in %s", leak, text)
		}
	}
	if !(signaler.SigningKey{}).IsZero() || key.IsZero() {
		t.Error("IsZero")
	}
}

// FuzzSigned: two signals have the same signed bytes only if they are the same, also when
// what is in one field could be the end of another.
func FuzzSigned(f *testing.F) {
	f.Add("wss://h/", "d", "t", "p", "a", "b", "wss://h/", "dt", "", "p", "a", "b")
	f.Add("wss://h/", "", "", "", "a", "", "wss://h/", "", "", "", "", "a")
	f.Add("wss://h/\x00\x00\x00\x00", "", "\x00\x00\x00\x01a", "", "", "", "wss://h/", "\x00\x00\x00\x00", "a", "", "", "")
	f.Fuzz(func(t *testing.T, u1, d1, t1, p1, a1, b1, u2, d2, t2, p2, a2, b2 string) {
		of := func(u, d, target, p, a, b string) *signaler.Signal {
			s := &signaler.Signal{AcceptURL: u, DeviceID: d, Target: target, Principal: p}
			for _, x := range []string{a, b} {
				if x != "" {
					s.Subprotocols = append(s.Subprotocols, x)
				}
			}
			return s
		}
		x, y := of(u1, d1, t1, p1, a1, b1), of(u2, d2, t2, p2, a2, b2)
		if same, equal := bytes.Equal(signaler.Signed(x), signaler.Signed(y)), reflect.DeepEqual(*x, *y); same != equal {
			t.Errorf("same bytes: %t, same signals: %t", same, equal)
		}
	})
}

// FuzzSignature: whatever is in a signal, its signature survives the JSON, also if others
// write it anew; a change of any covered field does not survive; and no text but the
// signature's own is taken for it.
func FuzzSignature(f *testing.F) {
	f.Add("data", "ssh", "ops", "pump-7", int64(1767323045), byte(3), "sig")
	f.Add("\u2028<&>\"\\/ä\x00", "a,b", "oidc:me@example.com", "", int64(0), byte(0), "")
	key := goldenKey()
	list := []signaler.PublicKey{key.Public()}
	f.Fuzz(func(t *testing.T, data, target, principal, device string, expires int64, n byte, other string) {
		s := &signaler.Signal{AcceptURL: "wss://relay.example/?bridgeToken=t", RequestData: data, Target: target, Principal: principal, DeviceID: device, Version: int(n % 2)}
		if expires != 0 {
			s.ExpiresAt = time.Unix(expires, int64(n))
		}
		for i := range n % 4 {
			s.Subprotocols = append(s.Subprotocols, fmt.Sprint("p", i))
		}
		signaler.NewSigner(key).Sign(s)
		b, err := s.Encode()
		if err != nil {
			return // not UTF-8, too big, or a time that has no text
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{b, again} {
			if len(b) > signaler.MaxSize {
				continue // escapes for HTML
			}
			got, err := signaler.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := signaler.CheckSignature(got, list); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		for name, change := range covered {
			c := *s
			c.Subprotocols = append([]string(nil), s.Subprotocols...)
			if strings.HasPrefix(name, "subprotocols") && len(c.Subprotocols) < 2 {
				continue
			}
			change(&c)
			if !bytes.Equal(signaler.Signed(&c), signaler.Signed(s)) && signaler.CheckSignature(&c, list) == nil {
				t.Errorf("%s may be changed", name)
			}
		}
		if c := *s; other != s.Sig {
			c.Sig = other
			if signaler.CheckSignature(&c, list) == nil {
				t.Errorf("%q is taken for %q", other, s.Sig)
			}
		}
	})
}
