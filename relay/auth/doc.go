// Package auth says who is asking and which devices and targets they may reach.
//
// An authenticator turns a request into a Principal, and the Principal answers
// Allow. That is all a relay knows of it, so it declares the interface itself:
//
//	Authenticate(*http.Request) (*Principal, error)
//
// Keys is one, AllowAll another. Tokens of an identity provider fit behind the
// same method. Package relay checks signed URLs, and Signed is their principal.
// ErrNoCredentials means "nothing here for me", so that a chain can ask the next
// one; any other error ends it. Package policy decides by a file besides: then
// Grants are a limit of the credentials' own.
//
// An authenticator that can say later, without the request, what became of a
// principal has another method:
//
//	Renew(*Principal) (*Principal, error)
//
// # Order
//
//	authenticate  ErrNoCredentials, ErrBadCredentials (also ErrExpired, ErrNotYet)  401
//	allow         ErrForbidden                                                      403
//	ask the hub   whether the device exists is told only to those it concerns       404
//
// The text of a 401's error names the key and is for the log. The caller gets
// one fixed sentence, whatever was wrong, and Challenge in WWW-Authenticate.
// The text of ErrForbidden is for the caller: it says which part failed and
// nothing about what else the rules hold.
//
// # The keys file
//
// One key a line, in the manner of authorized_keys:
//
//	NAME HASH [devices=GLOB,GLOB] [targets=GLOB,GLOB] [not-before=TIME] [expires=TIME]
//
//	# a comment; also at the end of a line, after a space
//	ops    hmac-sha256:SALT:MAC
//	ci     hmac-sha256:SALT:MAC  devices=test-* targets=web,ssh  # until the pilot ends
//	legacy hmac-sha256:SALT:MAC  targets=- expires=2027-01-01T00:00:00Z
//
// NAME is 1 to 64 of A-Z a-z 0-9 . _ - @ + : / and is what logs and signals
// call the principal; signed: in front is for signed URLs. Absent devices or
// targets mean all. TIME is RFC 3339; the key works from the instant not-before
// until before the instant expires. Repeated names, hashes or options, and
// whatever is not described here, are faults. All faults are reported at once,
// by line, and never quote the line.
//
// # Globs
//
//	in a glob  stands for
//	*          any characters, also none
//	?          one character
//	\c         the character c, which is no letter or digit: \* \? \, \\ \-
//	-          as a whole glob of targets: the device's default target, that is, no target named
//
// All of them match the whole name, and case counts. Device IDs have no
// hierarchy, so * crosses everything; IoT Hub allows * ? , # and = in them,
// hence the escapes. The targets globs * and ** and so on also match the
// default target.
//
// What a target glob restricts is the target that the signal names. On a
// session, which the relay cannot parse, it is the agent that holds every
// stream to that target.
//
// # The hash
//
// HASH is hmac-sha256:SALT:MAC, where SALT is 16 random bytes, MAC is
// HMAC-SHA256 with the salt as its key and the API key's text as its message,
// and both are base64url without padding.
//
// # Why
//
// Why hashed: the file is in backups, tickets and configuration stores, and
// whoever reads it there must not become ops.
//
// Why a fast hash and not argon2 or bcrypt: slow hashes make guessing costly
// when there is something to guess. A generated key has 256 bits; at 10^12
// guesses a second the sun burns out first. A slow hash would instead hand
// every stranger a way to burn 50 ms of our CPU with one wrong request. The
// price is that a password must not be used as a key, which HashKey enforces
// as far as a program can see it.
//
// Why a salt, then: so that two relays' files do not show that they share a
// key, and that nobody can prepare one search for all installations.
//
// Why every entry is compared every time, in constant time: the time of an
// answer then says nothing of which keys there are. It costs 4 µs an entry on a
// 2.5 GHz Xeon without SHA instructions, hence MaxKeys: somebody who needs more
// wants an identity provider.
//
// Why no keys in the URL: URLs are logged by everything on the way. Browsers,
// which cannot set headers on a WebSocket, are what signed URLs are for.
package auth
