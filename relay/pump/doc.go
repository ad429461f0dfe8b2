// Package pump moves bytes both ways between two WebSockets.
//
// Both ends are clients of the relay: what comes in is masked, what goes out is
// not (RFC 6455 section 5.1).
//
// # What is kept
//
// Messages keep their type and their end. Frames are not messages: a frame that
// has arrived whole is passed on as one frame; of a longer one, each part is
// passed on as soon as it is here, as a fragment, so a message of any length
// (or without an end) costs one buffer, and a ping can be answered in its middle.
// Empty messages are passed on. Control frames belong to one leg: a ping is
// answered by the relay, which sends its own.
//
// # How
//
// One read fills a buffer. The
// frames in it are unmasked and given their new header in place: a header without
// its mask is four bytes shorter, so what goes out always fits in front of what
// has not been looked at yet. One write sends all of it. A reader that does not
// read slows the other end down because nobody reads for it.
//
// A read is limited to the frame under way and the next one's header, if that frame fits into a
// buffer: what came as one frame goes as one, and package session says what that is good for.
//
// Short frames that have come whole, which is all that a chatty peer sends, have a loop
// of their own: of messages of 64 bytes it passes on 0.9 of what the leanest forwarder
// does, and 0.67 without it (test/bench).
//
// With TLS below, package ws reads and writes many records with one system call: 0.9 of
// a chain that does nothing but that, and 0.79 before.
//
// # What an idle bridge costs
//
// Two goroutines that wait to read, and no buffer: a socket's reader takes one when bytes have
// come (2.3 KiB less). Nobody waits for the two; the last one to end does what is left to do. A
// goroutine that has passed data on has a stack of 4 KiB or more, and a stack hardly ever
// shrinks; so when after that a pong comes alone, a new goroutine goes on, with 2 KiB (4 KiB
// less). With TLS, crypto/tls keeps the records' buffers, and its reads are too deep for small stacks. Pings
// come from one timer a bridge. All in all 18 KiB of the relay's memory, garbage included, and
// 26 before (test/bench).
//
// # Liveness
//
// Each leg gets a ping every Config.Ping. A leg is dead when the pump has wanted
// to read from it for Config.Dead and got no byte. While the pump is busy
// writing to one leg it does not want to read from the other, so a slow reader
// never makes the other side look dead. A peer that stops reading for longer
// than that must still send something now and then: an unsolicited pong will do,
// and package ws sends them. If neither side reads for five minutes, the pump ends.
//
// # The end
//
// A close frame is passed on with its code and reason. The other direction lives
// until its own close frame has been passed on, at most CloseTimeout; a side that
// does not answer in that time is answered for. When one side breaks the
// protocol, vanishes or dies, or a cap is reached, or the context ends, both
// sides get a close frame with a code of package wire, and CloseTimeout to answer
// it; what they still send is read and thrown away, because closing over unread
// bytes would reset the connection and could destroy the close frame.
//
// A drain closes with 1012, not with the number of wire.Draining in the table:
// that one is for a requester who could not connect.
//
// A write that fails is not the reason yet. A peer that sends a close frame and
// goes at once has said why, and the reader of its leg gets a second to find it.
// A write that failed may have left half a frame on the wire, so nothing follows
// it, not even a close frame.
//
// # Why no plain mutex during I/O
//
// Tests run in a testing/synctest bubble, whose clock stands still while anyone
// waits for a sync.Mutex. Locks that are held during a write are channels.
package pump
