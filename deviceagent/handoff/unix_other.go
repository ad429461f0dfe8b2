//go:build !unix

package handoff

import "syscall"

// errNobody: nobody listens on a socket (WSAECONNREFUSED).
var errNobody error = syscall.Errno(10061)

// modeBeforeBind does nothing: who may connect is for the directory's ACL to say.
func modeBeforeBind(_, _ string, _ syscall.RawConn) error { return nil }
