// Package cluster is what the nodes of one relay are to each other: which of them may
// be dialled, how two of them prove that they belong together, and how one passes a
// request on to another.
//
// A device dials the relay's one address and reaches any node. The bridge token that it
// brings names the owner, the node where the requester waits. If that is another node,
// this one passes the upgrade on to the owner's node port, and from the 101 on it
// copies bytes and looks at none of them. There is nothing else that nodes know of
// each other: no membership, no election, no store.
//
// # A forward
//
//	device                 this node                      owner's node port
//	  │ GET /bridge/accept    │                                │
//	  ├──────────────────────►│ open the token, look up the    │
//	  │                       │ owner among the peers: else 403│
//	  │                       ├── dial, TLS ──────────────────►│
//	  │                       ├── hello ──────────────────────►│
//	  │                       │◄───────────────── challenge ───┤
//	  │                       ├── answer, GET /bridge/accept ─►│ find the bridge: else 410
//	  │◄──────── 101 ─────────┤◄───────────────────────── 101 ─┤ join
//	  │◄──────── bytes ──────►│◄───────── bytes ──────────────►│
//
// Until the 101 each failure is an answer to the device: what the owner said, or 502
// if the owner cannot be reached within Config.DialTimeout, or proves nothing.
//
// # Proof
//
// Both ends hold the keys that seal bridge tokens. Before the first byte of HTTP each
// proves that to the other (all numbers are bytes):
//
//	hello      8  "wsb-node"
//	           1  version, 1
//	          32  nonce of the dialling node
//	challenge 32  nonce of the owner
//	          36  MAC for the purpose "node owner"
//	answer    36  MAC for the purpose "node peer"
//
// A MAC is the ID of a key (4) and HMAC-SHA256 (32), package token, over hello ‖ nonce
// of the owner ‖ binding. Each end makes it with its first key and checks it with any,
// so that keys rotate with overlap as they do for tokens. The binding is the TLS
// exporter of the connection (RFC 9266, 32 bytes), or nothing without TLS. Who is in the
// middle of a connection has another exporter on each side, so a proof cannot be
// passed on.
//
// # TLS
//
// With SelfTLS every node makes a certificate at its start and nobody checks it: the
// proof with its binding does what a certificate authority would. With MutualTLS both
// ends also need a certificate of an authority of your own. Without TLS the nodes still
// prove themselves, but whoever can read the network between them reads what devices
// and requesters say, unless they encrypt it themselves; in exchange it costs less.
//
// # Peers
//
// An owner's address is dialled only if the configuration lists it, by address, by range,
// or by a DNS name that resolves to it, and with the node port. That a token is sealed
// with our key is not enough: a key that leaked must not turn the relay into a way to
// dial anything (websocketbridge's tokens do: they can be forged). Nor is DNS asked for a
// name that is not listed. An address has one way to be written, and no other is a
// peer's: what was checked is what is dialled.
//
// # Hops
//
// The node port answers for the node's own bridges only and passes nothing on: a
// request makes one hop or none, whatever a token says.
//
// # The end of a forward
//
// The end of one connection is passed on as such (half-close), and the other direction
// gets Linger to say goodbye. The owner's pings cross a forward, and so do its close
// frames: it is the owner, and the device, who notice silence. A node that drains asks
// the owners of what it forwards to move the requesters, and in the end to close; it
// cannot speak in the middle of a stream of frames that it does not parse.
//
// # Why
//
// Why HTTP on the node port: the owner's handler of an accept is the one that devices
// reach, with one way to say no.
//
// Why no pool of connections: an upgrade uses its connection up.
//
// Why a dial for each forward and not one tunnel between two nodes: a tunnel would need
// its own flow control, or a slow device would hold up all others.
//
// Why bytes go through a buffer here and not through splice(2), which moves them from
// socket to socket in the kernel: it was built and measured, by io.Copy and by a loop of our
// own with 64, 128 and 256 KiB at once. On two cores, one stream through a forward came to
// 0.76 of one without (median of 9 runs in turn; processor time 110 µs for 64 KiB in all
// parts together), and through a buffer of 128 KiB to 0.88 (96 µs); sixteen streams told
// the same. What splice saves, a copy within the cache, it spends on handling pages one by
// one; and it needs two pipes, four descriptors, for as long as io.Copy waits.
// BenchmarkForward in test/bench measures it again.
package cluster
