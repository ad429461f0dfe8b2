// Package relay is one node: it joins a requester's WebSocket with a device's.
//
// # The life of a bridge
//
//  1. A requester opens /bridge/connect?deviceId=…. The node that takes it is
//     the bridge's owner. It authenticates, checks the parameters, authorizes
//     principal × device × target, reserves room, and holds the 101.
//  2. The owner makes a bridge ID, which is public, and a bridge token, which is
//     sealed and secret and names this node.
//  3. The signaler hands the device a signal with the accept URL.
//  4. The device dials /bridge/accept with the token, or posts to /bridge/reject.
//  5. The owner answers the device's 101, then the requester's, and pumps.
//  6. The bridge ends for one reason; both sides get a close frame.
//
// # States
//
//	           signal fails, device refuses, dial-back deadline, requester leaves
//	waiting ─────────────────────────────────────────────────────────────────────► closed
//	   │ token accepted                                                              ▲
//	   ▼                                                                             │
//	joining ── both 101s are out ──► open ── either side, a cap, the drain deadline ─┘
//	   └────── one of the 101s fails ────────────────────────────────────────────────┘
//
// Only one event moves a bridge out of waiting; whoever loses that race finds
// it gone. A device that comes before the signaler has returned therefore joins,
// and the signaler's late failure is ignored; one that comes twice, or after the
// requester left, is answered 410. A requester that leaves while the device's
// 101 is being written lets that finish and closes it at once.
//
// # Timers
//
//	dial-back     15 s    from the reservation to the device's accept (Config.DialBack)
//	token life    dial-back + 5 s: a device that is late by a clock's skew hears 410, not 403
//	ping          15 s    on each leg; dead after 35 s without a byte
//	longest life  12 h    of a bridge (Config.MaxDuration)
//	drain         10 min  for open bridges after the node was told to stop
//	close         5 s     for a side to answer a close frame
//
// # Early upgrade
//
// With upgrade=early the 101 comes first, for clients that cannot see the status
// of a failed handshake (browsers). Every refusal is then a close code. A
// subprotocol has to be named in the 101 before the device was asked, so only
// the first one the requester offers is offered to the device, and a device that
// does not pick it has refused.
//
// # Why
//
// Why a subprotocol nobody shares is no error: the requester gets a 101 without
// one, as RFC 6455 section 4.2.2 has it, and knows best whether raw bytes will do.
//
// Why the refusal's body stays within 1024 bytes: WebSocket clients (gorilla's,
// for one) keep no more of the answer to a failed handshake.
//
// Why the device's 101 goes first: if the device is lost in that moment, the
// requester can still be given a status.
//
// Why a late signaler error does not end a wait that may still succeed: a hub
// that says "timed out" may have delivered the signal all the same.
package relay
