package token

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
)

// An ID names a bridge, or one run of a node. It is public and always logged.
// The zero ID names nothing.
type ID [16]byte

// idLen is 16 bytes in base32, five bits a character, unpadded.
const idLen = 26

// Lower case and no punctuation: a double click selects all of it, and it
// survives file names, URLs, DNS labels and people who read it out.
var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var errID = errors.New("is not 26 characters of a-z2-7")

// NewID returns a random ID. Two nodes never make the same one: 128 bits take
// 2^64 IDs for an even chance.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails: it ends the program instead (Go 1.24)
	return id
}

// String is 26 characters of a-z2-7.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads what String wrote, and only that: an ID has one text, so that
// searching the logs for it finds everything.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != idLen {
		return ID{}, fmt.Errorf("ID %w", errID)
	}
	// Decode drops line ends and the last two bits; the comparison does not.
	if n, err := idText.Decode(id[:], []byte(s)); err != nil || n != len(id) || id.String() != s {
		return ID{}, fmt.Errorf("ID %w", errID)
	}
	return id, nil
}

// MarshalText makes an ID its text in JSON too.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}
