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
//	sig           base64url of an Ed25519 signature
//
// Parse is strict about what it knows: one object, no member twice, none of
// these names in another case (a reader that folds case, as encoding/json does,
// would read another signal), right types, no trailing bytes. null is absent.
// Members it does not know are passed over: devices are upgraded last, so an
// old agent has to live with a newer relay. A change of meaning raises v, which
// Parse refuses.
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
