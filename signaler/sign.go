package signaler

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Why a signature is not accepted.
var (
	// ErrNotSigned: the signal has no signature.
	ErrNotSigned = errors.New("the signal is not signed")
	// ErrWrongSignature: it has one that none of the keys made for it.
	ErrWrongSignature = errors.New("the signal's signature is wrong")
)

// See doc.go for both forms.
const (
	sigVersion = 1
	sigSize    = 1 + keyIDSize + ed25519.SignatureSize
	sigLabel   = "websocketbridge signal\x00\x01" // what is signed, and in which version
)

// A Signer signs signals. Its key can be replaced while it does; it is safe for
// concurrent use.
type Signer struct {
	key atomic.Pointer[SigningKey]
}

// NewSigner returns a Signer with a key that is not zero.
func NewSigner(key SigningKey) *Signer {
	s := new(Signer)
	s.Replace(key)
	return s
}

// Replace makes key sign from now on.
func (r *Signer) Replace(key SigningKey) { r.key.Store(&key) }

// Public is the key by which devices check what is signed now.
func (r *Signer) Public() PublicKey { return r.key.Load().Public() }

// LogValue is the public key.
func (r *Signer) LogValue() slog.Value { return slog.StringValue(r.Public().String()) }

// Sign sets s.Sig.
func (r *Signer) Sign(s *Signal) {
	key := r.key.Load()
	id := key.Public().id()
	b := append([]byte{sigVersion}, id[:]...)
	b = append(b, ed25519.Sign(key.bytes(), s.signed())...)
	s.Sig = base64.RawURLEncoding.EncodeToString(b)
}

// CheckSignature returns nil if one of keys has signed s. Its errors wrap ErrNotSigned
// or ErrWrongSignature and quote nothing of the signal but a key's ID.
func CheckSignature(s *Signal, keys []PublicKey) error {
	if s.Sig == "" {
		return ErrNotSigned
	}
	b, err := base64.RawURLEncoding.DecodeString(s.Sig)
	switch {
	case err != nil || base64.RawURLEncoding.EncodeToString(b) != s.Sig || len(b) == 0: // one text for one signature
		return fmt.Errorf("%w: it is not base64url", ErrWrongSignature)
	case b[0] != sigVersion:
		return fmt.Errorf("%w: it has version %d, and %d is known here", ErrWrongSignature, b[0], sigVersion)
	case len(b) != sigSize:
		return fmt.Errorf("%w: it has %d bytes instead of %d", ErrWrongSignature, len(b), sigSize)
	}
	id, sig := keyID(b[1:1+keyIDSize]), b[1+keyIDSize:]
	listed := false
	for _, k := range keys {
		if k.id() != id || k == (PublicKey{}) { // which is a point of small order: anybody can sign for it
			continue
		}
		if listed = true; ed25519.Verify(k.bytes[:], s.signed(), sig) {
			return nil
		}
	}
	if !listed {
		return fmt.Errorf("%w: it was made with key %x, which is not on the list", ErrWrongSignature, id)
	}
	return fmt.Errorf("%w: key %x has not signed this; it was changed on its way, or forged", ErrWrongSignature, id)
}

// signed is what a signature covers.
func (s *Signal) signed() []byte {
	b := []byte(sigLabel)
	for _, v := range []string{s.AcceptURL, s.RejectURL, s.RequestData, strconv.Itoa(s.Version), s.BridgeID, s.DeviceID,
		s.Target, s.Principal, expiryText(s.ExpiresAt)} {
		b = appendField(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Subprotocols)))
	for _, p := range s.Subprotocols {
		b = appendField(b, p)
	}
	return b
}

func appendField(b []byte, v string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// expiryText is t as in the JSON form, or nothing.
func expiryText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Second).Format(expiryForm)
}

// ParseSigningKey reads the one key of a text: a line like Reveal's, with blank lines
// and comments from # to the end of a line. Its errors do not quote the text.
func ParseSigningKey(text string) (SigningKey, error) {
	var key SigningKey
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		b, err := parseKey(line, privatePrefix, publicPrefix)
		switch {
		case err != nil:
			return SigningKey{}, fmt.Errorf("signal key: %w; %s", err, keyHint)
		case !key.IsZero():
			return SigningKey{}, errors.New("signal key: there are two; one signs, and devices list the public lines of both")
		}
		key = SigningKeyFrom(b)
	}
	if key.IsZero() {
		return SigningKey{}, fmt.Errorf("signal key: there is none; %s", keyHint)
	}
	return key, nil
}

// ParsePublicKeys reads public lines, one an entry. Every fault is reported at once; none
// is quoted, since a private key may be there by mistake.
func ParsePublicKeys(entries []string) ([]PublicKey, error) {
	var (
		keys []PublicKey
		errs []error
	)
	for i, e := range entries {
		b, err := parseKey(strings.TrimSpace(e), publicPrefix, privatePrefix)
		k := PublicKey{b}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("key %d %w", i+1, err))
		case k == (PublicKey{}):
			errs = append(errs, fmt.Errorf("key %d is a placeholder", i+1))
		default:
			keys = append(keys, k)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return keys, nil
}
