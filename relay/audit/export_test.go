package audit

import "time"

// Line encodes one line as a Log would.
func Line(seq uint64, at time.Time, node, instance string, r Record, suppressed uint64) string {
	return string(line{Version, seq, Time{at}, node, instance, r, suppressed}.encode())
}

// Limits of a Log.
const (
	MaxQueued       = maxQueued
	StrangersBurst  = strangersBurst
	KnownBurst      = knownBurst
	RetryEvery      = retry
	BlockedFor      = blocked
	MaxTextInAField = maxText
)
