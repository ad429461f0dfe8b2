// Command bench measures what a bridge costs, beside chains of programs that only
// pass bytes or WebSocket frames on.
//
//	go run ./test/bench                 everything
//	go run ./test/bench -run throughput
//	go run ./test/bench -list           what there is
//	go run ./test/bench -tiny           whether it works
//
// # What is measured
//
// Relay, agent and bridge tunnel, built from this tree and run as three processes on
// 127.0.0.1 with the fake signaler. User and target are this program. For the
// reference it runs itself as hops:
//
//	user ─► proxy ─► relay ─► agent ─► target
//
// as raw TCP three times, as minimal WebSocket hops (TCP into masked frames, frames
// unmasked and passed on, frames into TCP), and as these with TLS. They do what has to be
// done and nothing else: no limits, no timers, no pings, no checks. One buffer a direction,
// a read, a pass over the payload, a write of header and payload.
//
// In each round every subject is measured once, one after the other, and another one
// begins each time. Ratios are of one round, so what else the machine does meets both.
//
// Compare figures of one run only: machines differ, and so do moments of one.
//
// The benchmarks of go test in this folder are in one process, with two nodes:
//
//	go test -run '^$' -bench . -count 10 ./test/bench
package main
