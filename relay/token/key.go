package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	keySize = 32 // XChaCha20-Poly1305
	// maxKeys is far above a rotation's two or three, and low enough to notice
	// that the wrong file was given.
	maxKeys = 16
	// minDistinct bytes in a key: 32 random ones have 30 on average, and fewer
	// than 16 once in 10^16 keys. It catches placeholders, not weak passwords.
	minDistinct = 16

	keyHint  = "make one with: relay token-key"
	redacted = "token.Key(redacted)"
	idLabel  = "websocketbridge bridge token key ID v1\x00"
)

// A Key seals and opens tokens. The zero Key is no key.
//
// It prints as "redacted" whichever way it is printed. The bytes are behind a
// function because fmt calls no methods on unexported fields: in such a field
// of some Config an array would print in full, and so would a pointer to one
// under a verb that does not fit it. A function prints as an address. It also
// makes == a compile error: use Equal.
type Key struct{ bytes func() *[keySize]byte }

// NewKey returns a random key.
func NewKey() Key {
	var b [keySize]byte
	rand.Read(b[:]) // never fails: it ends the program instead (Go 1.24)
	return KeyFrom(b)
}

// KeyFrom returns the key with these bytes.
func KeyFrom(b [32]byte) Key {
	return Key{func() *[keySize]byte { return &b }}
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.bytes == nil }

// Reveal returns the key as ParseKeys reads it, for the command that makes a
// key for its user. Nothing else has a reason to call it.
func (k Key) Reveal() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.bytes()[:])
}

// Equal reports whether k and o are the same key. It is for configuration, and
// takes no care to be constant-time.
func (k Key) Equal(o Key) bool {
	if k.IsZero() || o.IsZero() {
		return k.IsZero() == o.IsZero()
	}
	return *k.bytes() == *o.bytes()
}

// Fingerprint is the key ID in hex: public, in every token, fit for a log.
func (k Key) Fingerprint() string {
	if k.IsZero() {
		return ""
	}
	id := k.id()
	return hex.EncodeToString(id[:])
}

func (k Key) id() keyID {
	sum := sha256.Sum256(append([]byte(idLabel), k.bytes()[:]...))
	return keyID(sum[:len(keyID{})])
}

// String, GoString, Format, LogValue and MarshalText keep the key out of
// whatever prints it; Format is for verbs such as %d, which ask no String.
func (k Key) String() string               { return redacted }
func (k Key) GoString() string             { return redacted }
func (k Key) Format(s fmt.State, _ rune)   { io.WriteString(s, redacted) }
func (k Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ParseKeys reads keys: base64 of 32 bytes, standard or URL alphabet, padded or
// not, separated by line ends or commas; # starts a comment that ends with the
// line. The first seals, all open. Errors name lines and never quote them, and
// all faults come at once.
func ParseKeys(text string) ([]Key, error) {
	var (
		keys   []Key
		faults []error
		seenAt = make(map[[keySize]byte]int)
	)
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		for s := range strings.SplitSeq(line, ",") {
			if s = strings.TrimSpace(s); s == "" {
				continue // a comma at the end of a line is no fault
			}
			k, err := parseKey(s)
			if err != nil {
				faults = append(faults, fmt.Errorf("line %d: %w", i+1, err))
				continue
			}
			if at, dup := seenAt[*k.bytes()]; dup {
				faults = append(faults, fmt.Errorf("line %d: the key of line %d again", i+1, at))
				continue
			}
			seenAt[*k.bytes()] = i + 1
			keys = append(keys, k)
		}
	}
	switch {
	case len(faults) > maxKeys: // a wrong file, not a typing error
		faults = append(faults[:maxKeys:maxKeys], errors.New("and so on"))
	case len(faults) > 0:
	case len(keys) == 0:
		faults = append(faults, fmt.Errorf("there is none; %s", keyHint))
	case len(keys) > maxKeys:
		faults = append(faults, fmt.Errorf("there are %d; %d are allowed", len(keys), maxKeys))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("token keys: %w", errors.Join(faults...))
	}
	return keys, nil
}

func parseKey(s string) (Key, error) {
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	// Not Strict: the two unused bits of a key carry nothing, and a key that
	// another tool wrote with them set is a good key.
	b, err := enc.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return Key{}, fmt.Errorf("is not base64; %s", keyHint) // err tells which byte is wrong: too much
	}
	if len(b) != keySize {
		return Key{}, fmt.Errorf("has %d bytes; %d are needed; %s", len(b), keySize, keyHint)
	}
	seen := make(map[byte]bool)
	for _, c := range b {
		seen[c] = true
	}
	if len(seen) < minDistinct {
		return Key{}, fmt.Errorf("is not random; %s", keyHint)
	}
	return KeyFrom([keySize]byte(b)), nil
}
