// Package relay is one node: it joins a requester's WebSocket with a device's.
//
// # The life of a bridge
//
//  1. A requester opens /bridge/connect?deviceId=…. The node that takes it is
//     the bridge's owner. It authenticates, checks the parameters, authorizes
//     principal × device × target, reserves room, and holds the 101.
//  2. The owner makes a bridge ID, which is public, and a bridge token, which is
//     sealed and secret and names this node.
//  3. The signaler hands the device a signal with the accept URL, signed if there is a
//     key (Config.Signer).
//  4. The device dials /bridge/accept with the token, or posts to /bridge/reject. Another
//     node than the owner passes it on to the owner (package cluster).
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
//	between nodes 3 s     for a peer to prove itself, 5 s for its answer
//	close         5 s     for a side to answer a close frame
//
// # Permission
//
// The credentials' own Grants and, if there is one, the policy (package policy) decide:
// for connect, getSignedUrl and canI alike, which asks neither hub nor device. The
// decision is kept with the bridge, and is made again
//
//	when hours of the rule end, or hours of one that denies begin
//	when Recheck is called, because rules or keys have changed (Config.Revoke only)
//	when the credentials expire                                (Config.Revoke only)
//
// What is not allowed any more ends with permission_revoked, 1008, or 403 while it waits.
// The owner does that; a node that forwards knows nothing of principals. Caps stay those
// that the bridge began with.
//
// # Limits
//
// A request passes, in this order: requests at once; failures and connects of its
// address, before its credentials are looked at; connects of its principal, then of
// the device, after it was authorized; bridges of the device, of the principal, of the
// node, waiting ones, and caps of the policy's rule. What it took from a rate it does not get back. Connections
// without a request are limited before that, by throwing out the oldest (pending.go).
//
// A device that dials back spends nothing: its token is not to be guessed, so however
// many bad ones come from its address, the good one is taken.
//
// # Early upgrade
//
// With upgrade=early the 101 comes first, for clients that cannot see the status
// of a failed handshake (browsers). Every refusal is then a close code. A
// subprotocol has to be named in the 101 before the device was asked, so only
// the first one the requester offers is offered to the device, and a device that
// does not pick it has refused.
//
// # Drain
//
// A node that is told to stop is not ready any more, and refuses new bridges; those
// that wait go on to their end. The requester of each open bridge gets a ping with the
// payload wire.PingDraining, at once or when the bridge opens. Clients that know it open
// another bridge, which another node takes, and leave the old one when its streams have
// ended; for all others it is a ping. So an idle tunnel moves without noticing, a busy
// one finishes what it does, and the drain is over when the last one has. Those left at
// the deadline are closed with 1012.
//
// A node also forwards bridges of others. When it drains, it asks their owners to send
// that ping, and at the deadline to close: it could not put a frame of its own
// between those that it passes on without looking.
//
// # Several nodes
//
// Each answer about one bridge is the owner's. What is asked of all nodes (GET /bridges,
// DELETE /bridges/{id} for an ID that is not here) goes to each peer that can be named, and
// the answer says which did not reply. Bridge IDs do not name their owner: they are
// public, and the cluster's addresses are not.
//
// An instance ID is random for each run of a node and not taken from the environment,
// where a container that restarts in its pod finds the old one: with it, a token of
// the earlier life would look like one of this.
//
// # Audit
//
// An Auditor has a line of each bridge before the requester's 101, so that one without
// cannot carry anything: it is refused with audit_failed, and the device's side closed
// with 1011. A kill has its line at the owner, before that of the end. A node that could
// not make a bridge for that reason is not ready. README.md has the threat model.
//
// # Metrics and traces
//
// observe.go and audit.go count what happens, in package metrics; nothing is counted while
// bytes flow: a scrape adds what each pump has passed on so far to the sum of bridges that
// are over. The handshake's stages are
//
//	admit      from the request until the device is being told
//	signal     until the hub has taken the signal
//	dial back  until the device's request is here; 0 if it came before the hub's answer
//	join       until both 101s are out
//
// Their names are the same in traces (package trace), where dial back begins with the
// signal. A trace continues the requester's traceparent once its credentials are good, goes
// to the device in the signal, and comes back with the device's request. One that comes back
// counts if it is of the bridge's own trace, which is all that the owner knows to check;
// the node in between does not know it, so the owner tells it in its answer, in the header
// Traceparent, and that node takes it out of what the device gets.
//
// # Signed URLs
//
// Who may connect may ask /bridge/getSignedUrl for a URL that connects without
// other credentials until expirationUtc, at most Config.MaxSignedTTL away: for web
// pages, which cannot set headers on a WebSocket, and for people without a key. It
// opens the path /bridge/connectSigned and has the parameters of connect besides
//
//	expirationUtc  YYYY-MM-DDThh:mm:ss.fffffffZ; the URL works until before then
//	principal      who asked for it
//	signature      base64url without padding of: 1 version, 1; 36 token.Ring's MAC
//
// The MAC, for the purpose "signed URL", covers the version and then the values of
// deviceId, target, requestData, expirationUtc and principal, decoded, each behind
// its length (4 bytes, big endian); what is absent is empty. upgrade=early is not
// covered: whoever dials chooses how to be answered.
//
// With once=true the version is 2, and a sixth value, once, is a ticket: a token sealed
// like that of a bridge, which names the node that made the URL. Only this node knows
// whether the URL was used, so the others pass the request on to it, as they do with a
// device's accept, and it owns the bridge. A URL is used up when its bridge opens;
// until then, and while it waits, one request can have it. It ends with the node that made it:
// there is no store in which it could live on.
//
// All nodes have the token keys, so any node makes a URL and any other takes it.
// Nothing about it is stored. Hence it ends early only when the key that signed it
// leaves the ring, when signed URLs are switched off, or when the policy allows it no
// more to whoever asked for it: not when the API key behind it is removed. It never outlives the time at which that key was to expire. Log,
// signal and list call its principal "signed:" and the name.
//
// # Why
//
// Why a signed URL that is not good is 400 and not 401: websocketbridge answers
// that, and a 401 has to offer a way to authenticate (RFC 9110 section 15.5.2), of
// which this path has none. Its code is bad_signature all the same, so that a page
// that reads it knows to fetch another URL.
//
// Why not the signature of websocketbridge: its JSON has several texts for one
// meaning, and nobody but its own server ever checks it.
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
