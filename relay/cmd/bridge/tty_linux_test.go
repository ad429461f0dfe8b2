package main

import (
	"io"
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// openTTY gives the process a terminal for standard output and error; what it
// shows is its standard output. The function is called when it has ended.
func (p *process) openTTY(ts *testscript.TestScript) func() {
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	fd := int(control.Fd())
	ts.Check(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)) // unlock it
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	ts.Check(err)
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	p.cmd.Stdout, p.cmd.Stderr = tty, tty
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&p.out, control) // ends with EIO when the last tty is closed
	}()
	return func() {
		tty.Close()
		<-read
		control.Close()
	}
}
