package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

const (
	macLabel = "websocketbridge MAC v1\x00"
	// MACSize is the length of what MAC returns, in bytes.
	MACSize = len(keyID{}) + sha256.Size
)

// MAC proves to other holders of the ring's keys that one of them wrote data for this
// purpose: the ID of the first key, and HMAC-SHA256 with a key derived from it for the
// purpose. What was made for one purpose proves nothing for another, nor does a token.
//
// Nodes that share keys to read each other's tokens need no second secret, and no
// second rotation, to know each other.
func (r *Ring) MAC(purpose string, data []byte) []byte {
	set := r.keys.Load()
	return append(set.seals[:len(set.seals):len(set.seals)], set.mac(set.seals, purpose, data)...)
}

// CheckMAC says whether any key of the ring made mac; the error is ErrProof if not.
func (r *Ring) CheckMAC(purpose string, data, mac []byte) error {
	if len(mac) != MACSize {
		return fmt.Errorf("%w: a MAC has %d bytes, not %d", ErrProof, MACSize, len(mac))
	}
	id, sum := keyID(mac), mac[len(keyID{}):]
	set := r.keys.Load()
	if _, ok := set.raw[id]; !ok {
		return fmt.Errorf("%w: unknown key ID %x", ErrProof, id)
	}
	if !hmac.Equal(sum, set.mac(id, purpose, data)) {
		return fmt.Errorf("%w: forged under key ID %x", ErrProof, id)
	}
	return nil
}

func (s *keySet) mac(id keyID, purpose string, data []byte) []byte {
	derive := hmac.New(sha256.New, s.raw[id].bytes()[:])
	derive.Write([]byte(macLabel + purpose))
	sum := hmac.New(sha256.New, derive.Sum(nil))
	sum.Write(data)
	return sum.Sum(nil)
}
