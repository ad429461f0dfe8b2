//go:build unix

package socket

import (
	"io/fs"
	"syscall"
)

// errNobody: nobody listens on a socket.
var errNobody error = syscall.ECONNREFUSED

// modeBeforeBind makes bind create the socket with its mode. Systems other than
// Linux may refuse; there chmod follows.
func modeBeforeBind(mode fs.FileMode) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.Fchmod(int(fd), uint32(mode.Perm())) })
	}
}

func isSocket(info fs.FileInfo) bool { return info.Mode()&fs.ModeSocket != 0 }
