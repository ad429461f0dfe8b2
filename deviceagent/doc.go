// Package deviceagent is the embeddable agent: it hears signals, decides about
// them, dials back, and connects the bridge to local targets its owner allowed.
//
// # One signal
//
//	parse ─► version ─► signature ─► device ID ─► expiry ─► relay host ─► kill switch
//	      ─► replay ─► principal ─► targets ─► principals of the targets ─► room ─► accept
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
// expires. An answer of the relay is final: a token works once. A 5xx without a
// problem body is a proxy's, whose relay may come back.
//
// # A refusal
//
// It goes back the way the signal came, if that carries answers (direct method),
// and is posted to the reject URL if not. Later ones, of a raw bridge's target, are
// always posted. Nothing is posted for a replay, which would refuse the first one, nor
// for a signal that is not signed and should be, nor to a host that is not on the list.
//
// Of one code at most ten are logged in 10 s; the next line says how many were left out.
//
// # The end of a stream and of a raw bridge
//
// A cut never looks like an end. A stream passes the end of each direction on alone
// and a failure as one: to the requester as a reset with code target_failed, to the
// target as a TCP reset. A raw bridge has one end for both directions: the target's
// end closes it with 1000, its failure with 1011, the agent's stop with 1001; the
// requester's close ends the target, and a lost bridge resets it.
//
// # Targets
//
// Nothing is reachable unless Config.Targets names it (Target). The requester
// says a name; what the name means is decided here. A bridge serves the targets
// its signal names and no others, whatever the list allows: the relay has
// authorized its principal for those only, and cannot see into a session. A
// signal that names none means the target "default".
//
// # Signatures
//
// With Config.SignalKeys only what one of the keys has signed is a signal. Everything
// else is refused before anything in it is believed: it uses up no bridge ID, makes the
// device dial nothing. A signed signal must say for which device and until when, or it
// would be good elsewhere and for ever.
//
// A signal is accepted once: what is remembered, until it has expired, is its bridge ID,
// which the signature covers. An agent that starts again has forgotten; what was accepted
// before has a token that the relay takes once.
//
// # The kill switch
//
// Config.KillSwitch belongs to who stands beside the device. While it is off, signals are
// refused, and the refusal is told to the relay as any other; open bridges end as when
// the agent stops, within a second. What begins after it is on again is not affected.
//
// # Codes of a refusal
//
//	bad_signal             the payload is not a signal this agent can read
//	not_signed             it has no signature, and this device follows signed ones only
//	wrong_signature        it has one, but none that a listed key has made for it
//	wrong_device           it is for another device
//	expired                its time is over, by this device's clock
//	relay_not_allowed      its relay's host is not on this device's list
//	disabled               the device's owner has switched remote access off
//	replayed               it has been here before
//	principal_not_allowed  who asks is not on this device's list, or not for this target
//	target_not_allowed     its target is not on this device's list
//	target_required        no target is named and there is no default, or a raw bridge names several
//	dial_failed            the target cannot be connected
//	limit_reached          too many bridges or streams
//	stopping               the agent stops
//
// # Why
//
// Why a list of relay hosts: whoever may write to the hub could otherwise make
// every device dial any address.
//
// Why the principals of a signal without a signature are heeded all the same: a hub may
// be closed to all but the relay. Where it is not, whoever writes to it can claim any name.
//
// Why the switch is looked at and not waited for: it may be a button, a file on a volume
// that comes and goes, or a test's; two looks a second cost nothing.
//
// Why the device's clock is trusted with a minute's grace: devices without a
// battery drift, and a token that is truly old is refused by the relay anyway. For
// the same reason a signal that is accepted is dialled for 15 s at least, and for
// 90 s at most.
//
// Why targets see a reset: a file cut short by a lost bridge must not be taken for
// the whole file.
package deviceagent
