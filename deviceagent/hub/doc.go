// Package hub is the agent's own connection to Azure IoT Hub: signals in, answers
// out, by MQTT 3.1.1 as a device or as a module.
//
// # One connection
//
//	dial ─► CONNECT ─► SUBSCRIBE ─► listen ─► end ─► wait ─► dial …
//
// TLS to port 8883, or a WebSocket by port 443; through the proxy that the
// environment names for https://hub:8883 or wss://hub:443, with its user and
// password. The hub is told ID, api-version and a shared access signature that is
// good for this identity alone, or shown a certificate. Each connection has a paho
// client of its own, which is thrown away with it.
//
// A source listens when the hub has granted each subscription: SUBACK with a QoS.
// Anything else ends the connection, because an agent that is connected and deaf
// looks healthy to everybody. (A hub that grants and then sends nothing cannot be
// told from a quiet one; the next renewal asks again.)
//
// After an end it waits, up to 1 s at first and up to 60 s later ("full jitter"); a
// connection that listened for a minute starts that anew. It never gives up: not
// when the hub is down, nor when it refuses the credentials (CONNACK 4, 5), since a
// device is enabled again some day and a clock set right. It tries that only every
// 30 s to 60 s. The log says a trouble once, and once more every ten minutes.
//
// # What is taken
//
//	device   direct method Bridge             QoS 0   answered
//	         messages with bridge-signal=v1   QoS 1   acknowledged when the handler has returned
//	module   direct method Bridge             QoS 0   officially, modules get no messages
//
// A method is answered at once, before the agent dials: 200 with {}, or 409 with
// the refusal's {"code","message"}; 503 with code busy when 256 signals wait
// already. Other methods get 501 with code unknown_method, or their callers would
// wait for a timeout. Answers are sent at QoS 0, as Microsoft's SDK for Node does:
// one that its connection lost is of no use on the next. A method that comes at
// QoS 1 is acknowledged before it is handled: there is a report of a hub that
// stopped after 16 calls without.
//
// Messages without the property are not for the agent, and MQTT knows no way to
// give one back: they are acknowledged, and with that gone, counted, and told now
// and then. Where another program wants the device's messages or methods, give the
// agent a module identity, or lend it the connection (package lent).
//
// Signals that wait when a connection is lost: messages are handled, since a hub
// may keep one that was not acknowledged for 60 s, longer than it lives; the agent
// knows a replay. Methods are not: their callers have failed and call again.
//
// # Renewal
//
// MQTT cannot renew a token: the hub cuts the connection when it has expired. Between
// 57 % and 67 % of its life the source unsubscribes, waits until the hub has
// confirmed that, until all that came before is handled and answered, and connects
// anew. Meanwhile, for a few round trips, messages wait at the hub, and callers of
// methods hear 404103, not connected, which the relay tries again. No step waits
// longer than 5 s. Bridges are other connections and never notice.
//
// # Liveness
//
// Config.KeepAlive bounds the silence. A connection whose ping is not answered is
// dead, and given up at most 10 s after KeepAlive; with the default the hub has 9 s
// to answer. The network has 10 s to take a packet.
//
// # Takeover
//
// A hub keeps one connection per identity; the newest wins, and MQTT 3.1.1 tells the
// other nothing: its connection ends. Two clients that both come back evict each
// other for ever. So an end counts as an eviction if
//
//   - the hub had granted the subscriptions,
//   - less than 30 s before: others are back after 1 s to 10 s,
//   - and it closed the connection (FIN, or a WebSocket's close other than 1001, 1011,
//     1012 and 1013) between two packets.
//
// Three such within five minutes end Run with signaler.ErrTakenOver. A try that
// fails before it listens, a reset, a silence, or an end in the middle of a packet
// in between start the count anew: a rival keeps nobody from connecting, a hub
// or network in trouble does. Planned reconnects do not count. After one such
// end the next connections ping every 10 s, so that a proxy that cuts idle
// connections is not taken for a rival.
//
// Limits: a hub that drops everybody three times within five minutes without ever
// being down, or a proxy that ends every connection after a few seconds, is taken
// for a rival; a supervisor that starts the agent again after some minutes mends
// that. A rival that
// waits 30 s before it comes back is fought, ever more slowly. Two agents of one identity:
// one stops, the other stays.
//
// # Why
//
// Why not the iotdevice package of github.com/amenzhinsky/iothub v0.9.1, which does
// all this? What of this could come back here has a test.
//
//   - It answers methods within paho's callback and waits there for the PUBACK, which
//     the same goroutine would have to read: two calls within a round trip, and the
//     device is dead for good. Here the callback only puts into a queue.
//   - Its own queues have ten places and block the callback when they are full; then
//     unsubscribing and closing wait for ever.
//   - A subscription that failed once is never sent again, after reconnects neither,
//     and nobody hears of it.
//   - The first call's context is kept for later answers and subscriptions.
//   - A connect that ran into its time-out goes on, connects some day, and fights the
//     client that came after it. So would paho's: it takes no context. Here the
//     dial is ours, and without its connection paho gives up.
//   - It decodes a message's properties twice, and cuts them at the first "$.".
//   - A method that nobody registered is not answered; a payload that is no JSON
//     object is answered 500.
//   - Its token is for the whole hub, lives for an hour, and is renewed by being cut off.
//   - For modules it signs a name that is escaped twice, knows no certificates, and
//     checks no server's if a gateway's are not found.
//   - Its roots are a list of 2023 and nothing else.
//
// Why paho's client with nearly all of it off? It reconnects without proof of its
// subscriptions, behind one's back; tries MQTT 3.1 when it is refused; and says no more of an end than an
// error. What is left reads and writes packets, pings, and knows the
// identifiers. It still trusts what it reads: a length of 256 MB, or a SUBACK for
// which it would panic. A guard in front lets whole and sane packets through.
//
// Why one topic for one SUBSCRIBE: so do all SDKs. Why CleanSession: with a kept
// session messages flow before anybody handles them, and a signal that waited for
// the device to come back is mostly too old. Whether a hub sends what waited to a
// clean session is not documented; nothing here depends on it.
//
// Why SetOrderMatters(true), where paho's advice is false: false is a goroutine
// for each packet, in any order. With a callback that never waits, true is safe.
package hub
