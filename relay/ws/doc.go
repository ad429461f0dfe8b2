// Package ws is a WebSocket after its handshake: frames, and a client's end of
// a connection as a stream of bytes. Handshakes are gorilla/websocket's.
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
// # Why the handshake reads no further than its own end
//
// gorilla reads the answer through a buffer that it keeps. A relay that joins at
// once may send the first frame in the same segment as the 101. Dial therefore
// gives gorilla a connection that ends each read at the blank line, so that the
// first frame is still in the kernel (or the TLS layer) when we take over.
//
// # Liveness
//
// A client's end sends an unsolicited pong (RFC 6455 section 5.5.3) every
// Config.Ping, whether or not its user reads, and counts the other end dead
// after Config.Dead without any byte while its user wants to read. A user who
// stops reading, because a pipe is full say, neither dies nor is killed: the
// relay hears the pongs. The relay's own pings keep the other way alive.
package ws
