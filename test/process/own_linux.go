package process

import (
	"os"
	"os/exec"
	"syscall"
)

// Own puts a program that is not started yet in a process group of its own, so that a
// Ctrl-C is for whoever started it to pass on, and has the kernel kill it if nobody is left
// to do so.
func Own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Kill kills a program that Own has put in a group, and its children.
func Kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
