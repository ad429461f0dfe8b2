// Package c2d signals devices by cloud-to-device messages of IoT Hub, over AMQP 1.0.
//
// # Flow
//
//	s, err := c2d.New(c2d.Config{HostName: "hub.azure-devices.net", Credential: cred})
//	go s.Run(ctx)             // owns one connection, and renews it for ever
//	err = s.Signal(ctx, sig)  // nil: the hub has queued the message
//
// Run, one step after the other, all of them within DialTimeout:
//
//	TCP, TLS to 5671                    or TCP, proxy, TLS, WebSocket to 443: path
//	                                    /$iothub/websocket, subprotocol AMQPWSB10
//	AMQP header, OPEN                   no SASL: the token below is what counts
//	BEGIN, links to and from $cbs       put-token; 200: the hub takes us for who we are
//	BEGIN, link to /messages/devicebound
//	BEGIN, link from /messages/serviceBound/feedback   only with Config.Feedback
//
// Signal waits for a connection if it is down, hands the message over, and waits
// for the hub's outcome. accepted means queued: the device may be offline, and the
// hub does not say. Everything else is an error.
//
// # The message
//
//	properties              message-id            the bridge's ID; absent if it is empty
//	                        to                    /devices/{id}/messages/devicebound, id percent-encoded
//	                        absolute-expiry-time  the signal's expiry, else MessageLife from now
//	application-properties  bridge-signal         v1
//	                        iothub-ack            full; absent without Config.Feedback
//	data                    the signal's JSON
//
// put-token has the application properties operation=put-token and
//
//	key       type=servicebus.windows.net:sastoken  name={hub}                 value=SharedAccessSignature …
//	Entra ID  type=Bearer                           name=amqps://{hub}:5671/   value=Bearer {jwt}
//
// and its answer a status-code, and our message-id as correlation-id.
//
// # Errors
//
// Each wraps one of package signaler's, and what the hub said. Conditions (source:
// the error mappers of Microsoft's C# and Node SDKs):
//
//	amqp:not-found                                  ErrDeviceNotFound
//	amqp:resource-limit-exceeded                    ErrThrottled: 50 messages wait for the device
//	com.microsoft:device-container-throttled        ErrThrottled
//	com.microsoft:quota-exceeded                    ErrThrottled: until midnight UTC
//	amqp:unauthorized-access, put-token 401 or 403  ErrUnauthorized
//	amqp:not-implemented, code 403010               ErrNotSupported: the basic tier
//	amqp:link:message-size-exceeded                 ErrTooBig
//	everything else                                 ErrUnavailable
//
// If ctx ends first the error wraps its cause as well: ErrTimedOut when a message
// waited for its outcome, or what was wrong with the connection.
//
// # Timers
//
//	token            renewed at 2/3 of its life; when that fails, every 5 s until it works;
//	                 at once after Renew, or when the hub refused a message
//	reconnect        after 0..1 s, 0..2 s, 0..4 s … 0..1 min, for ever; while signals
//	                 wait every 1..2 s; afresh after a connection that took a message
//	                 or lived for 10 s
//	ConnectWait      10 s: a relay gives a device 15 s, and this answer says more
//	IdleTimeout      1 min; we tell the hub half of it, and beat at half of what it tells us
//	SilenceTimeout   3 s, then a BEGIN, then 3 s; only while a message waits
//	no outcome       for any message for 1 min, of those that waited 5 s: a new connection
//	a message        sent at most 4 times: again if the connection broke before the
//	                 outcome, or after up to 1 s if the hub failed by itself (timeout,
//	                 internal-error, detach-forced, released, modified)
//	a full queue     after 0.1..0.2 s, 0.2..0.4 s … up to 3 s in all: many signals at once to
//	                 one device fill it, and the device empties it
//
// # Limits
//
// Of the hub: 64 KB and 50 messages a device, 1.67 messages a second and unit in S1
// (Microsoft Learn, "IoT Hub quotas and throttling"). Ours: 100 messages under way;
// further ones wait.
//
// # Why
//
// Why a net.Conn between go-amqp and the network (shim): go-amqp v0.18.1 is the
// newest that can be linked beside amenzhinsky/iothub, and each of these has a test
// that shows it without the shim.
//
//   - Hubs on "Gateway v2" send FLOW without next-incoming-id, and go-amqp ends the
//     session (Azure/go-amqp #326). The shim puts in how many transfers we sent on that
//     channel. 0 would do until as many messages are sent as the session's window
//     holds, and then nothing moves any more. The number is too high by what is on its
//     way, at most 100; a hub's window is in the thousands.
//   - Send returns nil for released, modified, settled without a state, received (which
//     is no outcome at all), and for whatever comes unsettled. The shim makes each of
//     them a settled rejection with a condition websocketbridge:…, and drops received.
//     A rejection without an error becomes one with: go-amqp would return a nil pointer
//     in an error that is not nil.
//   - A FLOW without link-credit is a nil dereference in go-amqp, and a disposition of
//     2³² deliveries a loop without end. The shim ends the connection.
//   - No call says that the hub detached a link until the next message is sent. The shim
//     sees DETACH, END and CLOSE, and the connection is renewed at once.
//   - NewConn takes no ctx, writes have no deadline, and Close waits for a writer that
//     may hang. The shim sets the deadline, and closes the socket.
//
// Why Send runs in a goroutine of its own: it waits for a lock without looking at
// ctx while another message waits for credit.
//
// Why rejected messages do not detach the link (IgnoreDispositionErrors): by default
// one unknown device fails all messages under way, and all later ones.
//
// Why a message is sent again although the hub may have it: the bridge token works
// once, and agents pass over what they have seen.
//
// Why put-token again when the hub refuses one message as unauthorized: the hub may
// have forgotten us, and a role takes minutes to be granted. The message itself is
// not sent again.
//
// Why no proxy for 5671: Microsoft's SDKs use none either, since few proxies let it
// pass. A network with a proxy wants WebSocket.
//
// Why a hub that refuses the credentials fails signals at once, and one that cannot
// be reached only after ConnectWait: the second may be over in a moment.
//
// Why feedback is optional and proves nothing: the hub sends it after up to 15 s, and
// has one queue of it, from which every reader takes what it gets.
package c2d
