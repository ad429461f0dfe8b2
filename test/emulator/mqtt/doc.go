// Package mqtt is the server's side of MQTT 3.1.1, for a hub: there is no client
// that another one could talk to, and nothing is retained. It knows no IoT Hub.
//
// # Flow
//
// Serve runs one connection, already through TLS, from its CONNECT to its end:
//
//	client                       Serve                        Handler
//	CONNECT ───────────────────► checked, bounded ──────────► OnConnect
//	        ◄─────────────────── CONNACK                      OnReady
//	SUBSCRIBE ─────────────────►                ────────────► OnSubscribe, one call a filter
//	        ◄─────────────────── SUBACK                       OnReady
//	PUBLISH ───────────────────►                ────────────► OnPublish
//	        ◄─────────────────── PUBACK, when ack is called
//	PINGREQ ───────────────────►                ────────────► OnPing
//	        ◄─────────────────── PINGRESP
//	        ◄─────────────────── PUBLISH        ◄──────────── Conn.Send, Resend
//	PUBACK ────────────────────►                ────────────► OnAck
//	DISCONNECT, EOF, nothing ──►                ────────────► OnClose
//
// Calls of one Handler come one after the other, from one goroutine; what the
// methods of Conn are asked for goes out in the order it was asked for.
//
// # Limits
//
//	CONNECT                16 KiB, within 30 s
//	any later packet       320 KiB: a topic of 64 KiB, a body of 256 KiB
//	silence                1.5 x the client's keep-alive, at most 1767 s (IoT Hub's
//	                       number), which is also what a keep-alive of 0 gets
//	PUBLISH out at QoS 1   16 without PUBACK
//	bytes not yet written  4 MiB; with more, Send fails and PUBLISHes are not read
//	one write              30 s
//
// # What ends a connection
//
// Anything that MQTT 3.1.1 forbids, and QoS 2: it is closed without a word, as
// the protocol has no packet for a server to say why. A wrong protocol level gets
// CONNACK 1, an empty client id that wants to keep a session CONNACK 2, and what
// OnConnect refuses its code.
//
// # Faults
//
// For tests of clients: OnConnect may answer HangUp or Mute, OnSubscribe Refused or
// Unanswered, OnPing false; an ack may come late or never; SendHalf cuts the
// connection in the middle of a PUBLISH, Freeze makes it half-open, Resend
// duplicates.
//
// # Why
//
// Why paho's packets encode and this package decodes: paho's ReadPacket makes room
// for 256 MB before it has read them, and its Unpack takes a short packet for one
// padded with zeros, has no look at UTF-8 and passes over bytes that are left.
//
// Why OnReady and not a result of OnSubscribe: what flows because of a subscription
// has to come after its SUBACK; and who has read the SUBACK may count on it.
//
// Why Send does not wait: a hub calls it for many clients with a lock held. One
// that reads slowly makes its own Send fail and nobody else's wait.
//
// Why QoS 2 is not there at all: IoT Hub closes the connection on a PUBLISH with
// it, and grants 1 to a SUBSCRIBE.
//
// Why Freeze lets the socket live: a half-open connection is one whose end the
// client cannot see.
package mqtt
