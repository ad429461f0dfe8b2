//go:build unix

package pump

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A socket is read into a buffer that it takes only when bytes have come: an idle leg
// holds none, and a read never finds its buffer too small.
type socket struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // of all reads: a closure each would be garbage

	max int     // of the read under way
	b   *[]byte // of busyBuffers
	n   int
	err error
}

// newSocket returns nil for what is no bare TCP connection.
func newSocket(c net.Conn) *socket {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil // closed, as the next read will say
	}
	s := &socket{raw: raw}
	s.once = func(fd uintptr) bool {
		b := busyBuffers.Get().(*[]byte)
		n, err := syscall.Read(int(fd), (*b)[headroom:][:s.max])
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), (*b)[headroom:][:s.max])
		}
		if n <= 0 {
			busyBuffers.Put(b)
			b = nil
		}
		if err == syscall.EAGAIN {
			return false // the runtime waits, without a buffer
		}
		s.b, s.n, s.err = b, max(n, 0), err
		return true
	}
	return s
}

// read waits for at most max bytes and returns them behind the headroom of a buffer of busyBuffers,
// which is the caller's, or an error.
func (s *socket) read(max int) (b *[]byte, n int, err error) {
	s.max = max
	if err := s.raw.Read(s.once); err != nil {
		return nil, 0, err
	}
	b, n, err = s.b, s.n, s.err
	s.b = nil
	switch {
	case err != nil:
		return nil, 0, os.NewSyscallError("read", err)
	case n == 0:
		return nil, 0, io.EOF
	}
	return b, n, nil
}
