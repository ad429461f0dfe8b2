package deviceagent

import (
	"io"
	"net"
	"time"
)

// echoConn reads what was written to it. No goroutine stands between: a write
// waits for its reader, which is all the back-pressure an echo needs.
type echoConn struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func (c *echoConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *echoConn) Write(p []byte) (int, error) { return c.w.Write(p) }
func (c *echoConn) CloseWrite() error           { return c.w.Close() }

func (c *echoConn) Close() error {
	c.w.Close()
	return c.r.Close()
}

func (c *echoConn) LocalAddr() net.Addr              { return echoAddr{} }
func (c *echoConn) RemoteAddr() net.Addr             { return echoAddr{} }
func (c *echoConn) SetDeadline(time.Time) error      { return nil }
func (c *echoConn) SetReadDeadline(time.Time) error  { return nil }
func (c *echoConn) SetWriteDeadline(time.Time) error { return nil }

type echoAddr struct{}

func (echoAddr) Network() string { return "echo" }
func (echoAddr) String() string  { return "echo" }
