// Package signaler is the one message that reaches a device without the relay.
//
// A device behind a firewall has one connection to the outside: to its hub. A
// Signaler hands the hub a Signal for it. The signal carries the accept URL,
// which the device dials to meet the requester that waits at the relay.
//
// # The signal
//
// JSON, at most MaxSize bytes, UTF-8. acceptUrl and requestData are those of
// websocketbridge and are enough for a device; everything else is ours:
//
//	acceptUrl     where to dial; a secret, it carries the bridge token
//	requestData   the requester's opaque words, or absent
//	v             Version; absent in a signal from websocketbridge
//	bridgeId      the public name of the bridge
//	deviceId      who is meant
//	target        what the requester wants to reach, by name
//	principal     who asks, in the relay's words
//	expiresAt     as 2006-01-02T15:04:05Z, one text per time; after it the token is dead
//	rejectUrl     where to POST {"code","message"} to refuse; a secret
//	subprotocols  what the requester speaks, best first
//	traceparent   of the bridge's trace (W3C Trace Context), to be sent along when dialling
//	sig           the relay's signature, see below; absent if it has no key for that
//
// Parse is strict about what it knows: one object, no member twice, none of
// these names in another case (a reader that folds case, as encoding/json does,
// would read another signal), right types, no trailing bytes. null is absent.
// Members it does not know are passed over: devices are upgraded last, so an
// old agent has to live with a newer relay. A change of meaning raises v, which
// Parse refuses.
//
// # The signature
//
// Whoever may write to the hub can make every device dial somewhere. A device that knows
// the relay's public key follows signed signals only. sig is base64url without padding of
//
//	1   version, 1
//	8   key ID: the first bytes of SHA-256("websocketbridge signal key ID v1" 00 ‖ public key)
//	64  Ed25519 signature (RFC 8032 section 5.1, without prehash and context)
//
// and has one text: other spellings of the same bytes are refused. What is signed is
//
//	"websocketbridge signal" 00 01          the domain, and the version again
//	acceptUrl, rejectUrl, requestData, v, bridgeId, deviceId, target, principal, expiresAt
//	4   how many subprotocols there are, then each
//
// where each value is 4 bytes of length (as all numbers, big endian) and its bytes in UTF-8.
// v is in decimal and 0 if absent, expiresAt is its text in the JSON form, and what is
// absent is empty. sig and members that are not known are not covered: a later member that
// matters comes with another version of the signature. traceparent is such a member: it
// came after the signature, agents that do not know it have to go on, and all it can do is
// to name a trace wrongly, which the relay notices. testdata/signature.json has an
// example; there the key's seed is the bytes 00 to 1f.
//
// A key is one line, "ed25519-private:" or "ed25519-public:" and base64url of the 32 bytes
// of the seed or of the public key. A device lists several public keys, so that another
// private one can take over while old signals are still under way.
//
// Why not sign the JSON text: the hub, an SDK or the program that hands a signal over may
// write it anew, with other spaces, order and escapes.
//
// Why our own line and not PEM: it fits a variable of the environment and a list, and
// cannot be taken for a token key or for the other half of the pair.
//
// # Delivery
//
// No hub proves that a device read a signal. Signal returning nil means that
// the hub took it, or, where the device answers (a direct method), that the
// device accepted it. The only proof is that the device dials. A signal may
// arrive late, twice, or never; the bridge token works once, so none of that
// joins wrongly.
//
// On the device a source hands a Handler one Delivery after the other.
//
// # Implementations
//
// Package fake runs without a hub. Every implementation passes the suite in
// package signalertest.
package signaler
