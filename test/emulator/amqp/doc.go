// Package amqp is the server side of AMQP 1.0: it knows the protocol and no hub.
//
// Nothing else in the house needs it, and Azure's Go library is a client only. The
// codec is our own for two reasons: a fault that the library's encoder and decoder
// share would stay hidden if it stood at both ends, and a server must bound what
// strangers make it allocate.
//
// # Flow
//
//	Server.ServeConn takes a byte stream: TLS, or a WebSocket that hides its messages.
//	header     'A' 'M' 'Q' 'P' id 1 0 0; id 3: SASL, then again with id 0; id 0: no SASL
//	OPEN       Handler.Open; answered at once
//	BEGIN      answered at once, on the peer's own channel number
//	ATTACH     Handler.Receive or Handler.Send decides; refused: an ATTACH without source
//	           and target, then a DETACH with the error, as brokers do
//	TRANSFER   in: whole messages go to Inlet.Deliver; Delivery.Settle answers, at any time
//	           out: Sender.Push, as credit allows; the outcome comes to its callback
//	CLOSE      either side, answered by the other
//
// Each connection has three goroutines that end before ServeConn returns: one reads,
// one writes, and the caller's own runs the protocol and every method of the Handler,
// Inlet and Outlet, one at a time. These may call whatever they like here, but
// Sender.Send, which waits for frames that then nobody handles. What they hold up,
// the connection holds up.
//
// # Limits
//
//   - frame: Config.MaxFrameSize both ways, less if the peer says so; the standard's
//     least is 512 bytes
//   - values nest at most 16 deep; counts are checked against the bytes at hand
//   - a message in: Receiver.MaxMessageSize, then the link is detached
//   - credit in: Receiver.SetCredit bounds what is delivered and not yet settled
//   - frames out that the peer does not read: 1 MiB, then its frames wait too
//   - idle: a peer silent for the idle-time-out we advertised is closed at that very
//     time. The standard grants it twice as much; the hub's own message ("inactive for
//     more than the allowed 240000 milliseconds") does not.
//
// # What a violation costs
//
//	bytes that are no frame, a field of a wrong type           connection, framing-error or decode-error
//	a channel or handle above the advertised maximum           connection, framing-error
//	a frame on a channel without a session                     connection, illegal-state
//	a transfer beyond the session's window                     session, window-violation
//	an unknown handle, a handle attached twice                 session, unattached-handle, handle-in-use
//	a transfer without credit; too large a message             link, transfer-limit-exceeded, message-size-exceeded
//	a message that does not decode                             the delivery is rejected, decode-error
//
// # Not here
//
// Transactions, resuming deliveries (unsettled maps), dynamic nodes, AMQP's own TLS
// header (id 2), SASL mechanisms with more than one step. Peers that ask are refused.
package amqp
