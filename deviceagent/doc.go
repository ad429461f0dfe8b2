// Package deviceagent is the embeddable agent: it hears signals, decides about
// them, dials back, and connects the bridge to local targets its owner allowed.
//
// # One signal
//
//	parse ─► version ─► device ID ─► expiry ─► relay host ─► replay ─► targets ─► room ─► accept
//
// Each check can refuse, with a code and a sentence that reach the requester.
// The answer is given at once, the rest happens afterwards: a direct method has
// to be answered before its hub gives up.
//
// Accepted, a raw bridge connects its target first and then dials the relay, so
// that a target that is down is still a refusal. A session dials at once: each
// of its streams connects its own target and is answered by itself.
//
// A dial that fails before the relay answered is tried again until the signal
// expires. An answer of the relay is final: a token works once.
//
// # Targets
//
// Nothing is reachable unless Config.Targets names it (Target). The requester
// says a name; what the name means is decided here. A bridge serves the targets
// its signal names and no others, whatever the list allows: the relay has
// authorized its principal for those only, and cannot see into a session. A
// signal that names none means the target "default".
//
// # Codes of a refusal
//
//	bad_signal          the payload is not a signal this agent can read
//	wrong_device        it is for another device
//	expired             its time is over, by this device's clock
//	replayed            it has been here before
//	relay_not_allowed   its relay's host is not on this device's list
//	target_not_allowed  its target is not on this device's list
//	target_required     no target is named and there is no default, or a raw bridge names several
//	dial_failed         the target cannot be connected
//	limit_reached       too many bridges or streams
//	stopping            the agent stops
//
// # Why
//
// Why a list of relay hosts: whoever may write to the hub could otherwise make
// every device dial any address.
//
// Why the device's clock is trusted with a minute's grace: devices without a
// battery drift, and a token that is truly old is refused by the relay anyway.
package deviceagent
