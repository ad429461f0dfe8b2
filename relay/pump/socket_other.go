//go:build !unix

package pump

import "net"

// A socket is read without a buffer that waits: not here.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) read(int) (*[]byte, int, error) { panic("pump: no socket") }
