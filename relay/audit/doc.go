// Package audit keeps who did what on a node: one line of JSON for each event, in
// the order in which they happened, appended to a file or to standard output.
//
// # The lines, version 1
//
// A node has started:
//
//	{"v":1,"seq":1,"time":"2026-01-02T03:04:05.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"started","url":"wss://relay.example.com","version":"v0.5.0"}
//
// A requester, or a device on /bridge/accept, was refused:
//
//	{"v":1,"seq":2,"time":"2026-01-02T03:04:06.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"refused","bridgeId":"b7q5zk3v6yw2m4xd","principal":"ops","method":"api-key","from":"192.0.2.7","deviceId":"pump-7","targets":["ssh"],"decision":"deny","rule":"no night shifts","path":"/bridge/connect","code":"forbidden","start":"2026-01-02T03:04:05.900Z"}
//
// A bridge opens, and is over:
//
//	{"v":1,"seq":3,"time":"2026-01-02T03:04:07.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"opened","bridgeId":"c3m5zk3v6yw2m4xd","principal":"ops","method":"api-key","from":"192.0.2.7","deviceId":"pump-7","targets":["ssh"],"decision":"allow","rule":"ops","via":"10.0.0.6:7443","start":"2026-01-02T03:04:06.800Z"}
//	{"v":1,"seq":4,"time":"2026-01-02T04:04:07.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"closed","bridgeId":"c3m5zk3v6yw2m4xd","principal":"ops","method":"api-key","from":"192.0.2.7","deviceId":"pump-7","targets":["ssh"],"decision":"allow","rule":"ops","via":"10.0.0.6:7443","code":"done","by":"requester","start":"2026-01-02T03:04:06.800Z","end":"2026-01-02T04:04:07.000Z","toDeviceBytes":1024,"toRequesterBytes":52340}
//
// A signed URL was handed out, until expires:
//
//	{"v":1,"seq":5,"time":"2026-01-02T04:05:00.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"signed_url_made","principal":"ops","method":"api-key","from":"192.0.2.7","deviceId":"pump-7","targets":["web"],"decision":"allow","rule":"ops","expires":"2026-01-02T12:00:00.000Z"}
//
// An operator ended a bridge; from is where the admin listener was asked, via the node
// that was asked if it is another. The line of its end follows:
//
//	{"v":1,"seq":6,"time":"2026-01-02T04:06:00.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"killed","bridgeId":"d5m5zk3v6yw2m4xd","principal":"ops","method":"api-key","from":"127.0.0.1:50412","deviceId":"pump-7","targets":["ssh"],"code":"killed"}
//
// Keys, certificates or rules from files are in force, and the node has stopped:
//
//	{"v":1,"seq":7,"time":"2026-01-02T04:07:00.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"config_reloaded","settings":["RELAY_API_KEYS"]}
//	{"v":1,"seq":9,"time":"2026-01-02T04:08:00.000Z","node":"10.0.0.5:7443","instance":"4t2m7cbq3hzka","event":"stopped","suppressed":17}
//
// # What they mean
//
// Fields that are empty are left out. Within a version none is renamed or changes its
// meaning; new ones may come. Times are UTC with milliseconds. What came from outside
// is cut to 512 bytes. No line has a key, a token, a URL with one, request data or
// payload.
//
//	seq         counts from 1 for each instance, which is one run of a node. A number
//	            that is missing is a line that was lost
//	from        the address of the requester or device, as relay.Config.TrustedProxies says
//	decision    allow, deny, or nothing if it did not come to that; rule is what decided
//	code        of package wire: why it was refused, or why it ended
//	suppressed  refusals since the line before that have no line: there were too many
//
// Each opened has one closed after it, if the node did not crash. One that has a
// refused of the code audit_failed after it instead was written too late: that bridge
// carried nothing. Two lines with the same seq are one line: it was written again
// because its disk had not said that it has it.
//
// # When lines cannot be kept
//
// A Log writes in a goroutine of its own and never holds up bytes of a bridge. While it
// cannot write (a full disk, a pipe that nobody reads) it tries again every second, says
// so in the log once, and holds up to 16384 lines in memory; half of that at most are
// refusals, so that strangers cannot push out the ends of bridges. Beyond that lines are
// lost and counted.
//
// With FailClosed, what must have a line does not happen without: a bridge, and a signed
// URL. It waits for the line to be written (with Sync: to be on the disk), 3 s at most.
// Refusals and kills happen at any rate, and open bridges go on: their opened line is
// there, and to end them would make a full disk an outage of what has been let in
// rightly. With FailOpen nothing waits.
//
// # Files
//
// A file is made with mode 0600; one that is there keeps its mode. It is followed by
// name: if it was moved or deleted, the next lines go to a new one. From MaxSize on it is
// renamed with the time behind its name, and the oldest of these beyond Keep are deleted.
// A line that was cut short is taken back, or, after a crash, ended.
//
// # Why
//
// Why not lumberjack: a goroutine of it never ends, two rotations in one millisecond
// overwrite one file, it truncates a file that somebody else has made in between, leaves
// half lines where the disk was full, and never syncs.
//
// Why refusals are limited (of strangers: 20 a second, of known principals: 100): who can
// have lines written can fill a disk, or have rotation delete what was there before.
package audit
