// Package clients holds only tests: programs that share no line with this
// project, on both ends of real bridges.
//
// Without a build tag, a WebSocket library of another author is requester and
// device of a relay in this process. With the tag clients the relay, the agent
// and the bridge command are built and run as processes, and OpenSSH, rsync,
// curl, iperf3, netcat and Node's ws use them:
//
//	go test -count=1 -tags clients ./test/clients
//
// That needs these programs installed (.ci/run does it on Debian); one that is
// missing fails its test. -count=1, because the test cache does not see the
// sources of the processes. With -race they are built with the race detector.
package clients
