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
// CPU is utime and stime of /proc/PID/stat; the kernel's work on a loopback connection
// counts for whoever sends. Memory is VmRSS, in fresh processes, of which a few streams
// or bridges were there before. Each bulk transfer ends with a half-close and the target's
// word for how much arrived.
//
// Raw mode has two peers of its own, and as its reference the middle of the three hops.
// Bridges are connect, signal, dial back, join and close, by 64 requesters at once.
//
// The delayed path is a process, too, between agent and relay, or in front of the target
// for plain TCP: bytes leave it at its rate, and arrive after half of the round trip. The
// kernel sees no delay, so plain TCP through it reaches the rate from the start; both are
// measured in the second half of their time.
//
// Compare figures of one run only: machines differ, and so do moments of one. To see what
// a change does, build the programs before it into a folder, and give that to -against.
//
// # Why
//
// Why the device's end of the frame chain accepts a connection and yet masks: of a bridge
// both ends are clients, so the relay has as much to unmask either way.
//
// Why frames of 56 KiB: see bufferSize. The reference is as fast as we could make it.
//
// Why the frame chain half-closes by the end of its TCP or TLS connection: WebSockets
// have no half-close, and without one the same orders could not be given to all.
//
// Why programs write what they say to files: to read a pipe would cost the measuring
// program, which shares the machine with what it measures.
//
// The benchmarks of go test in this folder are in one process, with two nodes:
//
//	go test -run '^$' -bench . -count 10 ./test/bench
package main
