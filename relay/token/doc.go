// Package token seals and opens bridge tokens.
//
// A bridge token is the secret in an accept URL. The owner of a waiting bridge
// seals it, the hub and the device carry it, and whichever node the device
// reaches opens it and learns, with proof and without asking anybody, which
// node waits for this device. Nothing about it is stored.
//
// # Format
//
// A token is base64url without padding (RFC 4648 section 5) of
//
//	 1  version, 1
//	 4  key ID, the first bytes of SHA-256(label ‖ key)
//	24  nonce, random
//	 n  XChaCha20 ciphertext of the claims
//	16  Poly1305 tag over all of the above but the nonce, which it depends on
//
// The first five bytes are the additional data, so no byte can change. The
// claims are
//
//	 8  expiry, unix seconds, big endian
//	16  instance ID of the owner
//	16  bridge ID
//	 1  length of the owner's address, 0 on a single node
//	 n  owner's address
//	 1  length of the device ID, at least 1
//	 n  device ID
//
// and nothing after them. There is one encoding of any claims: what opens
// seals to the same bytes under the same nonce. With an owner address of 21
// bytes and a device ID of 6 a token has 152 characters; it never has more
// than MaxLen.
//
// # States
//
// A token is live until the second it names as its expiry, and dead from then
// on. It says nothing about use: that a token works once is the business of
// the owner's table of waiting bridges, the only place that can know.
//
// # Rotation
//
// The first key of a Ring seals, all of them open. To rotate: add the new key
// last on every node; when all have it, move it first; when the last token of
// the old key has expired, remove the old one, and with it go the signed URLs
// that it signed (Ring.MAC). At no moment does a node meet a
// token that it cannot open.
//
// # Why
//
// Why sealed and not a random word in a table: the node that the device
// reaches needs the owner's address, and a shared table is one more thing to
// run and to lose. Sealed and not only signed: the address of a node inside
// the cluster is nobody's business outside.
//
// Why authenticated: websocketbridge encrypts with AES-CBC and no MAC, so
// whoever holds one token can flip bits until a node dials a host of their
// choice. Here a changed bit is ErrProof. As a second line, an owner's address
// is dialled only if it is among the known peers; that is not checked here.
//
// Why XChaCha20-Poly1305: its nonce has 24 bytes, so random ones never meet
// (2^80 tokens for a chance of 2^-32). AES-GCM's random nonces of 12 bytes are
// good for 2^32 tokens a key (NIST SP 800-38D section 8.3), which 5000 bridges
// a second use up in ten days, and counters would have to be shared by all
// nodes and survive restarts.
//
// Why an instance ID beside the address: a pod that took the address of a dead
// pod has another one and can answer "gone" instead of searching its table for
// a bridge that it never had.
//
// Why a key ID: opening tries one key, not all, and a log line can say which
// key was missing. It tells an observer only that two tokens share a key.
package token
