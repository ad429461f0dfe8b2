// Package handoff takes signals from a program on the same device that has the
// connection to the hub already, in whatever language. A hub keeps one connection
// per identity: that program hears the signal, hands its JSON to the agent, and
// answers its hub with what the agent says.
//
// # Ways in
//
//	unix:/run/deviceagent/handoff.sock  a Unix socket of mode 0660
//	http:127.0.0.1:7072                 POST /signal on a loopback address, with a token
//	stdin                               lines on standard input, answers on standard output
//
// What goes in is the body of the message, or the payload of the direct method
// "Bridge", as it is: one JSON object of at most signaler.MaxSize bytes. What comes
// back is one line:
//
//	{"accepted":true}
//	{"code":"target_not_allowed","message":"target \"ssh\" is not on this device's list"}
//
// The second one is the payload of a refused direct method. After a message there is
// nobody to answer, and the line may be passed over.
//
// On a socket an object ends where its braces close, so the writer may close its
// direction, or send a newline, or just wait. More objects may follow, each with its
// answer, in order. Garbage is answered and ends the connection. On standard input
// an object may not span lines, so garbage costs its line and nothing else. The end
// of standard input ends the source, and with it the agent.
//
// Over HTTP the statuses are 200, 409 for a refusal of the agent's, 400 for what is
// no signal, and 401, 403, 404, 405, 413, 503 for what never reached the agent.
// All of them have the same line as their body.
//
// # Codes
//
// Besides those of package deviceagent: busy, too many connections; bad_request,
// not_found, forbidden and unauthenticated, over HTTP only.
//
// # Limits
//
//	16    connections at once; another one waits for 1 s and is answered "busy"
//	10 s  for a signal whose first byte is there, and for taking the answer
//	1 min until the first byte, or the next signal
//
// # Who may hand over a signal
//
// Whoever could send one to this device by the hub: the agent checks the relay's
// host, the device, the target, and a signature if it has a key for it. The socket's
// mode admits the agent's user and group; make the program's user a member of that
// group, or set the group of the directory with the setgid bit. A loopback port
// admits every user of the device, browsers included: hence the token, the refusal of
// requests with Origin, and of those for a Host that is not this machine.
//
// # Why
//
// Why the agent also posts its refusal to the relay, as for a message: only the
// program knows whether its hub carries answers. Where it does, the relay has the
// method's answer before, and passes over the other one.
//
// Why not the abstract sockets of Linux: they have no mode.
package handoff
