package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Claims are what a token proves.
type Claims struct {
	// Owner is the address at which the owner's peers reach it; empty on a
	// single node. It is proven to be what a holder of the key wrote, not to
	// be a peer: check that before dialling it.
	Owner string
	// Instance is the ID of this run of the owner.
	Instance ID
	// BridgeID is the public name of the bridge.
	BridgeID ID
	// DeviceID is the device that was told to come.
	DeviceID string
	// Expires is when the token stops opening. Seal drops the fraction of a
	// second; Open returns UTC.
	Expires time.Time
}

const (
	maxText = 255 // one length byte; IoT Hub device IDs have at most 128, host:port at most 259 in theory only
	// maxExpires is the last second that RFC 3339 can write, as the signal has to.
	maxExpires = 253402300799

	minClaims = 8 + 16 + 16 + 1 + 0 + 1 + 1
	maxClaims = 8 + 16 + 16 + 1 + maxText + 1 + maxText
)

var errClaims = errors.New("claims are not in canonical form")

// appendTo appends the one encoding of c to b, or says what is missing: a
// field that was forgotten must not become a token that proves nothing.
func (c *Claims) appendTo(b []byte) ([]byte, error) {
	exp := c.Expires.Unix()
	switch {
	case c.Expires.IsZero():
		return nil, errors.New("claims have no expiry")
	case exp <= 0 || exp > maxExpires:
		return nil, errors.New("claims have an expiry outside of 1970 to 9999")
	case c.Instance.IsZero():
		return nil, errors.New("claims have no instance ID")
	case c.BridgeID.IsZero():
		return nil, errors.New("claims have no bridge ID")
	case c.DeviceID == "":
		return nil, errors.New("claims have no device ID")
	case len(c.DeviceID) > maxText:
		return nil, fmt.Errorf("claims have a device ID of %d bytes; %d are allowed", len(c.DeviceID), maxText)
	case len(c.Owner) > maxText:
		return nil, fmt.Errorf("claims have an owner address of %d bytes; %d are allowed", len(c.Owner), maxText)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(exp))
	b = append(b, c.Instance[:]...)
	b = append(b, c.BridgeID[:]...)
	b = append(b, byte(len(c.Owner)))
	b = append(b, c.Owner...)
	b = append(b, byte(len(c.DeviceID)))
	b = append(b, c.DeviceID...)
	return b, nil
}

// parseClaims reads exactly what appendTo writes.
func parseClaims(b []byte) (Claims, error) {
	var c Claims
	if len(b) < minClaims || len(b) > maxClaims {
		return Claims{}, errClaims
	}
	exp := binary.BigEndian.Uint64(b)
	if exp == 0 || exp > maxExpires {
		return Claims{}, errClaims
	}
	c.Expires = time.Unix(int64(exp), 0).UTC()
	b = b[8:]
	b = b[copy(c.Instance[:], b):]
	b = b[copy(c.BridgeID[:], b):]
	var ok bool
	if c.Owner, b, ok = cutText(b); !ok {
		return Claims{}, errClaims
	}
	if c.DeviceID, b, ok = cutText(b); !ok {
		return Claims{}, errClaims
	}
	if len(b) != 0 || c.Instance.IsZero() || c.BridgeID.IsZero() || c.DeviceID == "" {
		return Claims{}, errClaims
	}
	return c, nil
}

func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}
