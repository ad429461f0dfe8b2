package status

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// checkPeer says why the process at the other end of c is neither this user's nor root's.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *syscall.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if uid := int(cred.Uid); uid != 0 && uid != os.Getuid() {
		return fmt.Errorf("the other end is user %d's, neither this one's nor root's", uid)
	}
	return nil
}
