package token

// SealNonce seals with a nonce that the test chose.
func (r *Ring) SealNonce(c Claims, nonce [24]byte) (string, error) { return r.seal(c, nonce) }

// AppendClaims and ParseClaims are the plaintext codec.
func AppendClaims(b []byte, c Claims) ([]byte, error) { return c.appendTo(b) }
func ParseClaims(b []byte) (Claims, error)            { return parseClaims(b) }
