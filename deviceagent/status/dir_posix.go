//go:build unix

package status

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// inUse: somebody listens on a socket without a file.
func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
