// Package auth says who is asking and which devices and targets they may reach.
//
// An authenticator turns a request into a Principal, and the Principal answers
// Allow. That is all a relay knows of it, so it declares the interface itself:
//
//	Authenticate(*http.Request) (*Principal, error)
//
// Keys is one, AllowAll another. OIDC takes tokens of an identity provider, Certs
// client certificates; their principals have Claims and no Grants, so that they may
// do nothing until a policy says so. Package relay checks signed URLs, and Signed is
// their principal. ErrNoCredentials means "nothing here for me", so that a chain, Any,
// can ask the next one; any other error ends it. Package policy decides by a file
// besides: then Grants are a limit of the credentials' own.
//
// An authenticator that can say later, without the request, what became of a
// principal has another method, which Any passes on:
//
//	Renew(*Principal) (*Principal, error)
//
// # Order
//
//	authenticate  ErrNoCredentials, ErrBadCredentials (also ErrExpired, ErrNotYet)  401
//	              ErrUnchecked                                                      503
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
// call the principal; signed:, oidc: and cert: in front are for others. Absent devices or
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
// # Tokens
//
// A token is a JWT in Authorization: Bearer. Three parts, the first of them a JSON
// object, are a token; every other bearer is an API key's business. It is good if all
// of this holds, in this order, so that only the last two may cost its issuer anything:
//
//	size       at most 12 KiB
//	alg        RS256 or ES256, or what is set of the asymmetric ones; never none, never an HMAC
//	typ        absent, JWT or at+jwt
//	iss        the issuer, exactly; for Entra ID also that of its version 1 for the same tenant
//	tid        where there is one, the tenant of Entra ID's issuer
//	aud        one of the audiences
//	exp, nbf   exp is there; both may be off by 60 s, for clocks
//	kid        a key of the issuer
//	signature  by that key
//
// The principal's name is oidc: and, of these, what the token has first:
//
//	preferred_username, upn   as it is
//	azp, appid                behind app:, if an application got the token for itself
//	oid, sub                  behind sub:
//
// or the one claim that is set. Claims are whatever the token says that is text, a number,
// a bool, or a list of these; scp and scope are split at spaces. A user name may
// change hands: rules that should not go by roles, groups or oid, with tid. With more than
// 200 groups Entra ID names none of them; app roles have no such limit.
//
// # The issuer's keys
//
// Nobody is asked before the first token comes, so a relay starts while its issuer is
// away. Then /.well-known/openid-configuration says where the keys are.
//
//	1 h     after that keys are asked for again, with the next token
//	10 s    at least, between two questions: a kid that is not known asks one, and others
//	        within this time are refused
//	5 s     the same after a question that failed; also the most that an answer may take
//	24 h    that keys go on for without an answer
//
// One request asks, those that come meanwhile wait for it. Only https is spoken, but for
// loopback addresses. RSA keys below 2048 bits, symmetric and private ones, and those
// without a kid are passed over.
//
// # Certificates
//
// A client certificate is taken from the request's own TLS connection, and only if
// net/http's server has verified it. The principal's name is cert: and the first URI, else
// e-mail address, else DNS name among the subject's alternative names, else the common
// name, which then must not look like a URI or an e-mail address. Claims are uri, email,
// dns, cn, o, ou and issuer.
//
// Nobody asks whether a certificate was revoked: give them short lives. An authority that
// is taken out of the file counts for no new connection.
//
// Where a proxy in front ends TLS there is no certificate. No header about one is
// believed: the next proxy that forgets to take it away would let anybody be anybody.
//
// # Why
//
// Why a token that cannot be checked is 503 and not 401: after a 401 a client throws its
// token away and asks a person to sign in, which does not help while the issuer is away,
// and a tunnel ends for good. After a 503 it tries again with the same. The token is not
// accepted either way.
//
// Why an unknown kid is 401 within the 10 s: otherwise strangers with tokens of their own
// making could keep the relay's operators busy with outages that are none. Issuers publish
// a key long before they sign with it.
//
// Why a token without kid is refused, though OpenID Connect lets an issuer with one key
// leave it out: no way is left then to tell a new key from a forgery.
//
// Why an API key beside a token is refused, and one beside a certificate counts: keys and
// tokens are sent because somebody said so, and two of them contradict each other. A
// certificate goes along with everything.
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
