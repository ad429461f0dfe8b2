package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	// keyPrefix lets secret scanners, and people, tell what they have found.
	keyPrefix = "wsb_"

	minKey = 32  // characters: 128 bits in hex, the least that is safe under a fast hash
	maxKey = 256 // characters: a longer credential is no API key, and is not hashed
	// minVariety is how many different characters, and how many different
	// steps between neighbours, a key needs: 32 random hex digits have fewer
	// than 8 once in 10^7 keys; "passwordpassword…" has 7 and "abcdef…" has
	// one step. It catches accidents. It does not measure entropy.
	minVariety = 8

	hashScheme = "hmac-sha256"
	saltSize   = 16
)

var hashText = base64.RawURLEncoding.Strict()

// NewAPIKey returns a key: wsb_ and 43 characters for 32 random bytes.
func NewAPIKey() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: it ends the program instead (Go 1.24)
	return keyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// HashKey returns the HASH of a key for the keys file, with a new salt. It
// refuses keys that a fast hash cannot protect. Errors do not quote the key.
func HashKey(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", fmt.Errorf("hash API key: the key %w; make one with: relay hash-key NAME", err)
	}
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails
	return hashKey(key, salt).String(), nil
}

func checkKey(key string) error {
	if len(key) < minKey {
		return fmt.Errorf("has %d characters; at least %d are needed", len(key), minKey)
	}
	if len(key) > maxKey {
		return fmt.Errorf("has %d characters; at most %d are allowed", len(key), maxKey)
	}
	chars, steps := make(map[byte]bool), make(map[int]bool)
	for i := range len(key) {
		// A header carries only these as they are (RFC 9110 section 5.5).
		if key[i] <= ' ' || key[i] >= 0x7f {
			return errors.New("has a character other than visible ASCII")
		}
		chars[key[i]] = true
		if i > 0 {
			steps[int(key[i])-int(key[i-1])] = true
		}
	}
	repeats := strings.Contains((key + key)[1:2*len(key)-1], key)
	if len(chars) < minVariety || len(steps) < minVariety || repeats {
		return errors.New("is not random")
	}
	return nil
}

// A keyHash is one HASH.
type keyHash struct {
	salt [saltSize]byte
	mac  [sha256.Size]byte
}

func hashKey(key string, salt [saltSize]byte) keyHash {
	h := keyHash{salt: salt}
	m := hmac.New(sha256.New, salt[:])
	m.Write([]byte(key))
	m.Sum(h.mac[:0])
	return h
}

// matches is 1 if key is the hashed one, else 0, and takes as long either way.
func (h *keyHash) matches(key string) int {
	got := hashKey(key, h.salt)
	return subtle.ConstantTimeCompare(got.mac[:], h.mac[:])
}

// String is the text in the keys file.
func (h keyHash) String() string {
	return hashScheme + ":" + hashText.EncodeToString(h.salt[:]) + ":" + hashText.EncodeToString(h.mac[:])
}

var errHash = errors.New("HASH is not hmac-sha256:SALT:MAC; make one with: relay hash-key NAME")

func parseHash(s string) (keyHash, error) {
	var h keyHash
	if strings.HasPrefix(s, keyPrefix) {
		return h, errors.New("HASH is a key itself, which is now burnt: replace it, and put only its hash here; make both with: relay hash-key NAME")
	}
	p := strings.Split(s, ":")
	if len(p) != 3 || p[0] != hashScheme {
		return h, errHash
	}
	salt, errS := hashText.DecodeString(p[1])
	mac, errM := hashText.DecodeString(p[2])
	if errS != nil || errM != nil || len(salt) != len(h.salt) || len(mac) != len(h.mac) {
		return h, errHash
	}
	return keyHash{[saltSize]byte(salt), [sha256.Size]byte(mac)}, nil
}
