// Package front is the load balancer of tests: TCP, one backend after the other
// for each connection, without affinity, as a balancer that knows nothing of
// bridges. It asks its backends whether they are ready, and leaves out those that
// are not; one that cannot be reached is passed over, and nobody hears of it.
//
// What it does not do: end a connection whose peer is silent. Half a close is
// passed on as half a close, and a reset ends both sides.
package front
