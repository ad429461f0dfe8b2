//go:build unix

package handoff

import "syscall"

// errNobody: nobody listens on a socket.
var errNobody error = syscall.ECONNREFUSED

// modeBeforeBind makes bind create the socket with its mode. Systems other than
// Linux may refuse; there chmod follows.
func modeBeforeBind(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { syscall.Fchmod(int(fd), socketMode) })
}
