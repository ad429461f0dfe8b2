// Package bench measures what a bridge costs: nodes, requester and device in one
// process, over real sockets on the loopback address.
//
//	go test -run '^$' -bench . -count 10 ./test/bench
//
// Compare figures of one run only: machines differ, and so do moments of one.
package bench
