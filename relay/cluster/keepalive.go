package cluster

import (
	"net"
	"time"
)

// keepAlive finds a peer that is gone while nobody has anything to say: 15 s of
// silence and four probes 5 s apart are package ws's 35 s. The ends of a bridge watch
// for that themselves; this is for a forward both of whose ends are gone.
//
// Not TCP_USER_TIMEOUT (RFC 5482) besides: Linux ends by it also a connection whose other
// end is there and does not read, and that is allowed to last.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}
