package signaler

import (
	"crypto/ed25519"
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
	privatePrefix = "ed25519-private:"
	publicPrefix  = "ed25519-public:"
	keyHint       = "make one with: relay keygen"

	keyIDSize  = 8
	keyIDLabel = "websocketbridge signal key ID v1\x00"

	redactedKey = "signaler.SigningKey(redacted)"
)

// keyID tells which key has made a signature.
type keyID [keyIDSize]byte

// A SigningKey signs signals. The zero SigningKey is no key.
//
// It prints as "redacted" whichever way it is printed; the bytes are behind a function
// because fmt calls no methods on unexported fields (as with token.Key of the relay).
type SigningKey struct{ bytes func() ed25519.PrivateKey }

// NewSigningKey returns a random key.
func NewSigningKey() SigningKey {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:]) // never fails: it ends the program instead (Go 1.24)
	return SigningKeyFrom(seed)
}

// SigningKeyFrom returns the key with this seed (RFC 8032 section 5.1.5).
func SigningKeyFrom(seed [ed25519.SeedSize]byte) SigningKey {
	k := ed25519.NewKeyFromSeed(seed[:])
	return SigningKey{func() ed25519.PrivateKey { return k }}
}

// IsZero reports whether k is no key.
func (k SigningKey) IsZero() bool { return k.bytes == nil }

// Public is what devices check k's signatures with.
func (k SigningKey) Public() PublicKey {
	return PublicKey{[ed25519.PublicKeySize]byte(k.bytes().Public().(ed25519.PublicKey))}
}

// Reveal returns the key as ParseSigningKey reads it, for the command that makes a key
// for its user. Nothing else has a reason to call it.
func (k SigningKey) Reveal() string {
	return privatePrefix + base64.RawURLEncoding.EncodeToString(k.bytes().Seed())
}

// String, GoString, Format, LogValue and MarshalText keep the key out of whatever prints it.
func (k SigningKey) String() string               { return redactedKey }
func (k SigningKey) GoString() string             { return redactedKey }
func (k SigningKey) Format(s fmt.State, _ rune)   { io.WriteString(s, redactedKey) }
func (k SigningKey) LogValue() slog.Value         { return slog.StringValue(redactedKey) }
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(redactedKey), nil }

// A PublicKey checks signatures. The zero PublicKey finds none good.
type PublicKey struct{ bytes [ed25519.PublicKeySize]byte }

// String is the public line, as ParsePublicKeys reads it.
func (k PublicKey) String() string {
	return publicPrefix + base64.RawURLEncoding.EncodeToString(k.bytes[:])
}

// ID is the key's ID in hex, as signatures and errors have it.
func (k PublicKey) ID() string {
	id := k.id()
	return hex.EncodeToString(id[:])
}

func (k PublicKey) id() keyID {
	sum := sha256.Sum256(append([]byte(keyIDLabel), k.bytes[:]...))
	return keyID(sum[:keyIDSize])
}

// parseKey reads one key with this prefix. The other one tells what was mixed up.
func parseKey(s, prefix, other string) (b [32]byte, err error) {
	text, ok := strings.CutPrefix(s, prefix)
	switch {
	case !ok && strings.HasPrefix(s, other) && other == privatePrefix:
		return b, errors.New("is a private key, which only the relay may have; take the public line of relay keygen, and make another key if this one was seen")
	case !ok && strings.HasPrefix(s, other):
		return b, errors.New("is a public line, for devices; the relay needs the private one")
	case !ok:
		return b, fmt.Errorf("does not start with %q", prefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(raw) != text {
		return b, fmt.Errorf("is not base64url behind %q", prefix)
	}
	if len(raw) != len(b) {
		return b, fmt.Errorf("has %d bytes; %d are needed", len(raw), len(b))
	}
	return [32]byte(raw), nil
}
