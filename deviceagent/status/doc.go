// Package status is how a person or a script beside the device asks a running agent
// what it does: a socket of this machine, and one JSON object for each connection.
//
//	asks:    connects, and says nothing
//	answers: {"version":"1.2.3","pid":812,"now":"…","deviceId":"pump-7",…}\n, and closes
//
// # Where
//
// AGENT_STATUS_SOCKET, or the first of these that can be had:
//
//	$RUNTIME_DIRECTORY/status.sock            a service of systemd's
//	$XDG_RUNTIME_DIR/deviceagent/status.sock  a user who is signed in, but root
//	/run/deviceagent/status.sock              root, or who owns the folder
//	/var/run/deviceagent/status.sock          the same, where there is no /run (macOS: /var/db)
//	@deviceagent-status-UID                   Linux: a container without a folder to write to
//	%ProgramData%\deviceagent\status.sock     Windows
//
// # Who may ask
//
// Who may open the socket: its mode is 0600, so the agent's user and root. A socket
// whose name starts with @ has no mode; there the kernel says who asks, and only the
// same two are answered. They also look who answers, since anybody could have taken
// the name before. On Windows the folder's ACL says who may ask.
//
// # Limits
//
//	8    connections at once; more are closed
//	5 s  for taking the answer
//
// # Why
//
// Why no HTTP: nothing is asked that needs a path, and a device that is short of memory
// should not link a server for it. Any tool that can open a socket will do: nc -U.
//
// Why a socket that cannot be had where nobody named one is no fault: two agents may run on one
// machine, and a device without status is better than one without an agent.
package status
