//go:build !unix

package socket

import (
	"io/fs"
	"syscall"
)

// errNobody: nobody listens on a socket (WSAECONNREFUSED).
var errNobody error = syscall.Errno(10061)

// modeBeforeBind does nothing: who may connect is for the directory's ACL to say.
func modeBeforeBind(fs.FileMode) func(network, address string, c syscall.RawConn) error {
	return nil
}

// isSocket: on Windows a socket is a reparse point, which older releases of Go call
// irregular and no socket.
func isSocket(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeSocket|fs.ModeIrregular) != 0
}
