//go:build unix

package session

import (
	"net"
	"os"
	"syscall"
)

// newTry returns l.try for connections that are sockets.
//
// It saves each arriving frame a goroutine that has to be woken, which is most of a
// round trip's time on a fast path, and a copy of each byte.
func newTry(l *Local) func([]byte) int {
	sock, wrote := l.Conn, func(int) {}
	if w, ok := sock.(Wrapper); ok {
		sock, wrote = w.NetConn(), w.Wrote
	}
	switch sock.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil // another wrapper may want to see what is written
	}
	raw, err := sock.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	// One closure for the life of the connection, or each frame would need its own.
	var p []byte
	var n int
	var werr error
	write := func(fd uintptr) bool {
		n, werr = syscall.Write(int(fd), p)
		return true // never wait
	}
	return func(b []byte) int {
		select {
		case l.writing <- struct{}{}:
		default:
			return 0
		}
		defer l.writing.unlock()
		p, n, werr = b, 0, nil
		err := raw.Write(write)
		p = nil
		if err != nil || werr == syscall.EAGAIN || werr == syscall.EINTR {
			return 0 // closed, or its deadline has passed: Write will say so
		}
		if werr != nil {
			// The kernel tells of a failure once: see Local.
			err := error(&net.OpError{Op: "write", Net: l.LocalAddr().Network(), Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: os.NewSyscallError("write", werr)})
			l.writeErr.CompareAndSwap(nil, &err)
			return 0
		}
		wrote(n)
		return n
	}
}
