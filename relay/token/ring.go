package token

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Why a token does not open.
var (
	// ErrMalformed: it is no token of this version, whoever sealed it.
	ErrMalformed = errors.New("bridge token is malformed")
	// ErrProof: it has the form of a token, or of a MAC, but no key of the ring made
	// it, or somebody changed it since.
	ErrProof = errors.New("not sealed with a key of ours")
	// ErrExpired: it is one of ours, too late.
	ErrExpired = errors.New("bridge token has expired")
)

const (
	version   = 1
	headSize  = 1 + len(keyID{}) // also the additional data
	nonceSize = chacha20poly1305.NonceSizeX
	tagSize   = chacha20poly1305.Overhead

	minRaw = headSize + nonceSize + minClaims + tagSize
	maxRaw = headSize + nonceSize + maxClaims + tagSize

	// MaxLen is the longest token in characters: a cap for whoever reads one
	// from a URL.
	MaxLen = (maxRaw*8 + 5) / 6
)

// Strict refuses set bits after the last byte: without it three other texts
// would open as the same token.
var text = base64.RawURLEncoding.Strict()

type keyID [4]byte

// A Ring holds the keys of a node; NewRing makes it. Its methods may be called
// concurrently.
type Ring struct {
	keys atomic.Pointer[keySet]
}

type keySet struct {
	seals keyID
	byID  map[keyID]cipher.AEAD
	raw   map[keyID]Key // for MACs
	names string        // the IDs in order, for String
}

// NewRing returns a ring whose first key seals, and all of whose keys open.
func NewRing(keys ...Key) (*Ring, error) {
	r := new(Ring)
	if err := r.Replace(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace swaps all keys at once. After an error the ring is as before.
func (r *Ring) Replace(keys ...Key) error {
	set := &keySet{byID: make(map[keyID]cipher.AEAD, len(keys)), raw: make(map[keyID]Key, len(keys))}
	if len(keys) == 0 {
		return errors.New("token ring: no key")
	}
	var names []string
	for i, k := range keys {
		if k.IsZero() {
			return fmt.Errorf("token ring: key %d is empty", i+1)
		}
		id := k.id()
		// Equal IDs are equal keys, or a coincidence of one in 2^32 that costs
		// its victim a second key.
		if _, dup := set.byID[id]; dup {
			return fmt.Errorf("token ring: key %d has the ID of an earlier one, %x", i+1, id)
		}
		aead, err := chacha20poly1305.NewX(k.bytes()[:])
		if err != nil {
			return fmt.Errorf("token ring: key %d: %w", i+1, err)
		}
		if i == 0 {
			set.seals = id
		}
		set.byID[id], set.raw[id] = aead, k
		names = append(names, hex.EncodeToString(id[:]))
	}
	set.names = strings.Join(names, " ")
	r.keys.Store(set)
	return nil
}

// Seal returns a token that proves c.
func (r *Ring) Seal(c Claims) (string, error) {
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // never fails: it ends the program instead (Go 1.24)
	return r.seal(c, nonce)
}

func (r *Ring) seal(c Claims, nonce [nonceSize]byte) (string, error) {
	var plainBuf [maxClaims]byte
	plain, err := c.appendTo(plainBuf[:0])
	if err != nil {
		return "", fmt.Errorf("seal bridge token: %w", err)
	}
	set := r.keys.Load()
	raw := make([]byte, 0, maxRaw)
	raw = append(raw, version)
	raw = append(raw, set.seals[:]...)
	raw = append(raw, nonce[:]...)
	raw = set.byID[set.seals].Seal(raw, nonce[:], plain, raw[:headSize]) // #nosec G407 -- it is random, see above
	return text.EncodeToString(raw), nil
}

// Open returns what tok proves, if it is live at now. With ErrExpired it
// returns the claims too, for the log and the answer; with any other error it
// returns none. Errors never quote the token.
func (r *Ring) Open(tok string, now time.Time) (Claims, error) {
	raw, err := decode(tok)
	if err != nil {
		return Claims{}, err
	}
	head, nonce, sealed := raw[:headSize], raw[headSize:headSize+nonceSize], raw[headSize+nonceSize:]
	id := keyID(head[1:])
	aead, ok := r.keys.Load().byID[id]
	if !ok {
		return Claims{}, fmt.Errorf("%w: unknown key ID %x", ErrProof, id)
	}
	plain, err := aead.Open(sealed[:0], nonce, sealed, head)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: forged under key ID %x", ErrProof, id)
	}
	c, err := parseClaims(plain)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !now.Before(c.Expires) {
		return c, ErrExpired
	}
	return c, nil
}

func decode(tok string) ([]byte, error) {
	// Before decoding: a megabyte in a URL must not cost a megabyte more.
	if len(tok) > MaxLen {
		return nil, fmt.Errorf("%w: has %d characters; %d are allowed", ErrMalformed, len(tok), MaxLen)
	}
	// Even the strict decoder passes over line ends, wherever they are.
	if strings.ContainsAny(tok, "\r\n") {
		return nil, fmt.Errorf("%w: has a line end", ErrMalformed)
	}
	raw, err := text.DecodeString(tok)
	if err != nil {
		return nil, fmt.Errorf("%w: is not base64url", ErrMalformed)
	}
	if len(raw) == 0 || raw[0] == version && len(raw) < minRaw {
		return nil, fmt.Errorf("%w: is cut short", ErrMalformed)
	}
	if raw[0] != version { // another version may have another length
		return nil, fmt.Errorf("%w: version %d; this node knows %d", ErrMalformed, raw[0], version)
	}
	return raw, nil
}

// String names the key IDs, the sealing one first. They are public.
func (r *Ring) String() string {
	set := r.keys.Load()
	if set == nil {
		return "token.Ring(empty)"
	}
	return "token.Ring(" + set.names + ")"
}

// GoString, Format, LogValue and MarshalText keep the keys out of whatever
// prints a ring.
func (r *Ring) GoString() string             { return r.String() }
func (r *Ring) Format(s fmt.State, _ rune)   { io.WriteString(s, r.String()) }
func (r *Ring) LogValue() slog.Value         { return slog.StringValue(r.String()) }
func (r *Ring) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
