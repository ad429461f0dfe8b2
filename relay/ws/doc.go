// Package ws is WebSockets (RFC 6455) for both ends past a relay and for the relay
// between them: frames, a client's end of a connection as a stream of bytes, and
// the two handshakes. The server's handshake is gorilla/websocket's.
//
// # Why own frames
//
// gorilla hands out messages. The relay must pass on a message it may never
// see the end of (websocketbridge's .NET client never sets FIN) and keep the
// bytes flowing while it does; gorilla's writer holds small writes of an
// unfinished message back until its buffer is full. A session wants to put
// its own header and the WebSocket's in front of a payload that is already in
// place, in one write. Both need the frame.
//
// # Why an own client handshake
//
// gorilla keeps 1024 bytes of a refusal's body, and a problem body with the
// device's own words has up to 16 KiB. It does not heed the cancellation of a
// context while it waits for the answer, which a relay may hold for as long as a
// device takes to come. And it reads the answer through a buffer that it keeps,
// while a relay that joins at once sends the first frame in the same segment as
// the 101. What is left of a handshake without gorilla is one request, one
// response and one hash.
//
// # Why masks in assembly
//
// Masking was an eighth of what the relay and a sender spend for bulk: the compiler does 8
// bytes at a time, AVX2 32. Throughput of one stream 1.08 to 1.11 of what it was, CPU of the
// relay 0.9 (test/bench). Where there is no AVX2, and for short frames, it is Go as before.
//
// # Liveness
//
// A client's end sends an unsolicited pong (RFC 6455 section 5.5.3) every
// Config.Ping, whether or not its user reads, and counts the other end dead
// after Config.Dead without any byte while its user wants to read. A user who
// stops reading, because a pipe is full say, neither dies nor is killed: the
// relay hears the pongs. The relay's own pings keep the other way alive.
//
// # The end
//
// Close sends a close frame and reads on, throwing data away, until the other
// end's has come or CloseTimeout is over: to close over unread bytes would reset
// the connection, and a reset destroys what the other end has not read yet
// (RFC 6455 section 7.1.1). A Conn whose connection failed, or whose other end closed,
// keeps that as the error of each later call; a timeout of SetReadDeadline is
// none of these.
package ws
