// Package client is the Go library for the service side: it reaches a device
// through a relay.
//
// Dial opens a session: many streams on one bridge, one signal to the device.
// DialRaw opens a raw bridge: one byte stream, no protocol of ours on it. A Link
// keeps a session to a device, dialling again when it is lost, and its Forward
// connects the programs of a listener to a target.
//
// # Errors
//
// Errors are *Error when the relay or the device said no; its Code says why. They
// are *UnreachableError when nobody answered, and *CredentialsError when
// Config.Credentials had none to send. No error holds an API key.
//
// # A Link's life
//
//	dial ─► up ── lost, or the device takes no more streams ─► wait ─► dial …
//	  └── no use to try again ─► Run returns
//
// It waits 1 s, 2 s, 4 s and so on up to 60 s, each time a random part of that, and
// besides as long as the relay asks for (Retry-After), at most 10 minutes. A session
// that lasted a minute, or ended because its node drained, makes the next wait a short
// one. A dial is given 2 minutes. A try is of no use when the request is wrong or
// forbidden, the hub does not know the device, the device refused for a reason that
// does not pass by itself, an operator ended the bridge, or a person has to sign in
// again (ErrSignIn). What answers in the relay's place, once a session was up, ends the
// Link only with 401 or 403.
//
// A session whose node drains, as Session.Draining says, is not lost yet. The Link
// dials another one after a random part of 5 s (10 s and so on up to 60 s for moves in
// a row), and again as above if that fails, while the old one stays in use. When the new one is up, new streams go there; the old
// session is closed when its last stream has ended. Only what still runs at the node's
// deadline is cut.
//
// Streams do not outlive their session. A program behind Forward whose stream is
// cut sees its connection reset: it never takes a cut for an end.
package client
