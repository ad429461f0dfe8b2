// Package session carries many streams over one bridge: protocol
// bridge.session.v1, agreed by the two ends past the relay, which never parses it.
//
// # Flow
//
//	requester                                        device
//	    OPEN 1 "ssh", window 256 KiB   ───────────►      dials the target
//	    (other streams run meanwhile)  ◄───────────      OPENED 1, window 256 KiB
//	    DATA 1                         ◄──────────►      DATA 1
//	    WINDOW 1, as it is read        ◄──────────►      WINDOW 1, as it is read
//	    FIN 1: I send no more          ───────────►      reads io.EOF, may still send
//	                                   ◄───────────      DATA 1, FIN 1: the stream is gone
//	    OPEN 3 "web"                   ───────────►
//	                                   ◄───────────      RESET 3 "target_failed": refused
//	    PING                           ◄──────────►      PONG
//	    GOAWAY "closed"                ───────────►      hangs up
//
// Either side opens streams. Bytes of a stream arrive in order and exactly
// once, or the stream ends with an error on both sides.
//
// # Frames
//
// A session is a byte stream each way; the messages of the WebSocket below mean
// nothing. It consists of frames: 8 bytes of header and a payload. Numbers are
// big endian.
//
//	byte 0      type
//	bytes 1-3   length of the payload, at most 64 KiB (65536)
//	bytes 4-7   stream ID, 1 to 2^31-1; 0 for frames of the session
//
//	type         payload                                            bytes
//	0x01 OPEN    u32 window of the opener, u8 n, n bytes of target,
//	             further bytes reserved and ignored                 5 to 2048
//	0x02 OPENED  u32 window of the answering side                   4
//	0x03 DATA    bytes of the stream                                1 to 65536
//	0x04 WINDOW  u32 by how much the window grows, not 0            4
//	0x05 FIN     I send no more                                     0
//	0x06 STOP    I read no more                                     0
//	0x07 RESET   u8 n, n bytes of code, rest: message (≤ 1 KiB)     1 to 1280
//	0x08 PING    opaque; stream 0                                   8
//	0x09 PONG    those of the last PING; stream 0                   8
//	0x0a GOAWAY  u8 n, n bytes of code, rest: message; stream 0     1 to 1280
//	0x81 RECLAIM u32 by how much the window should shrink, not 0    4
//	0x82 RETURN  u32 by how much it does: so much or less           4
//
// Other types from 0x80 on that a receiver does not know are skipped, whatever their
// stream ID says; unknown types below are violations.
//
// Stream IDs are odd if the requester opens and even if the device does, and
// each side's rise strictly. Skipped IDs count as used.
//
// # States of a stream
//
//	opening   after OPEN. The opener may send DATA (at most EarlyWindow, 16 KiB),
//	          WINDOW, FIN, STOP and RESET; the other side answers OPENED or RESET
//	          and sends nothing else before.
//	open      after OPENED. Its window is counted from the start of the stream
//	          and so includes the early bytes; it is at least EarlyWindow.
//	half      after FIN of one side, which sends no more DATA; WINDOW, STOP and
//	          RESET it may still send.
//	gone      after FIN of both sides, or one RESET of either.
//
// STOP tells a sender that its bytes are thrown away: the receiver's writes fail
// at once, and its session answers with FIN, unless it has sent one. Closing a
// stream is FIN and STOP. FIN and STOP are sent at most once each.
//
// Frames for a stream that is gone are ignored, as they may have been sent
// before the sender knew; that includes its whole window of DATA.
//
// # Windows
//
// Each side says how many bytes of DATA a stream may send it (OPEN, OPENED) and
// adds to that with WINDOW as its application reads, about twice per window and at
// least once per MiB. More than was allowed is a violation, and so is allowing more than
// 2^31-1 at once. There is no window for the session as a whole: streams ×
// window is its bound, and a stream that nobody reads holds up no other.
//
// A window starts at Config.InitialWindow. When it is read at the pace of more
// than half a window per round trip, or would last less than 8 ms, it doubles, up to
// Config.MaxWindow, as far as Config.MaxBuffered for the whole session and Config.Budget
// for several allow. Round trips are measured by PING when a window may grow and no
// sample is younger than 5 s.
//
// When there is no memory to grow, windows shrink to twice what they need at the pace at
// which they are read, an idle stream's to InitialWindow: RECLAIM asks for the rest, at most
// once a second and never while an answer is due. Its receiver answers with RETURN of what
// it has not used; what it has sent already it cannot return. RECLAIM comes after OPENED,
// and a side that has sent FIN owes no RETURN.
//
// # Timers
//
//	15 s  (Config.KeepAlive) without a byte received: PING. Both sides do so.
//	35 s  (Config.DeadAfter) without a byte received: the session ends, ErrDead.
//	 2 s  after the last frame for the other side to hang up; then this side does.
//
// # End of a session
//
// GOAWAY asks for no new streams; those that are open live on. An OPEN that
// crosses it is answered with RESET going_away. Two codes say more: after
// GOAWAY "closed" (the sender is through) and GOAWAY "protocol" (the receiver
// broke the protocol, see the message) the sender sends nothing else, and the
// receiver closes the transport. A transport that ends without such a GOAWAY is
// lost: ErrLost.
//
// What had arrived before the end can still be read from the streams; after it
// comes io.EOF if the FIN had arrived as well, and the session's cause if not.
//
// # Reasons
//
// Codes are short ASCII words for programs, messages are for people. The
// session's own: limit_reached, cancelled, going_away (RESET), and going_away,
// closed, protocol (GOAWAY). Applications add theirs.
//
// # Violations
//
// A frame that is unknown, too long, too short, on the wrong kind of stream, or
// on a stream that was never opened; an OPEN with the wrong parity or an ID not
// above all before; anything before OPENED by the answering side; an OPENED
// that is the second, comes from the opener or promises less than EarlyWindow;
// DATA that is empty, after FIN or beyond the window; WINDOW of 0 or beyond
// 2^31-1; RECLAIM of 0, before OPENED or before the RETURN of the last one; RETURN of more than RECLAIM asked for or than may be
// sent, or without it; a second FIN or STOP; a PONG without its PING; 4096 refused OPENs whose
// answers are not read. Each ends the session: GOAWAY "protocol", ErrProtocol.
//
// # Why
//
// Why not yamux or HTTP/2: yamux has no half-close of the reading side, no
// reasons, no target in the open, and a fixed window; HTTP/2 multiplexes
// requests, and its 20 other rules would be dead weight on a device.
//
// Why windows per stream but none per session: a session window makes one
// stream that nobody reads stop all others. The number of streams is limited
// instead.
//
// Why windows grow to 32 MiB: 1 Gbit/s at 200 ms needs 25 MB under way; with 16 MiB one stream
// had 0.64 of the throughput.
//
// Why memory is asked back: a right to send, once given, cannot be taken. Two connections
// that a browser had used for large files and kept would hold all growth of a session, and
// everything new would crawl at 2.5 MB/s and 100 ms. A side that does not know the
// frame skips it and keeps what it has.
//
// Why STOP beside RESET: closing a stream must not destroy what was written to
// it, but the other side should not go on sending into the void either.
//
// Why an early window although Open waits for OPENED: an opener that knows what
// it will say can save the round trip, without a new version. This package
// accepts early bytes and does not send them.
//
// Why the answer to an OPEN is explicit: "connection refused" at the device
// belongs into the error of Open, not into the first read.
//
// Why GOAWAY has codes that hang up: who closes a TCP connection while bytes
// arrive sends a TCP reset, and that deletes what the other side has not read
// yet. So the closing side goes on reading until the other one hangs up.
//
// Why arriving bytes go to the program's socket from the read loop: handing them to a
// goroutine that waits there cost a wake-up per frame, a third of a round trip on loopback
// (RTT p50 of test/bench 1.9 times that of the reference chain, then 1.2 to 1.4), and a copy of each byte.
// What the socket does not take at once waits in the queue as before.
//
// Why the read loop waits up to 1 ms for the program of a session's only stream: its queue,
// once begun, lasted as long as the transfer, and each byte went through memory that no
// cache held. Nobody else is there to wait; 1.06 of the throughput, 0.76 of the CPU where bytes arrive.
//
// Why a read ends with a long payload and the next headers: else each payload of several busy streams
// came in two parts, and was written by two system calls; with the same at the relay, 1.07 to 1.10
// of the throughput of eight streams.
//
// Why windows that would last less than 8 ms grow: each WINDOW wakes a goroutine at both ends and
// two at the relay; 1.05 of the throughput.
//
// Why a stream reads its frame before its turn, and sends it alone: to read it in its turn was 0.97 of
// the throughput of eight streams, 0.90 with TLS, and the frames of all that wait in one write 0.95.
//
// Why nothing watches a spliced stream until its end: a goroutine for that, and the stack
// that a dial had grown, were a third of the 21 KiB of an idle stream at the agent.
//
// Why DATA of 56 KiB: with all headers it is one TCP segment. At 64 KiB it was two, and the
// relay needed 0.61 CPU seconds a GiB instead of 0.44.
//
// Why bytes and not frames prove life: 64 KiB take longer than 35 s at 14 kbit/s.
//
// Why PINGs are answered with the last one only: answers wait behind data, and a
// side that asks faster than it reads must not fill memory.
//
// Why DATA after FIN is a violation only while the stream exists: closed streams
// leave no memory behind, as IDs only rise.
//
// # What version 2 may change
//
// Everything: versions are picked by subprotocol when the bridge is made. Within
// version 1, further frame types from 0x80 on and the reserved bytes of OPEN may get a
// meaning that a receiver may miss; sizes, codes and states may not change.
package session

// Protocol is the name of the protocol, and the WebSocket subprotocol that selects it.
const Protocol = "bridge.session.v1"
